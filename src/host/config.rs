//! config.toml and config.d: the settings, classes and policy of this host.
//!
//! Must not know what a rule of the policy means (`model::policy`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use toml::Spanned;

use crate::model::policy::{Fallback, List, Place, Policy, Rule, RuleDefinition, RuleError, UnknownRules};
use crate::model::quoting::shell_quoted;
use crate::model::request::OnRemoval;
use crate::model::request::annotations::LowriscLifecycle;
use crate::model::request::class::{ClassError, Classes, Definition};

/// Where the configuration is when nothing else is said.
pub const DEFAULT_CONFIG: &str = "/etc/oci-hotplug/config.toml";

/// The directory beside the file whose files `*.toml` are read after it.
const DROP_INS: &str = "config.d";

/// The longest that a hook may wait, in seconds: engines are told to give it 10, and it is to say why it failed
/// before they end it.
const MAX_PRESTART_TIMEOUT: u64 = 9;

/// The configuration. Every key has a default; packaging/config.toml explains each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where records and sockets live.
    pub state_dir: PathBuf,
    /// What is logged.
    pub log_level: LogLevel,
    /// How long prestart waits for devices that are present.
    pub prestart_timeout: Duration,
    /// Who looks after watchers.
    pub supervise: Supervise,
    /// What becomes of container-hotplug's requests.
    pub lowrisc: LowriscLifecycle,
    /// The file that was named, absolute; `None`: nobody named one.
    pub named: Option<PathBuf>,
    /// The file to write into, for messages.
    path: PathBuf,
    /// The options by which `oci-hotplug` finds this configuration and state directory; empty = by default.
    tool_options: String,
    /// The usable files and what they say: [`Config::classes`] and [`Config::policy`] read them again.
    files: Vec<(PathBuf, String)>,
    /// The files of `config.d` with an error.
    broken: Vec<Broken>,
}

/// A file of `config.d` that can't be used. What it would say is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Broken {
    path: PathBuf,
    /// Its text, as far as it can be read.
    text: Option<String>,
    /// What is wrong.
    fault: String,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// And what is odd.
    Warn,
    /// And what was attached and detached.
    #[default]
    Info,
    /// And why.
    Debug,
}

/// Who looks after watchers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Supervise {
    /// systemd, where it runs the host and has the unit.
    #[default]
    Auto,
    /// Nobody: `oci-hotplug recover` starts those that died.
    None,
}

impl LogLevel {
    /// The filter for log records.
    pub fn filter(self) -> tracing::level_filters::LevelFilter {
        use tracing::level_filters::LevelFilter;
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
        }
    }
}

/// A file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Text {
    state_dir: Option<PathBuf>,
    log_level: Option<LogLevel>,
    prestart_timeout: Option<u64>,
    supervise: Option<Supervise>,
    lowrisc: LowriscText,
    class: IgnoredAny,
    policy: IgnoredAny,
}

/// All that is needed of a file to find the state directory.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StateDirOfFile {
    state_dir: Option<PathBuf>,
}

/// The part of a file that only those read who ask for classes.
#[derive(Debug, Deserialize)]
struct ClassesOfFile {
    #[serde(default)]
    class: BTreeMap<String, Definition>,
}

