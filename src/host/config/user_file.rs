//! The configuration of a user of rootless containers: `~/.config/oci-hotplug/config.toml`. It can
//! deny devices and define classes, and nothing else: the administrator's configuration applies to
//! every container.
//!
//! The file is found by the user id and examined by descriptor, because the environment of hooks is
//! the caller's, and paths can be exchanged between check and use.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};
use rustix::fs::{Mode, OFlags, openat};
use serde::Deserialize;
use toml::Spanned;

use super::error::ConfigError;
use super::sections::{parse_classes, rules};
use super::toml_file::from_toml;
use crate::host::file_system::attributes;
use crate::host::rootless::home;
use crate::model::policy::{List, Rule, RuleDefinition};
use crate::model::request::class::{Classes, Definition};
use crate::model::rootless::Rootless;

/// The directory of the file, below the user's home directory, and its name there.
const DIRECTORY: &str = ".config/oci-hotplug";
const NAME: &str = "config.toml";

/// The maximum size of the file, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// The bits of a file's mode that let group and others write (inode(7)).
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserText {
    #[serde(default)]
    class: BTreeMap<String, Definition>,
    #[serde(default)]
    policy: PolicyText,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PolicyText {
    deny: Vec<Spanned<RuleDefinition>>,
}

/// The content of the file.
#[derive(Debug)]
pub(super) struct UserRules {
    pub classes: Classes,
    pub deny: Vec<Rule>,
}

/// A user's file: its path, and its text or why it cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserFile {
    pub path: PathBuf,
    text: Result<String, String>,
}

impl UserFile {
    /// The file of a user. `None` if it does not exist.
    pub(super) fn of(user: Rootless) -> Option<Self> {
        Self::in_home(&home(user)?)
    }

    /// The file of the user with this home directory.
    pub(super) fn in_home(home: &Path) -> Option<Self> {
        let path = home.join(DIRECTORY).join(NAME);
        let text = match read(&home.join(DIRECTORY)) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(source) => Err(ConfigError::Io {
                path: path.clone(),
                source,
            }
            .to_string()),
        };
        Some(Self { path, text })
    }

    /// The rules and classes.
    ///
    /// # Errors
    /// When the file cannot be used, with its text as far as that can be read.
    pub(super) fn rules(&self) -> Result<UserRules, (Option<&str>, ConfigError)> {
        let text = self.text.as_ref();
        let text = text.map_err(|fault| (None, ConfigError::Broken(fault.clone())))?;
        parse(&self.path, text).map_err(|error| (Some(text.as_str()), error))
    }
}

/// Parses the text of a user's file.
///
/// # Errors
/// When it has keys that only the administrator can set, or a class or rule is wrong.
fn parse(path: &Path, text: &str) -> Result<UserRules, ConfigError> {
    let written: UserText = from_toml(path, text).map_err(|error| match error {
        ConfigError::Malformed { path, place, message } => ConfigError::Malformed {
            path,
            place,
            message: format!("{message} (the file of a user can have only classes and policy.deny)"),
        },
        error => error,
    })?;
    Ok(UserRules {
        classes: parse_classes(path, &written.class)?,
        deny: rules(path, text, List::Deny, written.policy.deny)?,
    })
}

/// The text of the file in this directory, if nobody but the user can write either.
fn read(directory: &Path) -> io::Result<String> {
    let open = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let directory = openat(
        rustix::fs::CWD,
        directory,
        open | OFlags::PATH | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    check(&directory, "its directory")?;
    let file: OwnedFd = openat(&directory, NAME, open | OFlags::RDONLY, Mode::empty())?;
    check(&file, "it")?;
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(invalid("it is not a file"));
    }
    let mut text = String::new();
    if file.take(MAX_SIZE + 1).read_to_string(&mut text)? as u64 > MAX_SIZE {
        return Err(invalid("it has more than 1 MiB"));
    }
    Ok(text)
}

