//! An installation that runs: puts files in their places, and records each in the manifest.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::files::{Files, InstalledFile, Layout, RECOVER_UNIT, WANTED_AT_BOOT};
use super::manifest::Manifest;
use super::place::{Root, ignore_absent, may_be_read_only};
use super::report::Report;
use super::uninstall::running_watchers;
use crate::cdi::directories::{DEFAULT_DIRECTORIES, Specs};
use crate::cdi::generate::{self, ANNOTATED, DEFAULT_KIND, NewDevice};
use crate::cdi::generated_files::{self, FileChange};
use crate::cdi::names::Kind;
use crate::host::state::registry::DEFAULT_STATE_DIR;

/// Gives an existing state directory mode 0700: kubelet creates it with mode 0755 when it mounts it
/// into the pod of the device plugin.
fn restrict_to_root(state_dir: &Path) -> Result<()> {
    match fs::symlink_metadata(state_dir) {
        Ok(found) if found.is_dir() => fs::set_permissions(state_dir, Permissions::from_mode(0o700))
            .with_context(|| {
                format!(
                    "cannot set the mode of {} (run this as root)",
                    state_dir.display()
                )
            }),
        _ => Ok(()),
    }
}

/// The result for a configuration that the administrator has changed. The one of this version is in
/// the data directory.
const KEPT: &str = "kept";

/// An installation that runs.
pub(super) struct Installation {
    pub layout: Layout,
    pub root: Root,
    pub manifest: Option<Manifest>,
    /// What was done so far.
    pub report: Report,
}

impl Installation {
    /// Installs for all users of the host.
    pub(super) fn install(&mut self, files: &Files) -> Result<()> {
        let is_update = self
            .manifest
            .as_ref()
            .is_some_and(|manifest| manifest.is_update());
        for file in &files.programs {
            self.put(file)?;
        }
        if !self.root.is_staging() {
            for program in &files.programs {
                try_out(&program.path)?;
            }
            restrict_to_root(Path::new(DEFAULT_STATE_DIR))?;
        }
        for file in &files.documents {
            self.put(file)?;
        }
        if let Some(config) = &files.config {
            self.put_config(config)?;
        }
        self.put_cdi()?;
        let mut changes = Vec::new();
        for file in &files.units {
            changes.push((&file.path, self.put_if_possible(file)?));
        }
        // Only at first: an administrator who has disabled the unit has decided so.
        let is_new = |path: &Path, change| change == FileChange::Created && path.ends_with(RECOVER_UNIT);
        for (path, change) in changes {
            if is_new(path, change) && !is_update && self.may_enable() {
                self.enable(path)?;
            }
        }
        if self.manifest.is_some() && self.root.is_run_by_systemd() {
            self.root.systemctl(&["daemon-reload"]);
        }
        // Last: from here on engines start the hooks.
        for file in &files.hooks_json {
            self.put_if_possible(file)?;
        }
        Ok(())
    }

    /// Installs a file, and records it.
    pub(super) fn put(&mut self, file: &InstalledFile) -> Result<FileChange> {
        if let Some(manifest) = &mut self.manifest {
            manifest.make_directories(&self.root, &file.path)?;
        }
        let change = self.root.put(file)?;
        if let Some(manifest) = &mut self.manifest {
            manifest.note(&file.path, &file.content)?;
        }
        self.report.push((file.path.clone(), change.word()));
        Ok(change)
    }

    /// [`Installation::put`] for a file that the device plugin does not need: a read-only /usr has
    /// no place for it.
    fn put_if_possible(&mut self, file: &InstalledFile) -> Result<FileChange> {
        let outcome = self.put(file);
        may_be_read_only(outcome)
    }

    /// Installs the configuration, unless the administrator has changed it.
    fn put_config(&mut self, config: &InstalledFile) -> Result<()> {
        let present = std::fs::read(self.root.at(&config.path)).ok();
        let manifest = self
            .manifest
            .as_mut()
            .context("a configuration needs a manifest")?;
        let is_changed =
            |present: &[u8]| present != config.content && !manifest.is_as_installed(&config.path, present);
        if present.is_some_and(|present| is_changed(&present)) {
            manifest.note_kept(&config.path)?;
            self.report.push((config.path.clone(), KEPT));
            return Ok(());
        }
        self.put(config).map(|_| ())
    }

