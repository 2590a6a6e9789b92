//! `oci-hotplug install`: puts the programs beside this one on a host, with all that its engines and systemd look for.
//! What packaging/install.sh does where there is a shell; this is for an image that has none.
//!
//! The host's root is entered before anything is written: links on the host lead where they lead on the host.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::render::json::write_json;
use crate::cdi::directories::{DEFAULT_DIRECTORIES, Specs};
use crate::cdi::generate::{self, ANNOTATED, DEFAULT_KIND, FileChange, NewDevice};
use crate::cdi::names::Kind;
use crate::exit;
use crate::host::programs;
use crate::host::state::atomic_file::{Durability, replace};

/// Where podman and CRI-O look for hooks that annotations ask for, wherever the rest goes.
const HOOKS_JSON: &str = "/usr/share/containers/oci/hooks.d";

/// Where the files below name our programs.
const PACKAGED_HOOKS: &str = "/usr/libexec/oci/hooks.d/";
const PACKAGED_BIN: &str = "/usr/bin/";

/// What systemd starts at boot (systemctl(1), enable).
const WANTED_AT_BOOT: &str = "/etc/systemd/system/multi-user.target.wants";

const TOOL: &str = "oci-hotplug";
const HOOKS: [&str; 4] = [
    "oci-hotplug-usbip",
    "oci-hotplug-watcher",
    "oci-hotplug-prestart",
    "oci-hotplug-poststop",
];

/// Clears away at boot what the last one left.
const RECOVER: &str = "oci-hotplug-recover.service";

const UNITS: [(&str, &str); 3] = [
    (
        "oci-hotplug-watcher@.service",
        include_str!("../../packaging/systemd/oci-hotplug-watcher@.service"),
    ),
    (
        "oci-hotplug.slice",
        include_str!("../../packaging/systemd/oci-hotplug.slice"),
    ),
    (
        RECOVER,
        include_str!("../../packaging/systemd/oci-hotplug-recover.service"),
    ),
];

const JSON: [(&str, &str); 2] = [
    (
        "oci-hotplug-prestart.json",
        include_str!("../../hooks.d/oci-hotplug-prestart.json"),
    ),
    (
        "oci-hotplug-poststop.json",
        include_str!("../../hooks.d/oci-hotplug-poststop.json"),
    ),
];

/// The options.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The host's root directory, as this container has it.
    #[arg(long, value_name = "DIR", default_value = "/")]
    to: PathBuf,
    /// Where the programs go on the host: PREFIX/bin and PREFIX/libexec/oci/hooks.d. For a host whose /usr can't be
    /// written, another that can, and that programs may be started from.
    #[arg(long, value_name = "PREFIX", default_value = "/usr")]
    prefix: PathBuf,
}

/// A file that is to be on the host.
struct FactsNeeded {
    path: PathBuf,
    content: Vec<u8>,
    mode: u32,
}

/// Puts everything in its place; what is there as it should be stays untouched.
pub fn run(options: &Options, as_json: bool) -> Result<()> {
    if !options.prefix.is_absolute() {
        bail!(
            "--prefix {}: it must be an absolute path",
            options.prefix.display()
        );
    }
    let hooks = options.prefix.join("libexec/oci/hooks.d");
    let programs = programs(&options.prefix.join("bin"), &hooks)?;
    enter(&options.to)?;

    let mut report = Vec::new();
    for program in &programs {
        report.push((program.path.clone(), put(program)?));
    }
    for program in &programs {
        try_out(&program.path)?;
    }
    report.push(put_cdi(&hooks)?);
    // Last, for from here on engines start the hooks and systemd the watchers.
    for file in units(&options.prefix, &hooks)
        .iter()
        .chain(&json_of(&options.prefix, &hooks))
    {
        let placed = put_if_possible(file)?;
        report.push((file.path.clone(), placed));
        // Only at first: an administrator who has disabled it has the last word.
        if placed == FileChange::Created && file.path.ends_with(RECOVER) {
            report.push(enable(&file.path)?);
        }
    }
    tell(&report, as_json)
}

/// Our programs, in the order in which they are to be there: a hook starts a watcher.
fn programs(bin: &Path, hooks: &Path) -> Result<Vec<FactsNeeded>> {
    let of = |name: &str, dir: &Path| -> Result<FactsNeeded> {
        let from = programs::find(name)?;
        Ok(FactsNeeded {
            path: dir.join(name),
            content: fs::read(&from).with_context(|| format!("reading {}", from.display()))?,
            mode: 0o755,
        })
    };
    let mut all = vec![of(TOOL, bin)?];
    for name in HOOKS {
        all.push(of(name, hooks)?);
    }
    Ok(all)
}

/// From here on this process's root is the host's.
fn enter(root: &Path) -> Result<()> {
    if root != Path::new("/") {
        nix::unistd::chroot(root).with_context(|| {
            format!(
                "entering {} (--to; it takes root and the capability SYS_CHROOT)",
                root.display()
            )
        })?;
    }
    std::env::set_current_dir("/")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    Ok(())
}

