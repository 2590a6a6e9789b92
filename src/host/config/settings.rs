//! The settings of a configuration file: all keys but classes and policy.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::model::request::OnRemoval;
use crate::model::udev_database::UdevMode;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// Failures and unusual events.
    Warn,
    /// Also each device that is attached or detached.
    #[default]
    Info,
    /// Also the reasons.
    Debug,
}

/// Which program restarts watchers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SystemdUnitSetting {
    /// systemd, if it runs this host and has the unit.
    #[default]
    Auto,
    /// None; `oci-hotplug recover` starts watchers that died.
    None,
}

impl LogLevel {
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

/// The settings of a file. Classes and policy are parsed on demand (`sections`).
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct SettingsText {
    pub(super) state_dir: Option<PathBuf>,
    pub(super) log_level: Option<LogLevel>,
    pub(super) prestart_timeout: Option<u64>,
    pub(super) systemd_unit: Option<SystemdUnitSetting>,
    pub(super) udev: Option<UdevMode>,
    pub(super) lowrisc: LowriscText,
    pub(super) class: IgnoredAny,
    pub(super) policy: IgnoredAny,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct LowriscText {
    pub(super) required: Option<bool>,
    pub(super) on_removal: Option<OnRemoval>,
}

/// The only key that is needed to find the state directory.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct StateDirOfFile {
    pub(super) state_dir: Option<PathBuf>,
}