/// The part of a file that only those read who have something to judge.
#[derive(Debug, Deserialize)]
struct PolicyOfFile {
    #[serde(default)]
    policy: PolicyText,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct LowriscText {
    required: Option<bool>,
    on_removal: Option<OnRemoval>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct PolicyText {
    default: Option<Fallback>,
    classes_only: Option<bool>,
    allow: Vec<Spanned<RuleDefinition>>,
    deny: Vec<Spanned<RuleDefinition>>,
}

/// A configuration that can't be used. Nothing falls back to a default then.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("reading the configuration {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, has an unknown key, or a value of the wrong kind.
    #[error("reading the configuration {path}: {place}{message}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line and column, as a beginning of the message.
        place: String,
        /// What is wrong, in one line.
        message: String,
    },
    /// A file of `config.d` that was set aside.
    #[error("{0}")]
    Broken(String),
    /// A class that is defined wrongly.
    #[error("reading the configuration {path}: {source}", path = path.display())]
    Class {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<ClassError>,
    },
    /// A rule of the policy.
    #[error("reading the configuration: {0}")]
    Rule(#[from] RuleError),
    /// A value that makes no sense.
    #[error("reading the configuration {path}: {fault}", path = path.display())]
    Senseless {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        fault: &'static str,
    },
}

impl Config {
    /// Reads the configuration: `path`, else the environment's `OCI_HOTPLUG_CONFIG`, else
    /// [`DEFAULT_CONFIG`], which may be absent; then, in the order of their names, the files `*.toml` of the
    /// directory `config.d` beside it. A later file wins; rules and classes add up, but of a class that is defined
    /// twice the later definition counts. `state_dir`, else `OCI_HOTPLUG_STATE_DIR`, wins over all files.
    ///
    /// A file of `config.d` with an error is set aside, and what it would say is unknown: [`Config::policy`] and
    /// [`Config::classes`] fail then; [`Config::usable_policy`] and [`Config::usable_classes`] restrict only what the file
    /// may speak of.
    ///
    /// # Errors
    /// When a file that was named is absent, when the configuration file can't be used, or when a broken file of
    /// `config.d` may name the state directory.
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
        match std::fs::read_to_string(&path) {
            Ok(text) => config.take(&path, &text)?,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigError::Io { path, source }),
        }
        let state_dir = state_dir
            .map(Path::to_owned)
            .or_else(|| environment("OCI_HOTPLUG_STATE_DIR"));
        for path in drop_ins(&path)? {
            match config.take_file(&path) {
                Err((Some(text), error)) if state_dir.is_none() && text.contains("state-dir") => {
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
        Ok(config)
    }

    /// This configuration with another file of [`Config::drop_in_dir`], or with other text in one.
    ///
    /// # Errors
    /// When the whole can't be used, with its classes and rules.
    pub fn with_file(&self, path: &Path, text: &str) -> Result<Self, ConfigError> {
        let other = self.broken.iter().find(|broken| broken.path != path);
        if let Some(broken) = other {
            return Err(ConfigError::Broken(broken.fault.clone()));
        }
        let mut config = Self {
            named: self.named.clone(),
            tool_options: self.tool_options.clone(),
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

    /// Reads one file more. The text of one that can't be used comes with the error, as far as it can be read.
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

    /// Reads the text of the configuration file `path`, and nothing else.
    ///
    /// # Errors
    /// When it can't be used.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::of_file(path);
        config.take(path, text)?;
        Ok(config)
    }

    /// The file to write into, whether it is there or not.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that were read.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// The defaults, where this is the file to write into.
    fn of_file(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            ..Self::default()
        }
    }

    /// Takes over what a file says, with the files before it already taken.
    fn take(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let file: Text = from_toml(path, text)?;
        let senseless = |fault| ConfigError::Senseless {
            path: path.to_owned(),
            fault,
        };
        let is_sensible = |seconds| (1..=MAX_PRESTART_TIMEOUT).contains(&seconds);
        if !file.prestart_timeout.is_none_or(is_sensible) {
            return Err(senseless(
                "prestart-timeout must be 1 to 9 (seconds): engines end a hook after 10",
            ));
        }
        if file.state_dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            return Err(senseless(
                "state-dir must be an absolute path, such as /run/oci-hotplug",
            ));
        }
        set(
            &mut self.prestart_timeout,
            file.prestart_timeout.map(Duration::from_secs),
        );
        set(&mut self.state_dir, file.state_dir);
        set(&mut self.log_level, file.log_level);
        set(&mut self.supervise, file.supervise);
        set(&mut self.lowrisc.required, file.lowrisc.required);
        set(&mut self.lowrisc.on_removal, file.lowrisc.on_removal);
        self.files.push((path.to_owned(), text.to_owned()));
        Ok(())
    }

    /// What is wrong with the files of `config.d` that were set aside.
    pub fn broken(&self) -> impl Iterator<Item = &str> {
        self.broken.iter().map(|broken| broken.fault.as_str())
    }

    fn check_broken(&self) -> Result<(), ConfigError> {
        match self.broken.first() {
            Some(broken) => Err(ConfigError::Broken(broken.fault.clone())),
            None => Ok(()),
        }
    }

    /// The classes. Read when they are asked for: no other program is to fail, or to grow, for them.
    ///
    /// # Errors
    /// When one is defined wrongly, or a file of `config.d` is broken.
    pub fn classes(&self) -> Result<Classes, ConfigError> {
        self.check_broken()?;
        let mut classes = Classes::none(&self.path);
        for (path, text) in &self.files {
            classes.extend(classes_of(path, text)?);
        }
        Ok(classes)
    }

    /// The classes that certainly mean what they say. A class that a broken file may define cannot be used.
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
        classes
    }