/// What became of it. By rename: whoever runs the version before goes on with it, and nobody ever finds half a file.
fn put(file: &FactsNeeded) -> Result<FileChange> {
    let placed = match fs::read(&file.path) {
        Ok(there) if there == file.content => FileChange::Unchanged,
        Ok(_) => FileChange::Updated,
        Err(error) if error.kind() == io::ErrorKind::NotFound => FileChange::Created,
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.path.display())),
    };
    if placed == FileChange::Unchanged {
        fs::set_permissions(&file.path, fs::Permissions::from_mode(file.mode))
            .with_context(|| format!("setting the mode of {}", file.path.display()))?;
    } else {
        write(file).with_context(|| {
            format!(
                "writing {} (a host whose /usr can't be written wants another --prefix)",
                file.path.display()
            )
        })?;
    }
    Ok(placed)
}

fn write(file: &FactsNeeded) -> io::Result<()> {
    let dir = file.path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    replace(&file.path, &file.content, file.mode, Durability::Synced)
}

/// As [`put`], for what the device plugin does without: a read-only /usr has no place for it, and that is no failure.
fn put_if_possible(file: &FactsNeeded) -> Result<FileChange> {
    put(file).or_else(|error| {
        let read_only = |error: &io::Error| error.kind() == io::ErrorKind::ReadOnlyFilesystem;
        if error.downcast_ref::<io::Error>().is_some_and(read_only) {
            eprintln!("oci-hotplug: left out: {}", exit::told(error.as_ref()));
            return Ok(FileChange::Unchanged);
        }
        Err(error)
    })
}

/// A program that can't run here must be known now, and not from containers that don't start.
fn try_out(program: &Path) -> Result<()> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| {
            format!(
                "starting {} on the host (it wants glibc 2.34 or newer and libudev.so.1, and a file system that is not mounted noexec: --prefix)",
                program.display()
            )
        })?;
    if !output.status.success() {
        bail!(
            "{} does not run on this host, which wants glibc 2.34 or newer and libudev.so.1: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn put_cdi(hooks: &Path) -> Result<(PathBuf, FileChange)> {
    let kind: Kind = DEFAULT_KIND.parse()?;
    let wish = NewDevice {
        name: ANNOTATED.to_owned(),
        devices: Vec::new(),
        symlinks: Vec::new(),
    };
    let specs = Specs::scan(&DEFAULT_DIRECTORIES.map(PathBuf::from));
    let path = generate::check(
        &specs,
        Path::new(DEFAULT_DIRECTORIES[0]),
        &kind,
        &wish.name,
        false,
    )?;
    let document = generate::document(&kind, hooks, &[wish])?;
    let placed = generate::write(&path, &document)?;
    Ok((path, placed))
}

fn units(prefix: &Path, hooks: &Path) -> Vec<FactsNeeded> {
    let is_read = ["/usr", "/usr/local"].iter().any(|dir| prefix == Path::new(dir));
    let dir = match is_read {
        true => prefix.join("lib/systemd/system"),
        false => PathBuf::from("/etc/systemd/system"),
    };
    UNITS
        .map(|(name, text)| text_file(&dir.join(name), text, prefix, hooks))
        .into()
}

fn json_of(prefix: &Path, hooks: &Path) -> Vec<FactsNeeded> {
    JSON.map(|(name, text)| text_file(&Path::new(HOOKS_JSON).join(name), text, prefix, hooks))
        .into()
}

/// A file that names our programs.
fn text_file(path: &Path, text: &str, prefix: &Path, hooks: &Path) -> FactsNeeded {
    FactsNeeded {
        path: path.to_owned(),
        content: text
            .replace(PACKAGED_HOOKS, &format!("{}/", hooks.display()))
            .replace(PACKAGED_BIN, &format!("{}/", prefix.join("bin").display()))
            .into_bytes(),
        mode: 0o644,
    }
}

/// Has systemd start a unit at boot.
fn enable(unit: &Path) -> Result<(PathBuf, FileChange)> {
    let link = Path::new(WANTED_AT_BOOT).join(RECOVER);
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(WANTED_AT_BOOT)
        .and_then(|()| symlink(unit, &link));
    match made {
        Ok(()) => Ok((link, FileChange::Created)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((link, FileChange::Unchanged)),
        Err(error) => Err(error).with_context(|| format!("enabling {RECOVER}: making {}", link.display())),
    }
}

fn tell(report: &[(PathBuf, FileChange)], as_json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        let list: Vec<_> = report
            .iter()
            .map(|(path, placed)| json!({ "file": path, "result": placed.word() }))
            .collect();
        write_json(&mut out, &list)?;
        return Ok(());
    }
    for (path, placed) in report {
        writeln!(out, "{} {}", placed.word(), path.display())?;
    }
    Ok(())
}
