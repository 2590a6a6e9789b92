//! `oci-hotplug install`: puts the programs beside this one on a host, with all that its engines
//! and systemd look for.
//!
//! ```text
//! files (what goes where) ──> [enter the host's root] ──> place, each recorded in the manifest
//!                         ──> the hooks' JSON files, last
//! ```
//! The image of the device plugin runs it for the host that is mounted into the container (`--to`);
//! packaging/install.sh and the packages run it with the packaging directory of the source tree
//! (`--packaging`), which adds the configuration, the man pages, the completions, and the manifest
//! that `--uninstall` reads. With `--user`, it installs for the rootless podman of one user (`user`).

mod containers_conf;
mod files;
mod manifest;
mod place;
mod report;
mod uninstall;
mod user;

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use self::files::{Files, InstalledFile, Layout, RECOVER_UNIT, WANTED_AT_BOOT, WriteDocs};
use self::manifest::Manifest;
use self::place::{Root, ignore_absent, may_be_read_only};
use self::report::{Report, print_report};
use self::uninstall::running_watchers;
use self::user::UserInstallation;
use crate::cdi::directories::{DEFAULT_DIRECTORIES, Specs};
use crate::cdi::generate::{self, ANNOTATED, DEFAULT_KIND, FileChange, NewDevice};
use crate::cdi::names::Kind;
use crate::host::state::registry::DEFAULT_STATE_DIR;

/// The options.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The host's root directory, as this container has it.
    #[arg(long, value_name = "DIR", default_value = "/", conflicts_with = "staging")]
    to: PathBuf,
    /// Where the programs go on the host: PREFIX/bin and PREFIX/libexec/oci/hooks.d. If /usr is
    /// read-only, name a writable directory that is not mounted noexec.
    #[arg(long, value_name = "PREFIX", default_value = "/usr")]
    prefix: PathBuf,
    /// Install below this directory, for a package: nothing is changed on this host, and no
    /// privilege is needed.
    #[arg(long, value_name = "DIR")]
    staging: Option<PathBuf>,
    /// Where the configuration goes.
    #[arg(long, value_name = "DIR", default_value = "/etc")]
    sysconfdir: PathBuf,
    /// The directory of the programs, instead of that of this one.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// The directory `packaging` of the source tree: install the configuration, man pages and
    /// completions as well, and record all files for --uninstall.
    #[arg(long, value_name = "DIR")]
    packaging: Option<PathBuf>,
    /// Install the Kubernetes device plugin as well, for nodes where it is not a DaemonSet.
    #[arg(long, requires = "packaging")]
    device_plugin: bool,
    /// Install for rootless podman of the user who runs this, without root: below ~/.local, and
    /// with one line in ~/.config/containers/containers.conf, whose other content stays.
    #[arg(long, conflicts_with_all = ["to", "prefix", "staging", "sysconfdir", "packaging"])]
    user: bool,
    /// Remove what was installed with --packaging or --user, except a configuration that was
    /// changed.
    #[arg(long)]
    uninstall: bool,
    /// Uninstall also while watchers run: their containers keep their devices.
    #[arg(long, requires = "uninstall")]
    force: bool,
}

/// Installs or uninstalls.
pub fn run(options: &Options, write_docs: WriteDocs, as_json: bool) -> Result<()> {
    if options.user {
        let installation = UserInstallation::own()?;
        let report = match options.uninstall {
            true => installation.uninstall(options.force)?,
            false => installation.install(options.from.as_deref(), write_docs)?,
        };
        return print_report(&report, as_json);
    }
    if !options.prefix.is_absolute() {
        bail!(
            "--prefix {}: it must be an absolute path",
            options.prefix.display()
        );
    }
    let layout = Layout::new(&options.prefix, &options.sysconfdir);
    let staging = options.staging.as_ref().map(std::path::absolute).transpose()?;
    let root = Root::new(staging);
    if options.uninstall {
        let report = uninstall::run(&layout, &root, options.force)?;
        return print_report(&report, as_json);
    }
    let files = Files::read(
        &layout,
        options.from.as_deref(),
        options.packaging.as_deref(),
        write_docs,
        options.device_plugin,
    )?;
    enter(&options.to)?;
    DirBuilder::new()
        .recursive(true)
        .create(root.at(Path::new("/")))?;
    let manifest = options
        .packaging
        .is_some()
        .then(|| Manifest::open(&layout, &root));
    let mut installation = Installation {
        layout,
        root,
        manifest: manifest.transpose()?,
        report: Vec::new(),
    };
    installation.install(&files)?;
    print_report(&installation.finish()?, as_json)
}

/// From here on this process's root is the host's: links on the host lead where they lead there.
fn enter(root: &Path) -> Result<()> {
    if root != Path::new("/") {
        nix::unistd::chroot(root).with_context(|| {
            format!(
                "cannot enter {} (--to; it takes root and the capability SYS_CHROOT)",
                root.display()
            )
        })?;
        std::env::set_current_dir("/")?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    Ok(())
}

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
struct Installation {
    layout: Layout,
    root: Root,
    manifest: Option<Manifest>,
    report: Report,
}

impl Installation {
    fn install(&mut self, files: &Files) -> Result<()> {
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

    fn put(&mut self, file: &InstalledFile) -> Result<FileChange> {
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
        let path = generate::check(&Specs::scan(&directories), &dir, &kind, &device.name, false)?;
        let name = path.file_name().context("a CDI spec has a name")?;
        let installed = self.layout.cdi.join(name);
        if let Some(manifest) = &mut self.manifest {
            manifest.make_directories(&self.root, &installed)?;
        }
        let document = generate::document(&kind, &self.layout.hooks, &[device])?;
        let change = generate::write(&path, &document)?;
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
    fn finish(mut self) -> Result<Report> {
        if let Some(manifest) = self.manifest.take() {
            for path in manifest.finish()? {
                std::fs::remove_file(self.root.at(&path)).or_else(ignore_absent)?;
                self.report.push((path, "removed"));
            }
            let watchers = running_watchers(&self.root.at(&self.layout.watcher()));
            if !watchers.is_empty() {
                eprintln!(
                    "oci-hotplug: running watchers (processes {}) keep their version; `oci-hotplug recover \
                     --restart-watchers` replaces them, and no container notices",
                    watchers.join(" ")
                );
            }
        }
        Ok(self.report)
    }
}

/// Checks that a program runs here, so that an error is seen now and not when containers do not
/// start.
fn try_out(program: &Path) -> Result<()> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| {
            format!(
                "cannot start {} on the host (it wants glibc 2.34 or newer and libudev.so.1, and a file system that is not mounted noexec: --prefix)",
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
