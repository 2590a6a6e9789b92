//! `oci-hotplug install --user`: for the rootless podman of one user, without root. Everything is
//! below the home directory: the programs and their files in `~/.local`, and one line in podman's
//! containers.conf.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::containers_conf::{with_directory, without_directory};
use super::files::{Files, HOOKS_JSON, Layout, WriteDocs};
use super::installation::{Installation, try_out};
use super::manifest::Manifest;
use super::place::{Root, ignore_absent};
use super::report::Report;
use super::uninstall;
use crate::cdi::generated_files::FileChange;
use crate::host::rootless::{home, rootless};
use crate::host::state::atomic_file::{Durability, replace};
use crate::host::systemd::Manager;

/// podman's configuration of a user (containers.conf(5)), below the home directory.
const CONTAINERS_CONF: &str = ".config/containers/containers.conf";

/// An installation for a user.
pub(super) struct UserInstallation {
    home: PathBuf,
    manager: Manager,
}

impl UserInstallation {
    /// For the user who runs this program.
    ///
    /// # Errors
    /// When that is root, or a user without a home directory.
    pub(super) fn own() -> Result<Self> {
        let Some(user) = rootless() else {
            bail!("cannot install for a user: this is root (run it as the user, or leave --user out)");
        };
        let Some(home) = home(user).filter(|home| home.is_dir()) else {
            bail!(
                "cannot install for user {}: the user database names no home directory that exists",
                user.uid
            );
        };
        if utf8(&home)?.contains(is_special) {
            bail!(
                "cannot install for user {}: the path of the home directory {} has a character with a meaning in unit files",
                user.uid,
                home.display()
            );
        }
        Ok(Self {
            home,
            manager: Manager::User(user),
        })
    }

    /// Installs or updates. Returns what was done.
    pub(super) fn install(&self, from: Option<&Path>, write_docs: WriteDocs) -> Result<Report> {
        let layout = Layout::of_user(&self.home);
        let files = Files::for_user(&layout, from, write_docs)?;
        let root = Root::of(self.manager);
        let mut installation = Installation {
            manifest: Some(Manifest::open(&layout, &root)?),
            layout,
            root,
            report: Report::new(),
        };
        for file in &files.programs {
            installation.put(file)?;
        }
        for program in &files.programs {
            try_out(&program.path)?;
        }
        for file in files.documents.iter().chain(&files.units) {
            installation.put(file)?;
        }
        if self.manager.is_running() {
            installation.root.systemctl(&["daemon-reload"]);
        }
        for file in &files.hooks_json {
            installation.put(file)?;
        }
        // Last: from here on podman starts the hooks.
        let conf = self.containers_conf();
        if let Some(manifest) = &mut installation.manifest {
            manifest.make_directories(&installation.root, &conf)?;
        }
        let hooks = installation.layout.hooks_json.clone();
        let change = edit(&conf, |text| {
            with_directory(text, utf8(&hooks)?, &defaults()).map_err(Into::into)
        })?;
        installation.report.push((conf, change.word()));
        installation.finish()
    }

    /// Removes what [`UserInstallation::install`] has made, and returns it. podman's configuration
    /// comes first: podman starts no container if a directory in it does not exist.
    pub(super) fn uninstall(&self, force: bool) -> Result<Report> {
        let layout = Layout::of_user(&self.home);
        let root = Root::of(self.manager);
        uninstall::check(&layout, &root, force)?;
        let conf = self.containers_conf();
        let change = edit(&conf, |text| {
            without_directory(text, utf8(&layout.hooks_json)?, &defaults()).map_err(Into::into)
        })?;
        let result = match fs::read(&conf) {
            Ok(text) if text.is_empty() => {
                fs::remove_file(&conf).or_else(ignore_absent)?;
                Some("removed")
            }
            Ok(_) => Some(change.word()),
            Err(_) => None,
        };
        let mut report: Report = result.map(|result| (conf, result)).into_iter().collect();
        report.extend(uninstall::run(&layout, &root, force)?);
        Ok(report)
    }

    fn containers_conf(&self) -> PathBuf {
        self.home.join(CONTAINERS_CONF)
    }
}

/// Whether unit files (systemd.syntax(7)) or JSON give the character a meaning.
fn is_special(letter: char) -> bool {
    letter.is_whitespace() || letter.is_control() || "\"'\\%$;".contains(letter)
}

/// The directories that podman reads if containers.conf names none, as far as they exist: podman
/// accepts no other in a list.
fn defaults() -> Vec<&'static str> {
    let exists = |directory: &&str| Path::new(directory).is_dir();
    [HOOKS_JSON].into_iter().filter(exists).collect()
}

/// Edits a file, which may be a link to another one. An absent file has the text "".
fn edit(path: &Path, change: impl Fn(&str) -> Result<String>) -> Result<FileChange> {
    let failed = || format!("cannot edit {}", path.display());
    let (place, text, mode) = match fs::canonicalize(path) {
        Ok(place) => {
            let text = fs::read_to_string(&place).with_context(failed)?;
            let metadata = fs::metadata(&place).with_context(failed)?;
            (place, Some(text), mode_of(&metadata))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), None, 0o644),
        Err(error) => return Err(error).with_context(failed),
    };
    let old = text.clone().unwrap_or_default();
    let new = change(&old).with_context(failed)?;
    if new == old {
        return Ok(FileChange::Unchanged);
    }
    replace(&place, new.as_bytes(), mode, Durability::Synced).with_context(failed)?;
    Ok(match text {
        Some(_) => FileChange::Updated,
        None => FileChange::Created,
    })
}