    /// The policy. Read when there is something to judge.
    ///
    /// # Errors
    /// When a key or a rule is wrong, or a file of `config.d` is broken.
    pub fn policy(&self) -> Result<Policy, ConfigError> {
        self.check_broken()?;
        let mut policy = self.empty_policy();
        for (path, text) in &self.files {
            add_policy(&mut policy, path, text)?;
        }
        Ok(policy)
    }

    /// The policy of the usable files. It refuses what the rules of broken files may refuse: all untrusted requests, and
    /// trusted ones where such a file may have a rule with `applies-to = "all"`.
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
        policy
    }

    fn empty_policy(&self) -> Policy {
        Policy {
            written_in: self.path.clone(),
            tool_options: self.tool_options.clone(),
            ..Policy::default()
        }
    }

    /// The defaults and the state directory, for programs that need no more, when [`Config::load`] fails. `None` where the
    /// state directory is unknown, because a broken file may name it.
    pub fn of_state_only(path: Option<&Path>, state_dir: Option<&Path>) -> Option<Self> {
        let environment = |key| std::env::var_os(key).filter(|value| !value.is_empty());
        let path = path.map(Path::to_owned);
        let path = path.or_else(|| environment("OCI_HOTPLUG_CONFIG").map(PathBuf::from));
        let path = path.unwrap_or_else(|| DEFAULT_CONFIG.into());
        let mut config = Self::of_file(&path);
        let given = state_dir.map(Path::to_owned);
        if let Some(dir) = given.or_else(|| environment("OCI_HOTPLUG_STATE_DIR").map(PathBuf::from)) {
            config.state_dir = dir;
            return Some(config);
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

/// Whether a file may be meant to refuse what root requests. It has an error, so only its words are certain.
fn may_deny_trusted(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("deny") || text.contains("applies")
}

fn classes_of(path: &Path, text: &str) -> Result<Classes, ConfigError> {
    let file: ClassesOfFile = from_toml(path, text)?;
    Classes::parse(path, &file.class).map_err(|source| ConfigError::Class {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// # Errors
/// When a key or a rule of the file is wrong. Nothing of it is added then.
fn add_policy(policy: &mut Policy, path: &Path, text: &str) -> Result<(), ConfigError> {
    let written = from_toml::<PolicyOfFile>(path, text)?.policy;
    let allow = rules(path, text, List::Allow, written.allow)?;
    let deny = rules(path, text, List::Deny, written.deny)?;
    set(&mut policy.fallback, written.default);
    set(&mut policy.classes_only, written.classes_only);
    policy.allow.extend(allow);
    policy.deny.extend(deny);
    Ok(())
}

/// An option and its value as words of a shell, with a blank behind.
fn option(name: &str, value: &Path) -> String {
    format!("{name} {} ", shell_quoted(&value.to_string_lossy()))
}

fn from_toml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error: toml::de::Error| ConfigError::Malformed {
        path: path.to_owned(),
        place: error
            .span()
            .map_or_else(String::new, |span| place_of(text, span.start)),
        message: error.message().replace('\n', ", "),
    })
}

/// A place in a text as editors count it, from 1.
fn place_of(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {}, column {column}: ", line_of(text, offset))
}

fn rules(
    path: &Path,
    text: &str,
    list: List,
    written: Vec<Spanned<RuleDefinition>>,
) -> Result<Vec<Rule>, ConfigError> {
    let rule = |rule: Spanned<RuleDefinition>| {
        let place = Place {
            list,
            file: path.to_owned(),
            line: line_of(text, rule.span().start),
        };
        Ok(Rule::parse(place, rule.get_ref())?)
    };
    written.into_iter().map(rule).collect()
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: crate::host::state::registry::DEFAULT_STATE_DIR.into(),
            log_level: LogLevel::default(),
            prestart_timeout: Duration::from_secs(MAX_PRESTART_TIMEOUT),
            supervise: Supervise::default(),
            lowrisc: LowriscLifecycle::default(),
            named: None,
            path: DEFAULT_CONFIG.into(),
            tool_options: String::new(),
            files: Vec::new(),
            broken: Vec::new(),
        }
    }
}

fn set<T>(value: &mut T, written: Option<T>) {
    if let Some(written) = written {
        *value = written;
    }
}

/// Counted from 1, as editors do.
fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// The files `*.toml` beside the configuration, in the order of their names. A hidden file is none: editors leave
/// such things behind.
fn drop_ins(config: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let directory = config.with_file_name(DROP_INS);
    let failed = |source| ConfigError::Io {
        path: directory.clone(),
        source,
    };
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.ends_with(b".toml") && !name.starts_with(b".") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::Circumstances;
    use crate::model::request::OnRemoval;
    use crate::model::request::annotations::read_list;
    use crate::model::request::entry::Origin;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/c.toml"), text).map_err(|error| error.to_string())
    }

    fn parse_policy(text: &str) -> Result<Policy, String> {
        let config = parse(text)?;
        config.policy().map_err(|error| error.to_string())
    }

    /// All but the classes, the policy and the file's name.
    fn settings(text: &str) -> Result<Config, String> {
        parse(text).map(|config| Config {
            path: DEFAULT_CONFIG.into(),
            files: Vec::new(),
            ..config
        })
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(settings("").unwrap(), Config::default());
    }

    #[test]
    fn the_explained_file_of_the_package_says_the_defaults() {
        let text = include_str!("../../packaging/config.toml");
        assert_eq!(settings(text).unwrap(), Config::default());
        // And with every key that it shows as a comment taken in, it is still valid.
        let uncommented: String = text
            .lines()
            .map(|line| {
                line.strip_prefix("#")
                    .filter(|rest| !rest.starts_with([' ', '#']))
                    .unwrap_or(line)
            })
            .fold(String::new(), |all, line| all + line + "\n");
        let shown = parse(&uncommented).unwrap();
        let classes = shown.classes().unwrap();
        assert_eq!(
            classes.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            ["lab-board"]
        );
        let policy = shown.policy().unwrap();
        assert_eq!([policy.allow.len(), policy.deny.len()], [1, 1]);
        assert_eq!(
            (policy.fallback, policy.classes_only),
            (Fallback::Removable, false)
        );
        assert_eq!(settings(&uncommented).unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_read() {
        let text = "state-dir = \"/x\"\nlog-level = \"debug\"\nprestart-timeout = 3\nsupervise = \"none\"\n[lowrisc]\nrequired = true\non-removal = \"kill\"\n";
        let config = parse(text).unwrap();
        assert_eq!(config.state_dir, Path::new("/x"));
        assert_eq!(config.log_level, LogLevel::Debug);
        assert_eq!(config.supervise, Supervise::None);
        assert_eq!(config.prestart_timeout, Duration::from_secs(3));
        assert_eq!(
            config.lowrisc,
            LowriscLifecycle {
                required: true,
                on_removal: OnRemoval::Kill
            }
        );
    }

    #[test]
    fn errors_name_the_file_the_place_and_the_fault() {
        let error = parse("log-level = \"info\"\nstate_dir = \"/x\"\n").unwrap_err();
        assert!(
            error.contains("/etc/c.toml") && error.contains("line 2") && error.contains("state_dir"),
            "{error}"
        );
        let error = parse("[class.lab]\ndevices = [\"usb:12345\"]")
            .unwrap()
            .classes()
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(
                "reading the configuration /etc/c.toml: class \"lab\": device request \"usb:12345\""
            ),
            "{error}"
        );
        let error = parse("[class.lab]\ndevcies = []")
            .unwrap()
            .classes()
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 2") && error.contains("devcies"), "{error}");
        assert!(parse("prestart-timeout = 60").unwrap_err().contains("1 to 9"));
        assert!(parse("state-dir = \"run\"").unwrap_err().contains("absolute"));
        assert!(parse("log-level = \"loud\"").unwrap_err().contains("loud"));
        assert!(
            parse("supervise = \"runit\"")
                .unwrap_err()
                .contains("expected `auto` or `none`")
        );
    }

    #[test]
    fn rules_are_read_with_their_place() {
        let text = "[policy]\ndefault = \"nothing\"\nclasses-only = true\n\n[[policy.allow]]\ndevices = [\"usb:0403&subsystem:tty\"]\naccess = \"rw\"\n\n[[policy.deny]]\ndevices = [\"port:1-1\"]\nreason = \"the lab's\"\napplies-to = \"all\"\nannotations = { \"io.kubernetes.cri.sandbox-namespace\" = \"kube-*\" }\nuser-namespace = false\nprivileged = true\n";
        let policy = parse_policy(text).unwrap();
        assert_eq!((policy.fallback, policy.classes_only), (Fallback::Nothing, true));
        assert_eq!(
            policy.allow[0].place.to_string(),
            "[[policy.allow]] at /etc/c.toml line 5"
        );
        assert_eq!(
            policy.deny[0].place.to_string(),
            "[[policy.deny]] at /etc/c.toml line 9"
        );
        assert_eq!(policy.deny[0].reason.as_deref(), Some("the lab's"));
        assert_eq!(
            (policy.deny[0].user_namespace, policy.deny[0].privileged),
            (Some(false), Some(true))
        );
    }

    #[test]
    fn a_wrong_rule_is_told_with_file_line_and_cure() {
        let rule =
            |rest: &str| parse_policy(&format!("# a comment\n\n[[policy.allow]]\n{rest}\n")).unwrap_err();
        for (rest, said) in [
            (
                "devices = []",
                "it names no device: write devices = [\"usb:0403\"], say",
            ),
            (
                "devices = [\"usb:0403\", \"usb:12345\"]",
                "device \"usb:12345\": vendor id must be 4 hex digits, such as 0403 (devices, element 2)",
            ),
            (
                "devices = [\"parent-of:usb:0403\"]",
                "device \"parent-of:usb:0403\": a rule has no parent-of: name the parent itself, and all below it is meant (devices, element 1)",
            ),
            (
                "devices = [\"usb:0403;access=r\"]",
                "device \"usb:0403;access=r\": a rule's devices have no options: the access is a key of its own, access = \"rw\" (devices, element 1)",
            ),
            (
                "devices = [\"usb:0403\"]\napplies-to = \"all\"",
                "applies-to is only for [[policy.deny]]: trusted requests need no allow rule",
            ),
        ] {
            assert_eq!(
                rule(rest),
                format!("reading the configuration: [[policy.allow]] at /etc/c.toml line 3: {said}")
            );
        }
        for (text, parts) in [
            ("[policy]\ndefault = \"usb\"", ["line 2", "removable"]),
            ("[policy]\nclases-only = true", ["line 2", "clases-only"]),
            (
                "[[policy.deny]]\ndevices = [\"usb:0403\"]\naccess = \"x\"",
                ["line 3", "letters r, w and m"],
            ),
            ("[[policy.deny]]\nreason = \"x\"", ["line 1", "devices"]),
            (
                "[[policy.deny]]\ndevices = [\"usb:0403\"]\nannotations = { \"[\" = \"a\" }",
                ["line 1", "annotations"],
            ),
        ] {
            let error = parse_policy(text).unwrap_err();
            assert!(
                error.contains("/etc/c.toml") && parts.iter().all(|part| error.contains(part)),
                "{error}"
            );
        }
    }

    /// A configuration with its drop-ins.
    fn load(files: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("config.d")).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let config = Config::load(Some(&dir.path().join("config.toml")), None);
        config
            .and_then(|config| config.policy().map(|_| config))
            .map_err(|error| {
                error
                    .to_string()
                    .replace(dir.path().to_str().unwrap(), "/etc/oci-hotplug")
            })
    }

    #[test]
    fn later_files_win_and_rules_and_classes_add_up() {
        let config = load(&[
            ("config.toml", "log-level = \"debug\"\nprestart-timeout = 3\n[policy]\ndefault = \"nothing\"\n[[policy.allow]]\ndevices = [\"usb:0403\"]\n[class.a]\ndevices = [\"usb:0001\"]\n[lowrisc]\nrequired = true"),
            ("config.d/20-b.toml", "[policy]\ndefault = \"anything\"\n[class.a]\ndevices = [\"usb:0002\"]\n[class.b]\ndevices = [\"usb:0003\"]"),
            ("config.d/10-a.toml", "log-level = \"warn\"\n[policy]\ndefault = \"removable\"\n[[policy.allow]]\ndevices = [\"usb:1050\"]\n[lowrisc]\non-removal = \"kill\""),
            ("config.d/.30-hidden.toml", "rubbish"),
            ("config.d/40-editor.toml~", "rubbish"),
        ])
        .unwrap();
        let policy = config.policy().unwrap();
        assert_eq!(
            (config.log_level, config.prestart_timeout),
            (LogLevel::Warn, Duration::from_secs(3))
        );
        assert_eq!((policy.fallback, policy.allow.len()), (Fallback::Anything, 2));
        assert_eq!(
            (config.lowrisc.required, config.lowrisc.on_removal.clone()),
            (true, OnRemoval::Kill)
        );
        let classes = config.classes().unwrap();
        let classes: Vec<_> = classes
            .iter()
            .map(|(name, class)| (name, class.requests[0].to_string()))
            .collect();
        assert_eq!(
            classes,
            [("a", "usb:0002".to_owned()), ("b", "usb:0003".to_owned())]
        );
    }

    #[test]
    fn a_bad_drop_in_is_told_by_its_name_and_nothing_falls_back() {
        let error = load(&[("config.toml", ""), ("config.d/10-a.toml", "[policy]\n\nx = 1")]);
        let error = error.unwrap_err();
        assert!(
            error.starts_with("reading the configuration /etc/oci-hotplug/config.d/10-a.toml: ")
                && error.contains("line 3"),
            "{error}"
        );
        let error = load(&[
            ("config.toml", ""),
            ("config.d/1.toml", "state-dir = \"/x\"\nbroken"),
        ])
        .unwrap_err();
        assert!(error.contains("config.d/1.toml: line 2, column 7: "), "{error}");
        let error = load(&[
            ("config.toml", ""),
            ("config.d/1.toml", "[[policy.deny]]\ndevices = [\"x\"]"),
        ])
        .unwrap_err();
        assert!(
            error.contains("/etc/oci-hotplug/config.d/1.toml line 1: device \"x\""),
            "{error}"
        );
    }

    /// What becomes of requests when the drop-in has this text: those of an annotation, of root, of class a and class b.
    fn served(drop_in: &str) -> [bool; 4] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("config.d")).unwrap();
        std::fs::write(
            dir.path().join("config.toml"),
            "[class.a1]\ndevices = [\"usb:0001\"]\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("config.d/1.toml"), drop_in).unwrap();
        let config = Config::load(Some(&dir.path().join("config.toml")), None).unwrap();
        let (policy, classes) = (config.usable_policy(), config.usable_classes());
        [
            (Origin::Annotation, "usb:0403"),
            (Origin::Root, "usb:0403"),
            (Origin::Annotation, "class:a1"),
            (Origin::Annotation, "class:b2"),
        ]
        .map(|(origin, text)| {
            let Ok(asks) = read_list(origin, text, &classes) else {
                return false;
            };
            let of = Circumstances::default();
            asks.entries
                .iter()
                .all(|entry| policy.authorise(&of, entry).is_ok())
        })
    }

    /// Case newcomer: one broken drop-in.
    #[test]
    fn a_broken_drop_in_stops_what_it_may_speak_of_and_nothing_else() {
        // Annotation, root, class a1 of the intact file, class b2 of the drop-in.
        for (drop_in, expected) in [
            ("[class.b2]\ndevices = [\"usb:0002\"]", [true, true, true, true]),
            (
                "[[policy.allow]] devices = [\"usb:0627:0001\"]",
                [false, true, true, false],
            ),
            (
                "[[policy.allow]]\ndevices = [\"usb:12345\"]",
                [false, true, true, false],
            ),
            ("[class.b2]\ndevices = [\"usb:12345\"]", [true, true, true, false]),
            (
                "[class.b2]\ndevices = [\"usb:0002\"]\nrubbish",
                [false, true, true, false],
            ),
            (
                "[class.a1]\ndevices = [\"usb:12345\"]",
                [true, true, false, false],
            ),
            (
                "[[policy.deny]]\ndevices = [\"usb:0403\"\n",
                [false, false, false, false],
            ),
            (
                "[[policy.deny]]\ndevices = [\"usb:12345\"]\napplies-to = \"all\"",
                [false, false, false, false],
            ),
            (
                "[[policy.dney]]\ndevices = [\"usb:0403\"]\napplies-to = \"all\"",
                [false, false, false, false],
            ),
            ("log-level = \"loud\"", [false, true, true, false]),
        ] {
            assert_eq!(served(drop_in), expected, "{drop_in}");
        }
    }

    #[test]
    fn what_needs_only_the_state_directory_finds_it_unless_a_broken_file_may_name_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let found = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Config::of_state_only(Some(&path), None).map(|config| config.state_dir)
        };
        assert_eq!(found("state-dir = \"/x\"\nunknown = 1"), Some("/x".into()));
        assert_eq!(
            found("rubbish"),
            Some(crate::host::state::registry::DEFAULT_STATE_DIR.into())
        );
        assert_eq!(found("state-dir = \"/x\"\nrubbish"), None);
    }

    #[test]
    fn a_named_file_must_be_there() {
        let error = Config::load(Some(Path::new("/nowhere/c.toml")), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nowhere/c.toml"), "{error}");
    }
}
