//! config.toml and config.d: the settings, classes and policy of this host.
//!
//! Does not know what a rule of the policy means (`model::policy`).

mod drop_ins;
mod error;
mod sections;
mod settings;
mod toml_file;
mod user_file;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::drop_ins::{DROP_INS, drop_ins};
pub use self::error::ConfigError;
use self::sections::{add_policy, classes_of, may_deny_trusted};
pub use self::settings::{LogLevel, SystemdUnitSetting};
use self::settings::{SettingsText, StateDirOfFile};
use self::toml_file::from_toml;
use self::user_file::UserFile;
use crate::host::rootless::rootless;
use crate::model::policy::{Policy, UnknownRules};
use crate::model::quoting::shell_quoted;
use crate::model::request::annotations::LowriscLifecycle;
use crate::model::request::class::Classes;
use crate::model::rootless::Rootless;
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
    /// Reads the configuration: `path`, else the environment's `OCI_HOTPLUG_CONFIG`, else
    /// [`DEFAULT_CONFIG`], which may be absent; then the files `*.toml` of the directory `config.d`
    /// beside it, sorted by name. Settings of later files override earlier ones. Rules and classes
    /// accumulate; if a class is defined twice, the later definition counts. `state_dir`, else
    /// `OCI_HOTPLUG_STATE_DIR`, overrides all files. For a rootless engine, the state directory of
    /// the default configuration, which is root's, is replaced by the user's own, and the user's
    /// file (`user_file`) adds rules that deny, and classes, whatever else is read.
    ///
    /// A file of `config.d` with an error is set aside, and its content is unknown.
    /// [`Config::policy`] and [`Config::classes`] then fail; [`Config::usable_policy`] and
    /// [`Config::usable_classes`] deny only what the broken file may be about.
    ///
    /// # Errors
    /// When `path` or the file of the environment variable is absent, when the configuration file
    /// cannot be used, or when a broken file of `config.d` may set the state directory.
    pub fn load(path: Option<&Path>, state_dir: Option<&Path>) -> Result<Self, ConfigError> {
        let environment = |key| {
            std::env::var_os(key)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let named = path
            .map(Path::to_owned)
            .or_else(|| environment("OCI_HOTPLUG_CONFIG"))
            .map(|path| std::path::absolute(&path).unwrap_or(path));
        let path = named.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
        let mut config = Self::of_file(&path);
        let user = rootless();
        let rootless_dir = user.map(Rootless::state_dir);
        set(&mut config.state_dir, rootless_dir.clone());
        match std::fs::read_to_string(&path) {
            Ok(text) => config.take(&path, &text)?,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigError::Io { path, source }),
        }
        let state_dir = state_dir
            .map(Path::to_owned)
            .or_else(|| environment("OCI_HOTPLUG_STATE_DIR"));
        let may_set_state_dir = state_dir.is_none() && (named.is_some() || rootless_dir.is_none());
        for path in drop_ins(&path)? {
            match config.take_file(&path) {
                Err((Some(text), error)) if may_set_state_dir && text.contains("state-dir") => {
                    return Err(error);
                }
                Err((text, error)) => config.broken.push(Broken {
                    path,
                    text,
                    fault: error.to_string(),
                }),
                Ok(()) => {}
            }
        }
        // The default configuration is root's, and so is its state directory.
        set(&mut config.state_dir, rootless_dir.filter(|_| named.is_none()));
        if let Some(dir) = state_dir {
            if dir != config.state_dir {
                config.tool_options = option("--state-dir", &dir);
            }
            config.state_dir = dir;
        }
        if let Some(named) = named.as_ref().filter(|named| *named != Path::new(DEFAULT_CONFIG)) {
            config.tool_options = option("--config", named) + &config.tool_options;
        }
        config.named = named;
        config.lowrisc.has_host_mode = user.is_some();
        config.user_file = user.and_then(UserFile::of);
        Ok(config)
    }

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

    /// Reads one more file. If it cannot be used, the error comes with the file's text, as far as
    /// that can be read.
    fn take_file(&mut self, path: &Path) -> Result<(), (Option<String>, ConfigError)> {
        let failed = |source| ConfigError::Io {
            path: path.to_owned(),
            source,
        };
        let bytes = std::fs::read(path).map_err(|source| (None, failed(source)))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            (
                Some(text),
                failed(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")),
            )
        })?;
        self.take(path, &text).map_err(|error| (Some(text), error))
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

    fn check_broken(&self) -> Result<(), ConfigError> {
        match self.broken.first() {
            Some(broken) => Err(ConfigError::Broken(broken.fault.clone())),
            None => Ok(()),
        }
    }

    /// The classes. They are parsed on demand, so that a program without use for them neither fails
    /// because of them nor contains their parser.
    ///
    /// # Errors
    /// When a class is defined wrongly, or a file of `config.d` is broken.
    pub fn classes(&self) -> Result<Classes, ConfigError> {
        self.check_broken()?;
        let mut classes = Classes::none(&self.path);
        for (path, text) in &self.files {
            classes.extend(classes_of(path, text)?);
        }
        if let Some(file) = &self.user_file {
            classes.add_of_user(file.rules().map_err(|(_, error)| error)?.classes);
        }
        Ok(classes)
    }

    /// The classes whose definition is certain. A class that a broken file may define cannot be
    /// used.
    pub fn usable_classes(&self) -> Classes {
        let mut classes = Classes::none(&self.path);
        for broken in &self.broken {
            classes.set_aside(broken.text.clone(), broken.fault.clone());
        }
        for (path, text) in &self.files {
            match classes_of(path, text) {
                Ok(more) => classes.extend(more),
                Err(error) => classes.set_aside(Some(text.clone()), error.to_string()),
            }
        }
        match self.user_file.as_ref().map(UserFile::rules) {
            Some(Ok(rules)) => classes.add_of_user(rules.classes),
            Some(Err((_, error))) => classes.set_aside_of_user(error.to_string()),
            None => {}
        }
        classes
    }

    /// The policy, parsed on demand.
    ///
    /// # Errors
    /// When a key or a rule is wrong, or a file of `config.d` is broken.
    pub fn policy(&self) -> Result<Policy, ConfigError> {
        self.check_broken()?;
        let mut policy = self.empty_policy();
        for (path, text) in &self.files {
            add_policy(&mut policy, path, text)?;
        }
        if let Some(file) = &self.user_file {
            policy.deny_also(file.rules().map_err(|(_, error)| error)?.deny);
        }
        Ok(policy)
    }

    /// The policy of the usable files, restricted to what broken files certainly do not deny: it
    /// denies all untrusted requests, and trusted ones too if a broken file may have a rule with
    /// `applies-to = "all"`.
    pub fn usable_policy(&self) -> Policy {
        let mut policy = self.empty_policy();
        let unknown = |text: Option<&str>, fault: String| UnknownRules {
            fault,
            may_concern_trusted: text.is_none_or(may_deny_trusted),
        };
        for broken in &self.broken {
            let rules = unknown(broken.text.as_deref(), broken.fault.clone());
            policy.unknown.push(rules);
        }
        for (path, text) in &self.files {
            if let Err(error) = add_policy(&mut policy, path, text) {
                policy.unknown.push(unknown(Some(text), error.to_string()));
            }
        }
        match self.user_file.as_ref().map(UserFile::rules) {
            Some(Ok(rules)) => policy.deny_also(rules.deny),
            Some(Err((text, error))) => policy.unknown.push(unknown(text, error.to_string())),
            None => {}
        }
        policy
    }

    fn empty_policy(&self) -> Policy {
        Policy {
            written_in: self.path.clone(),
            tool_options: self.tool_options.clone(),
            ..Policy::default()
        }
    }

    /// The defaults and the state directory: for programs that need nothing else when
    /// [`Config::load`] fails. `None` if a broken file may set the state directory.
    pub fn of_state_only(path: Option<&Path>, state_dir: Option<&Path>) -> Option<Self> {
        let environment = |key| std::env::var_os(key).filter(|value| !value.is_empty());
        let path = path.map(Path::to_owned);
        let path = path.or_else(|| environment("OCI_HOTPLUG_CONFIG").map(PathBuf::from));
        let is_named = path.is_some();
        let path = path.unwrap_or_else(|| DEFAULT_CONFIG.into());
        let mut config = Self::of_file(&path);
        let given = state_dir.map(Path::to_owned);
        if let Some(dir) = given.or_else(|| environment("OCI_HOTPLUG_STATE_DIR").map(PathBuf::from)) {
            config.state_dir = dir;
            return Some(config);
        }
        if let Some(dir) = rootless().map(Rootless::state_dir) {
            config.state_dir = dir;
            if !is_named {
                return Some(config);
            }
        }
        let mut files = vec![path.clone()];
        files.extend(drop_ins(&path).unwrap_or_default());
        for file in files {
            let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap_or_default()).into_owned();
            match toml::from_str::<StateDirOfFile>(&text) {
                Ok(file) => set(
                    &mut config.state_dir,
                    file.state_dir.filter(|dir| dir.is_absolute()),
                ),
                Err(_) if text.contains("state-dir") => return None,
                Err(_) => {}
            }
        }
        Some(config)
    }
}

/// An option and its value, quoted for a shell, with a space at the end.
fn option(name: &str, value: &Path) -> String {
    format!("{name} {} ", shell_quoted(&value.to_string_lossy()))
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
