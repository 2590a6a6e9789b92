//! Puts files in their places below a root directory.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::files::InstalledFile;
use crate::cdi::generated_files::FileChange;
use crate::cli::error::warn;
use crate::exit;
use crate::host::state::atomic_file::{Durability, replace};
use crate::host::systemd::Manager;

/// The root directory of an installation: that of this host, or one that stands for it.
#[derive(Debug)]
pub(super) struct Root {
    staging: Option<PathBuf>,
    /// The systemd manager that has the installed units.
    manager: Manager,
}

impl Root {
    pub(super) fn new(staging: Option<PathBuf>) -> Self {
        Self {
            staging,
            manager: Manager::System,
        }
    }

    /// This host's, for units of a manager.
    pub(super) fn of(manager: Manager) -> Self {
        Self {
            staging: None,
            manager,
        }
    }

    /// Whether the files are for another system, which a package installs them on.
    pub(super) fn is_staging(&self) -> bool {
        self.staging.is_some()
    }

    /// Where a path of the host is.
    pub(super) fn at(&self, path: &Path) -> PathBuf {
        match &self.staging {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// Puts a file in its place, by rename: running processes keep the older version, and no
    /// one finds a part of a file.
    pub(super) fn put(&self, file: &InstalledFile) -> Result<FileChange> {
        let path = self.at(&file.path);
        let change = match fs::read(&path) {
            Ok(present) if present == file.content => FileChange::Unchanged,
            Ok(_) => FileChange::Updated,
            Err(error) if error.kind() == io::ErrorKind::NotFound => FileChange::Created,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        if change == FileChange::Unchanged {
            fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))
                .with_context(|| format!("cannot set the mode of {}", path.display()))?;
        } else {
            self.write(&path, file).with_context(|| {
                let prefix = match self.is_of_user() {
                    true => "",
                    false => "; if /usr is read-only, name another directory with --prefix",
                };
                format!(
                    "cannot write {} ({}{prefix})",
                    path.display(),
                    self.permission_hint()
                )
            })?;
        }
        Ok(change)
    }

    fn write(&self, path: &Path, file: &InstalledFile) -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        let durability = match self.is_staging() {
            true => Durability::Volatile,
            false => Durability::Synced,
        };
        replace(path, &file.content, file.mode, durability)
    }

    /// Whether systemd runs the system that is installed on, and the manager runs.
    pub(super) fn is_run_by_systemd(&self) -> bool {
        !self.is_staging() && self.manager.is_running()
    }

    /// How to get permission to write a file, for messages.
    pub(super) fn permission_hint(&self) -> &'static str {
        match self.is_of_user() {
            true => "the directories below ~/.local and ~/.config must belong to you",
            false => "run this as root",
        }
    }

    /// Whether the installation is that of one user.
    pub(super) fn is_of_user(&self) -> bool {
        self.manager != Manager::System
    }

    /// Runs systemctl; a failure does not matter to the files.
    pub(super) fn systemctl(&self, arguments: &[&str]) {
        let mut command = Command::new("systemctl");
        if let Manager::User(user) = self.manager {
            command.arg("--user").env("XDG_RUNTIME_DIR", user.runtime_dir());
        }
        let status = command.args(arguments).stdin(Stdio::null()).status();
        if !status.is_ok_and(|status| status.success()) {
            warn(&format!(
                "this command failed (run it again): {} {}",
                self.manager.command(),
                arguments.join(" ")
            ));
        }
    }
}

/// Success for a file that does not exist.
pub(super) fn ignore_absent(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// Accepts that a file cannot be written because its file system is read-only.
pub(super) fn may_be_read_only(outcome: Result<FileChange>) -> Result<FileChange> {
    outcome.or_else(|error| {
        let read_only = |error: &io::Error| error.kind() == io::ErrorKind::ReadOnlyFilesystem;
        if error.downcast_ref::<io::Error>().is_some_and(read_only) {
            eprintln!("oci-hotplug: skipped: {}", exit::told(error.as_ref()));
            return Ok(FileChange::Unchanged);
        }
        Err(error)
    })
}
