//! Files of the configuration that the operator's tool writes: one rule or one class each, in
//! `config.d`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::stat::{Mode, umask};

use crate::host::config::Config;
use crate::host::state::atomic_file::{Durability, replace};

/// How each of our files begins. A file without it is the administrator's, also if it has a name of
/// ours.
pub(super) const MARK: &str = "# Written by oci-hotplug.";

/// The result of writing a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// The file is new, or has another text now.
    New,
    /// `--dry-run`: the file was checked only.
    DryRun,
    /// The file had this text.
    Unchanged,
}

impl Written {
    /// For messages.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::New => "written",
            Self::DryRun => "not written (--dry-run)",
            Self::Unchanged => "unchanged",
        }
    }
}

/// Writes a file into `config.d` atomically, if the configuration is valid with it.
///
/// # Errors
/// When the configuration would be invalid, the file cannot be written, or a file of the
/// administrator has its name. Nothing has changed then.
pub(super) fn write(config: &Config, name: &str, text: &str, dry_run: bool) -> Result<(PathBuf, Written)> {
    let dir = config.drop_in_dir();
    let path = dir.join(name);
    config.with_file(&path, text)?;
    match fs::read_to_string(&path) {
        Ok(old) if old == text => return Ok((path, Written::Unchanged)),
        Ok(old) if !old.starts_with(MARK) => bail!("cannot write {}: {NOT_OURS}", path.display()),
        _ => {}
    }
    if dry_run {
        return Ok((path, Written::DryRun));
    }
    // The mode below counts, not the shell's umask.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}{}", dir.display(), as_root(&dir)))?;
    replace(&path, text.as_bytes(), 0o644, Durability::Synced)
        .with_context(|| format!("cannot write {}{}", path.display(), as_root(&dir)))?;
    Ok((path, Written::New))
}

fn as_root(dir: &Path) -> &'static str {
    let is_ours = nix::unistd::access(dir, nix::unistd::AccessFlags::W_OK).is_ok();
    if is_ours || nix::unistd::geteuid().is_root() {
        ""
    } else {
        " (run this as root)"
    }
}

/// Removes a file that this tool has written.
///
/// # Errors
/// When it does not exist, cannot be removed, or is not ours.
pub(super) fn remove(path: &Path, what: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|text| !text.starts_with(MARK)) {
        bail!("cannot remove {what}: {}: {NOT_OURS}", path.display());
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!(
                "cannot remove {what}: {} does not exist (if another file defines it, edit that file)",
                path.display()
            )
        }
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// Why a file stays as it is.
const NOT_OURS: &str = "oci-hotplug did not write this file (edit it, or give it another name)";

/// Our files of `config.d` whose names begin with `prefix`, in the order of their names, with their
/// texts.
///
/// # Errors
/// When the directory or a file can't be read.
pub(super) fn files(config: &Config, prefix: &str) -> Result<Vec<(PathBuf, String)>> {
    let has_prefix = |path: &&Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        path.parent() == Some(&config.drop_in_dir()) && name.is_some_and(|name| name.starts_with(prefix))
    };
    let read = |path: &Path| {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path.to_owned(), text))
    };
    let is_ours =
        |file: &Result<(PathBuf, String)>| !file.as_ref().is_ok_and(|(_, text)| !text.starts_with(MARK));
    config
        .files()
        .filter(has_prefix)
        .map(read)
        .filter(is_ours)
        .collect()
}

/// A basic string of TOML (toml.io, v1.0.0, "String").
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}

/// An array of such strings, in one line.
pub(super) fn array(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(", "))
}

/// A number for a text, to tell files apart whose names would be the same (FNV-1a, 32 bits).
pub(super) fn number(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::any_text::any_text;
    use proptest::prelude::*;

    #[test]
    fn a_file_that_the_administrator_wrote_is_neither_replaced_nor_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.d/class-lab.toml");
        fs::create_dir(dir.path().join("config.d")).unwrap();
        let by_hand = "[[policy.deny]]\ndevices = [\"usb:0781\"]\n";
        fs::write(&file, by_hand).unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, "").unwrap();
        let config = Config::load(Some(&path), None).unwrap();
        let text = format!("{MARK}\n[class.lab]\ndevices = [\"usb:0403\"]\n");
        for fault in [
            write(&config, "class-lab.toml", &text, false).unwrap_err(),
            remove(&file, "class lab").unwrap_err(),
        ] {
            assert!(fault.to_string().contains("did not write this file"), "{fault}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), by_hand);
        assert_eq!(files(&config, "class-").unwrap(), []);
        let (ours, written) = write(&config, "class-board.toml", &text, false).unwrap();
        assert_eq!(written, Written::New);
        remove(&ours, "class board").unwrap();
        assert!(!ours.exists());
    }

    proptest! {
        #[test]
        fn toml_reads_back_what_is_quoted(text in any_text()) {
            let table: std::collections::BTreeMap<String, Vec<String>> =
                toml::from_str(&format!("key = {}", array(&[text.clone(), "b".into()]))).unwrap();
            prop_assert_eq!(&table["key"], &[text, "b".into()]);
        }
    }
}
