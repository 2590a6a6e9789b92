//! config.toml and config.d: the settings, classes and policy of this host.
//!
//! Does not know what a rule of the policy means (`model::policy`).

mod drop_ins;
mod error;
mod load;
mod rules;
mod sections;
mod settings;
mod toml_file;
mod user_file;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::drop_ins::DROP_INS;
pub use self::error::ConfigError;
use self::settings::SettingsText;
pub use self::settings::{LogLevel, SystemdUnitSetting};
use self::toml_file::from_toml;
use self::user_file::UserFile;
use crate::model::request::annotations::LowriscLifecycle;
use crate::model::udev_database::UdevMode;

/// The default path of the configuration file.
pub const DEFAULT_CONFIG: &str = "/etc/oci-hotplug/config.toml";

/// The maximum of `prestart-timeout`, in seconds. The engine's configuration gives a hook 10
/// seconds; the hook must report why it failed before the engine kills it.
const MAX_PRESTART_TIMEOUT: u64 = 9;

/// The configuration. Every key has a default; packaging/config.toml explains each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub state_dir: PathBuf,
    pub log_level: LogLevel,
    /// How long prestart waits for devices that are present.
    pub prestart_timeout: Duration,
    /// What restarts watchers.
    pub systemd_unit: SystemdUnitSetting,
    /// Whether containers get a udev database, unless annotation or hook argument say otherwise.
    pub udev: UdevMode,
    /// Options of requests in container-hotplug's annotations.
    pub lowrisc: LowriscLifecycle,
    /// The configuration file that an option or the environment names, as an absolute path.
    pub named: Option<PathBuf>,
    /// The configuration file; it may not exist. Messages name it as the file to edit.
    path: PathBuf,
    /// The options that make `oci-hotplug` use this configuration and state directory; empty if
    /// they are the default ones.
    tool_options: String,
    /// The paths and texts of the files without errors. [`Config::classes`] and [`Config::policy`]
    /// parse them again.
    files: Vec<(PathBuf, String)>,
    /// The files of `config.d` with an error.
    broken: Vec<Broken>,
    /// The file of a user of rootless containers. It only adds rules that deny, and classes.
    user_file: Option<UserFile>,
}

/// A file of `config.d` that cannot be used. Its settings and rules are unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Broken {
    path: PathBuf,
    /// The text, as far as it can be read.
    text: Option<String>,
    fault: String,
}

impl Config {
    /// This configuration with one more file of [`Config::drop_in_dir`], or with another text for
    /// one of its files.
    ///
    /// # Errors
    /// When the result cannot be used, including its classes and rules.
    pub fn with_file(&self, path: &Path, text: &str) -> Result<Self, ConfigError> {
        let other = self.broken.iter().find(|broken| broken.path != path);
        if let Some(broken) = other {
            return Err(ConfigError::Broken(broken.fault.clone()));
        }
        let mut config = Self {
            named: self.named.clone(),
            tool_options: self.tool_options.clone(),
            user_file: self.user_file.clone(),
            ..Self::of_file(&self.path)
        };
        let mut files = self.files.clone();
        files.retain(|(known, _)| known != path);
        files.push((path.to_owned(), text.to_owned()));
        files.sort_by(|(left, _), (right, _)| (*left != self.path, left).cmp(&(*right != self.path, right)));
        for (path, text) in &files {
            config.take(path, text)?;
        }
        config.state_dir = self.state_dir.clone();
        config.classes()?;
        config.policy()?;
        Ok(config)
    }

    /// The directory whose files `*.toml` are read after the configuration file.
    pub fn drop_in_dir(&self) -> PathBuf {
        self.path.with_file_name(DROP_INS)
    }

    /// Parses `text` as the configuration file `path`, without files of `config.d`.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::of_file(path);
        config.take(path, text)?;
        Ok(config)
    }

    /// The configuration file, which may not exist.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of a user of rootless containers, if it exists.
    pub fn user_file(&self) -> Option<&Path> {
        self.user_file.as_ref().map(|file| file.path.as_path())
    }

    /// The files that were read, without that of a user.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// The default settings, with `path` as the configuration file.
    fn of_file(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            ..Self::default()
        }
    }

    /// Applies the text of a file on top of the files before it.
    fn take(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let file: SettingsText = from_toml(path, text)?;
        let out_of_range = |fault| ConfigError::OutOfRange {
            path: path.to_owned(),
            fault,
        };
        let is_in_range = |seconds| (1..=MAX_PRESTART_TIMEOUT).contains(&seconds);
        if !file.prestart_timeout.is_none_or(is_in_range) {
            return Err(out_of_range(
                "prestart-timeout must be 1 to 9 (seconds): engines end a hook after 10",
            ));
        }
        if file.state_dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            return Err(out_of_range(
                "state-dir must be an absolute path, such as /run/oci-hotplug",
            ));
        }
        set(
            &mut self.prestart_timeout,
            file.prestart_timeout.map(Duration::from_secs),
        );
        set(&mut self.state_dir, file.state_dir);
        set(&mut self.log_level, file.log_level);
        set(&mut self.systemd_unit, file.systemd_unit);
        set(&mut self.udev, file.udev);
        set(&mut self.lowrisc.required, file.lowrisc.required);
        set(&mut self.lowrisc.on_removal, file.lowrisc.on_removal);
        self.files.push((path.to_owned(), text.to_owned()));
        Ok(())
    }

    /// The errors of the files of `config.d` that were set aside, and of a user's file.
    pub fn broken(&self) -> impl Iterator<Item = String> {
        let of_user = self.user_file.as_ref().and_then(|file| file.rules().err());
        let of_user = of_user.map(|(_, error)| error.to_string());
        self.broken
            .iter()
            .map(|broken| broken.fault.clone())
            .chain(of_user)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: crate::host::state::registry::DEFAULT_STATE_DIR.into(),
            log_level: LogLevel::default(),
            prestart_timeout: Duration::from_secs(MAX_PRESTART_TIMEOUT),
            systemd_unit: SystemdUnitSetting::default(),
            udev: UdevMode::default(),
            lowrisc: LowriscLifecycle::default(),
            named: None,
            path: DEFAULT_CONFIG.into(),
            tool_options: String::new(),
            files: Vec::new(),
            broken: Vec::new(),
            user_file: None,
        }
    }
}

fn set<T>(value: &mut T, written: Option<T>) {
    if let Some(written) = written {
        *value = written;
    }
}

#[cfg(test)]
mod tests;
