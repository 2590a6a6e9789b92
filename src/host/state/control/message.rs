//! The requests and responses on the control socket. They travel as JSON.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::container::ContainerFacts;
use crate::model::counters::Counters;
use crate::model::device::SysPath;
use crate::model::plan::attachment::Attachments;
use crate::model::request::entry::RequestEntry;
use crate::model::request::symlink::SymlinkRule;
use crate::model::udev_database::DatabaseState;

/// A request to a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum ControlRequest {
    /// Return the state of the container: its requests, attachments and problems.
    Status,
    /// Add device requests. The response comes when the devices that are present are attached.
    Add {
        /// The container that the client means: a watcher of an earlier container with the same id
        /// refuses.
        container: ContainerFacts,
        entries: Vec<RequestEntry>,
        /// Rules for links.
        symlinks: Vec<SymlinkRule>,
    },
    /// Read the configuration again. The response comes when its policy is in force.
    Reload,
    /// Leave the container to the client, which is a new watcher. The response comes when no step
    /// is being carried out.
    HandOver,
    /// Remove device requests. The response comes when the devices that only they had selected are
    /// detached.
    Remove {
        /// The container that the client means, as in [`ControlRequest::Add`].
        container: ContainerFacts,
        /// The requests to remove, equal to those that were added; other requests stay.
        entries: Vec<RequestEntry>,
    },
}

/// The response of a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlResponse {
    /// The request has been carried out.
    Done,
    /// The response to [`ControlRequest::Status`].
    Status(Box<Status>),
    /// The request failed, for this reason.
    Failed(String),
    /// The policy denies the request, for this reason.
    Refused(String),
    /// The watcher is for another container with the same id; the container that the client means
    /// has ended. The client may try again.
    Gone,
    /// The response to [`ControlRequest::HandOver`]: the watcher does nothing more, and ends. The
    /// files of the record lock and of the leases come with the response, in this order, so that
    /// they are never unlocked.
    HandedOver,
}

/// The state of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The watcher's process id.
    pub watcher: i32,
    pub container: ContainerFacts,
    /// The requests, with the devices that they select now.
    pub requests: Vec<RequestEntry>,
    pub attached: Attachments,
    /// The requested devices that are not attached, with the reasons.
    pub problems: Vec<Problem>,
    /// The counters. Absent in responses of older versions.
    #[serde(default)]
    pub counters: Counters,
    /// Whether the container has a udev database. Absent in responses of older versions.
    #[serde(default)]
    pub udev_database: Option<DatabaseState>,
}

/// A device, node or link that should be in the container and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The path inside the container.
    pub path: PathBuf,
    /// The device, if the problem is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<SysPath>,
    pub reason: String,
    /// Whether this is not a failure: another container holds the device exclusively, and it is
    /// attached when that container releases it.
    #[serde(default)]
    pub waiting: bool,
}

impl Problem {
    /// Groups problems by reason: for each reason all paths, in the order of the problems.
    pub fn grouped<'p>(problems: impl IntoIterator<Item = &'p Self>) -> Vec<(Vec<&'p Path>, &'p str)> {
        let mut groups: Vec<(Vec<&Path>, &str)> = Vec::new();
        for problem in problems {
            let path = problem.path.as_path();
            match groups.iter_mut().find(|(_, reason)| *reason == problem.reason) {
                Some((paths, _)) if paths.contains(&path) => {}
                Some((paths, _)) => paths.push(path),
                None => groups.push((vec![path], &problem.reason)),
            }
        }
        groups
    }
}

/// The first of some paths, with the number of the others.
pub fn first_of(paths: &[&Path]) -> String {
    match paths {
        [] => String::new(),
        [only] => only.display().to_string(),
        [first, others @ ..] => format!("{} +{}", first.display(), others.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case newcomer: one denied device with eight nodes printed eight lines.
    #[test]
    fn problems_with_the_same_reason_are_grouped() {
        let problem = |path: &str, reason: &str| Problem {
            path: path.into(),
            device: None,
            reason: reason.into(),
            waiting: false,
        };
        let problems = [
            problem("/dev/a", "no"),
            problem("/dev/b", "never"),
            problem("/dev/c", "no"),
            problem("/dev/c", "no"),
        ];
        let groups: Vec<String> = Problem::grouped(&problems)
            .iter()
            .map(|(paths, reason)| format!("{}: {reason}", first_of(paths)))
            .collect();
        assert_eq!(groups, ["/dev/a +1: no", "/dev/b: never"]);
    }
}