fn mode_of(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(metadata) & 0o7777
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::model::rootless::Rootless;

    /// All files below a directory, with their contents.
    fn tree(directory: &Path) -> std::collections::BTreeMap<PathBuf, String> {
        let mut files = std::collections::BTreeMap::new();
        for entry in fs::read_dir(directory).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => files.extend(tree(&path)),
                path => drop(files.insert(path.clone(), fs::read_to_string(path).unwrap())),
            }
        }
        files
    }

    /// Programs that do nothing.
    fn programs() -> tempfile::TempDir {
        let programs = tempfile::tempdir().unwrap();
        for name in ["", "-prestart", "-poststop", "-watcher", "-usbip"] {
            let path = programs.path().join(format!("oci-hotplug{name}"));
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        programs
    }

    #[test]
    fn an_installation_for_a_user_is_in_the_home_directory_and_is_removed_without_a_trace() {
        let (scratch, programs) = (tempfile::tempdir().unwrap(), programs());
        let home = scratch.path().to_owned();
        let nobody = Rootless {
            uid: u32::MAX - 1,
            is_namespace_root: false,
        };
        let installation = UserInstallation {
            home: home.clone(),
            manager: Manager::User(nobody),
        };
        let conf = home.join(CONTAINERS_CONF);
        fs::create_dir_all(conf.parent().unwrap()).unwrap();
        fs::write(&conf, "# mine\n[containers]\npids_limit = 10\n").unwrap();
        let before = tree(&home);
        let install = || installation.install(Some(programs.path()), crate::cli::docs::run);
        let report = install().unwrap();
        assert_eq!(report.last(), Some(&(conf.clone(), "updated")));
        let installed = tree(&home);
        let text = |path: &str| &installed[&home.join(path)];
        let hooks = home.join(".local/share/oci-hotplug/hooks.d");
        assert!(
            installed[&conf].contains(&format!("{:?}", hooks)),
            "{}",
            installed[&conf]
        );
        let prestart = home.join(".local/libexec/oci/hooks.d/oci-hotplug-prestart");
        let json = text(".local/share/oci-hotplug/hooks.d/oci-hotplug-prestart.json");
        assert!(json.contains(&format!("\"path\": {prestart:?}")), "{json}");
        let unit = text(".local/share/systemd/user/oci-hotplug-watcher@.service");
        let watcher = home.join(".local/libexec/oci/hooks.d/oci-hotplug-watcher");
        assert!(
            unit.contains(&format!("ExecStart={} ", watcher.display())),
            "{unit}"
        );
        for path in [
            ".local/bin/oci-hotplug",
            ".local/share/man/man1/oci-hotplug.1",
            ".local/share/bash-completion/completions/oci-hotplug",
        ] {
            assert!(installed.contains_key(&home.join(path)), "{path}");
        }
        let again = install().unwrap();
        assert!(
            again.iter().all(|(_, result)| *result == "unchanged"),
            "{again:?}"
        );
        installation.uninstall(false).unwrap();
        assert_eq!(tree(&home), before);
        assert!(!home.join(".local").exists());
        let error = installation.uninstall(false).unwrap_err().to_string();
        assert!(error.contains("`oci-hotplug install --user`"), "{error}");
    }

    #[test]
    fn a_containers_conf_that_only_we_wrote_is_removed() {
        let (scratch, programs) = (tempfile::tempdir().unwrap(), programs());
        let nobody = Rootless {
            uid: u32::MAX - 1,
            is_namespace_root: false,
        };
        let installation = UserInstallation {
            home: scratch.path().to_owned(),
            manager: Manager::User(nobody),
        };
        let from = Some(programs.path());
        installation.install(from, |_| Ok(())).unwrap_err();
        installation.install(from, crate::cli::docs::run).unwrap();
        assert!(scratch.path().join(CONTAINERS_CONF).exists());
        let report = installation.uninstall(false).unwrap();
        assert!(
            report.iter().all(|(_, result)| *result == "removed"),
            "{report:?}"
        );
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_is_followed_and_the_mode_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let (file, link) = (scratch.path().join("dotfile"), scratch.path().join("link"));
        fs::write(&file, "a = 1\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&file, &link).unwrap();
        let change = edit(&link, |text| Ok(format!("{text}b = 2\n"))).unwrap();
        assert_eq!(change, FileChange::Updated);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 1\nb = 2\n");
        assert_eq!(mode_of(&fs::metadata(&file).unwrap()), 0o600);
        let unchanged = edit(&link, |text| Ok(text.to_owned())).unwrap();
        assert_eq!(unchanged, FileChange::Unchanged);
        let absent = scratch.path().join("absent");
        assert_eq!(
            edit(&absent, |_| Ok("c = 3\n".into())).unwrap(),
            FileChange::Created
        );
        assert!(edit(&link, |_| bail!("no")).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 1\nb = 2\n");
    }
}
