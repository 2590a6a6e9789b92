//! The record of a container: its identity and its requests.
//!
//! Does not know what requests mean.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::host::container::ContainerFacts;
use crate::host::process::{Process, boot_id};
use crate::host::regular_file;
use crate::host::state::error::RegistryError;
use crate::host::state::versioned::{self, STATE_VERSION, VersionError};
use crate::model::policy::ContainerTraits;
use crate::model::request::entry::{RequestEntry, Requests};
use crate::model::request::symlink::SymlinkRule;
use crate::model::udev_database::UdevMode;

/// A container that has, had, or is about to have a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The [`STATE_VERSION`] of the program that wrote the record.
    pub version: u32,
    pub container: ContainerFacts,
    pub requests: Vec<RequestEntry>,
    /// Rules for links.
    pub symlinks: Vec<SymlinkRule>,
    /// The time at which the first hook enrolled the container, in seconds since 1970.
    pub enrolled: u64,
    /// The traits that conditions of policy rules are evaluated on.
    #[serde(default)]
    pub traits: ContainerTraits,
    /// The absolute path of the configuration that the hook was given; every later watcher reads
    /// the same one.
    #[serde(default)]
    pub config: Option<PathBuf>,
    /// Whether the container gets a udev database.
    #[serde(default)]
    pub udev: UdevMode,
    /// The boot in which the container was enrolled (`process::boot_id`). A state directory may
    /// survive a reboot, after which pids and start times repeat.
    #[serde(default)]
    pub boot: String,
}

impl Record {
    /// The record of a container that is enrolled now. `config` is the configuration that the hook
    /// was given.
    pub fn new(
        container: ContainerFacts,
        requests: Requests,
        traits: ContainerTraits,
        config: Option<PathBuf>,
    ) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            version: STATE_VERSION,
            container,
            requests: requests.entries,
            symlinks: requests.symlinks,
            enrolled: now.map_or(0, |since| since.as_secs()),
            traits,
            config,
            udev: requests.udev.unwrap_or_default(),
            boot: boot_id(),
        }
    }

    /// Whether the container's init still runs: the same process, in the same boot.
    pub fn is_running(&self) -> bool {
        self.init().running().is_some()
    }

    pub fn init(&self) -> RecordedInit {
        RecordedInit {
            pid: self.container.pid,
            start_time: self.container.start_time,
            bundle: self.container.bundle.clone(),
            boot: self.boot.clone(),
        }
    }

    /// Whether the record is of this container, and not of an earlier one with the same id.
    pub fn is_of(&self, container: &ContainerFacts) -> bool {
        (self.container.pid, self.container.start_time) == (container.pid, container.start_time)
    }

    /// This record with the requests and rules of another hook of the same container. New ones are
    /// appended, so that the order stays.
    #[must_use]
    pub fn joined_by(mut self, further: &Record) -> Self {
        for entry in &further.requests {
            if !self.requests.contains(entry) {
                self.requests.push(entry.clone());
            }
        }
        for rule in &further.symlinks {
            if !self.symlinks.contains(rule) {
                self.symlinks.push(rule.clone());
            }
        }
        self
    }
}

/// The identity of the container that a record describes. An id alone is not enough: two runtime
/// roots, containerd namespaces or engines can use one id at the same time, and a restarted
/// container has the id of its predecessor.
///
/// It is also read from records of newer versions, so that no program removes the record of a
/// running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedInit {
    /// The host's pid of init.
    pub pid: i32,
    /// Clock ticks since boot, see [`crate::host::process::start_time`].
    pub start_time: u64,
    /// The bundle's directory; empty if the record has none.
    pub bundle: PathBuf,
    /// The boot of the record; empty if unknown.
    pub boot: String,
}

impl RecordedInit {
    /// Whether the record may be of this boot: after another one, pids and start times mean
    /// nothing.
    pub fn may_be_of_this_boot(&self) -> bool {
        let now = boot_id();
        self.boot.is_empty() || now.is_empty() || self.boot == now
    }

    /// The process, if it still runs. A zombie does not run.
    pub fn running(&self) -> Option<Process> {
        match self.may_be_of_this_boot() {
            true => Process::open(self.pid, self.start_time).ok(),
            false => None,
        }
    }

    /// Whether it is the init of this container.
    pub fn is_of(&self, container: &ContainerFacts) -> bool {
        (self.pid, self.start_time) == (container.pid, container.start_time)
    }
}

/// The init in a record; `None` if there is no record, or if it has no init.
pub(super) fn read_init(path: &Path) -> Option<RecordedInit> {
    #[derive(Deserialize)]
    struct Facts {
        pid: i32,
        start_time: u64,
        #[serde(default)]
        bundle: PathBuf,
    }
    #[derive(Deserialize)]
    struct Partial {
        container: Facts,
        #[serde(default)]
        boot: String,
    }
    let Partial { container, boot } = serde_json::from_slice(&regular_file::read(path).ok()?).ok()?;
    Some(RecordedInit {
        pid: container.pid,
        start_time: container.start_time,
        bundle: container.bundle,
        boot,
    })
}

/// Reads record.json; `None` if it is absent.
///
/// # Errors
/// When it cannot be read, or is of a newer version.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RegistryError> {
    let Some(text) = versioned::content_of(path)? else {
        return Ok(None);
    };
    let path = path.to_owned();
    versioned::from_json(&text)
        .map(Some)
        .map_err(|error| match error {
            VersionError::Malformed(source) => RegistryError::Malformed { path, source },
            VersionError::TooNew { version } => RegistryError::TooNew {
                path,
                version,
                known: STATE_VERSION,
            },
        })
}