/// Checks that a file belongs to this process's user, and that nobody else can write it.
fn check(file: &impl AsFd, what: &str) -> io::Result<()> {
    let found = attributes(file)?;
    let mode = u32::from(found.stx_mode);
    if found.stx_uid != geteuid().as_raw() {
        return Err(invalid(&format!("{what} belongs to another user")));
    }
    let by_group = mode & GROUP_WRITES != 0 && found.stx_gid != getegid().as_raw();
    if by_group || mode & OTHERS_WRITE != 0 {
        return Err(invalid(&format!(
            "{what} is writable by other users (chmod go-w ~/{DIRECTORY} ~/{DIRECTORY}/{NAME})"
        )));
    }
    Ok(())
}

fn invalid(fault: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::sys::stat::Mode;

    use super::*;

    const DENY: &str = "[[policy.deny]]\ndevices = [\"usb:0781\"]\n[class.own]\ndevices = [\"usb:0403\"]\n";

    /// A home directory with this file.
    fn home_with(text: &str) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(DIRECTORY);
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        let file = directory.join(NAME);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        home
    }

    fn fault(home: &Path) -> String {
        let file = UserFile::in_home(home).unwrap();
        let fault = file.rules().unwrap_err().1.to_string();
        assert!(fault.contains(".config/oci-hotplug/config.toml: "), "{fault}");
        fault
    }

    #[test]
    fn a_user_s_file_has_classes_and_rules_that_deny() {
        let home = home_with(DENY);
        let file = UserFile::in_home(home.path()).unwrap();
        let rules = file.rules().unwrap();
        assert_eq!(rules.deny.len(), 1);
        assert!(
            rules.deny[0]
                .place
                .to_string()
                .ends_with("/.config/oci-hotplug/config.toml line 1")
        );
        assert_eq!(rules.classes.iter().count(), 1);
        assert_eq!(UserFile::in_home(&home.path().join("absent")), None);
    }

    #[test]
    fn what_only_the_administrator_can_set_is_an_error_that_says_so() {
        for text in [
            "[[policy.allow]]\ndevices = [\"usb:0781\"]",
            "[policy]\ndefault = \"anything\"",
            "[policy]\nclasses-only = false",
            "state-dir = \"/tmp\"",
            "[lowrisc]\nrequired = true",
        ] {
            let fault = fault(home_with(text).path());
            assert!(
                fault.contains("unknown field") && fault.contains("only classes and policy.deny"),
                "{fault}"
            );
        }
    }

    #[test]
    fn a_file_that_others_can_write_is_not_used() {
        for (path, mode, is_used) in [
            (NAME, 0o666, false),
            (NAME, 0o602, false),
            ("", 0o777, false),
            ("", 0o1777, false),
            (NAME, 0o400, true),
            ("", 0o700, true),
        ] {
            let home = home_with(DENY);
            let changed = home.path().join(DIRECTORY).join(path);
            fs::set_permissions(&changed, Permissions::from_mode(mode)).unwrap();
            let file = UserFile::in_home(home.path()).unwrap();
            assert_eq!(file.rules().is_ok(), is_used, "{path:?} {mode:o}");
            if !is_used {
                assert!(fault(home.path()).contains("chmod go-w"));
            }
        }
    }

    #[test]
    fn a_link_to_a_file_of_the_user_is_followed_and_a_pipe_is_refused() {
        let home = home_with("");
        let file = home.path().join(DIRECTORY).join(NAME);
        fs::rename(&file, home.path().join("elsewhere")).unwrap();
        symlink(home.path().join("elsewhere"), &file).unwrap();
        assert!(UserFile::in_home(home.path()).unwrap().rules().is_ok());
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, Mode::S_IRUSR).unwrap();
        assert!(fault(home.path()).ends_with("it is not a file"));
        fs::remove_file(&file).unwrap();
        fs::write(&file, "#".repeat(1 << 21)).unwrap();
        assert!(fault(home.path()).ends_with("it has more than 1 MiB"));
    }
}