    /// Installs the CDI device whose containers name their devices in annotations.
    fn put_cdi(&mut self) -> Result<()> {
        let kind: Kind = DEFAULT_KIND.parse()?;
        let device = NewDevice {
            name: ANNOTATED.to_owned(),
            devices: Vec::new(),
            symlinks: Vec::new(),
        };
        let dir = self.root.at(&self.layout.cdi);
        let directories = match self.root.is_staging() {
            true => vec![dir.clone()],
            false => DEFAULT_DIRECTORIES.map(PathBuf::from).to_vec(),
        };
        let path = generated_files::check(&Specs::scan(&directories), &dir, &kind, &device.name, false)?;
        let name = path.file_name().context("a CDI spec has a name")?;
        let installed = self.layout.cdi.join(name);
        if let Some(manifest) = &mut self.manifest {
            manifest.make_directories(&self.root, &installed)?;
        }
        let document = generate::document(&kind, &self.layout.hooks, &[device])?;
        let change = generated_files::write(&path, &document)?;
        if let Some(manifest) = &mut self.manifest {
            manifest.note(&installed, &std::fs::read(&path)?)?;
        }
        self.report.push((installed, change.word()));
        Ok(())
    }

    /// Whether a unit may be enabled: on this host if systemd runs it, and on a host that was
    /// entered.
    fn may_enable(&self) -> bool {
        match self.manifest {
            Some(_) => self.root.is_run_by_systemd(),
            None => !self.root.is_staging(),
        }
    }

    /// Has systemd start a unit at boot.
    fn enable(&mut self, unit: &Path) -> Result<()> {
        let link = Path::new(WANTED_AT_BOOT).join(RECOVER_UNIT);
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(WANTED_AT_BOOT)
            .and_then(|()| symlink(unit, &link));
        let change = match made {
            Ok(()) => FileChange::Created,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => FileChange::Unchanged,
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("cannot enable {RECOVER_UNIT}: cannot create {}", link.display())
                });
            }
        };
        self.report.push((link, change.word()));
        Ok(())
    }

    /// Removes what an earlier version had and this one has not. Returns what was done.
    pub(super) fn finish(mut self) -> Result<Report> {
        if let Some(manifest) = self.manifest.take() {
            for path in manifest.finish()? {
                std::fs::remove_file(self.root.at(&path)).or_else(ignore_absent)?;
                self.report.push((path, "removed"));
            }
            let watchers = running_watchers(&self.root.at(&self.layout.watcher()));
            if !watchers.is_empty() {
                eprintln!(
                    "oci-hotplug: running watchers (processes {}) keep their version; `oci-hotplug recover \
                     --restart-watchers` replaces them, without effect on containers",
                    watchers.join(" ")
                );
            }
        }
        Ok(self.report)
    }
}

/// Checks that a program runs here, so that an error is seen now and not when containers do not
/// start.
pub(super) fn try_out(program: &Path) -> Result<()> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| {
            format!(
                "cannot start {} on the host (it needs glibc 2.34 or newer and libudev.so.1; if its file system is mounted noexec, name another directory with --prefix)",
                program.display()
            )
        })?;
    if !output.status.success() {
        bail!(
            "cannot run {} on this host: {} (it needs glibc 2.34 or newer and libudev.so.1)",
            program.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kubelet's `DirectoryOrCreate` makes it.
    #[test]
    fn a_state_directory_that_others_can_read_is_restricted_and_an_absent_one_stays_absent() {
        let scratch = tempfile::tempdir().unwrap();
        let state_dir = scratch.path().join("state");
        restrict_to_root(&state_dir).unwrap();
        assert!(!state_dir.exists());
        fs::create_dir(&state_dir).unwrap();
        fs::set_permissions(&state_dir, Permissions::from_mode(0o755)).unwrap();
        restrict_to_root(&state_dir).unwrap();
        let mode = fs::metadata(&state_dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }
}
