//! Which files are read, and in which order.

use std::io;
use std::path::{Path, PathBuf};

use super::drop_ins::drop_ins;
use super::error::ConfigError;
use super::settings::StateDirOfFile;
use super::user_file::UserFile;
use super::{Broken, Config, DEFAULT_CONFIG, set};
use crate::host::rootless::rootless;
use crate::model::quoting::shell_quoted;
use crate::model::rootless::Rootless;

/// The key of the state directory. A broken file with this word may set it.
const STATE_DIR: &str = "state-dir";

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
        let named = named(path).map(|path| std::path::absolute(&path).unwrap_or(path));
        let path = named.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
        let state_dir = given_state_dir(state_dir);
        let user = rootless();
        let rootless_dir = user.map(Rootless::state_dir);
        let mut config = Self::of_file(&path);
        set(&mut config.state_dir, rootless_dir.clone());
        match std::fs::read_to_string(&path) {
            Ok(text) => config.take(&path, &text)?,
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigError::Io { path, source }),
        }
        let may_set_state_dir = state_dir.is_none() && (named.is_some() || rootless_dir.is_none());
        config.take_drop_ins(may_set_state_dir)?;
        // The default configuration is root's, and so is its state directory.
        set(&mut config.state_dir, rootless_dir.filter(|_| named.is_none()));
        config.tool_options = config.tool_options_for(named.as_deref(), state_dir.as_deref());
        set(&mut config.state_dir, state_dir);
        config.named = named;
        config.lowrisc.has_host_mode = user.is_some();
        config.user_file = user.and_then(UserFile::of);
        Ok(config)
    }

    /// Reads the files of `config.d`, and sets those with an error aside.
    ///
    /// # Errors
    /// When such a file may set the state directory.
    fn take_drop_ins(&mut self, may_set_state_dir: bool) -> Result<(), ConfigError> {
        for path in drop_ins(&self.path)? {
            match self.take_file(&path) {
                Err((Some(text), error)) if may_set_state_dir && text.contains(STATE_DIR) => {
                    return Err(error);
                }
                Err((text, error)) => self.broken.push(Broken {
                    path,
                    text,
                    fault: error.to_string(),
                }),
                Ok(()) => {}
            }
        }
        Ok(())
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

    /// The options that make `oci-hotplug` use this file and directory. `self` has the state
    /// directory of the files.
    fn tool_options_for(&self, named: Option<&Path>, state_dir: Option<&Path>) -> String {
        let named = named.filter(|named| *named != Path::new(DEFAULT_CONFIG));
        let state_dir = state_dir.filter(|dir| *dir != self.state_dir);
        let named = named.map(|path| option("--config", path));
        let state_dir = state_dir.map(|dir| option("--state-dir", dir));
        named.unwrap_or_default() + &state_dir.unwrap_or_default()
    }

    /// The defaults and the state directory: for programs that need nothing else when
    /// [`Config::load`] fails. `None` if a broken file may set the state directory.
    pub fn of_state_only(path: Option<&Path>, state_dir: Option<&Path>) -> Option<Self> {
        let named = named(path);
        let path = named.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
        let mut config = Self::of_file(&path);
        if let Some(dir) = given_state_dir(state_dir) {
            config.state_dir = dir;
            return Some(config);
        }
        if let Some(dir) = rootless().map(Rootless::state_dir) {
            config.state_dir = dir;
            if named.is_none() {
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
                Err(_) if text.contains(STATE_DIR) => return None,
                Err(_) => {}
            }
        }
        Some(config)
    }
}

/// The configuration file that an option or the environment names.
fn named(path: Option<&Path>) -> Option<PathBuf> {
    path.map(Path::to_owned)
        .or_else(|| environment("OCI_HOTPLUG_CONFIG"))
}

/// The state directory that an option or the environment names.
fn given_state_dir(state_dir: Option<&Path>) -> Option<PathBuf> {
    state_dir
        .map(Path::to_owned)
        .or_else(|| environment("OCI_HOTPLUG_STATE_DIR"))
}

/// A variable of the environment, unless it is empty.
fn environment(key: &str) -> Option<PathBuf> {
    std::env::var_os(key)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// An option and its value, quoted for a shell, with a space at the end.
fn option(name: &str, value: &Path) -> String {
    format!("{name} {} ", shell_quoted(&value.to_string_lossy()))
}
