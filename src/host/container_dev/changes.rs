//! What nodes and links have in common: find, create with parent directories, remove with empty
//! ones.

use std::path::{Path, PathBuf};

use super::dev::ContainerDev;
use super::entry::Entry;
use super::error::ContainerDevError;
use super::place::Place;
use super::walk::Walk;
use crate::model::cgroup::grants::Change;
use crate::model::plan::attachment::{Attachments, NodeCreator, PathState};

impl ContainerDev {
    /// Removes our nodes, links and the directory of the udev database from file systems that still
    /// exist after the container has ended, because they would be in the way at its next start.
    /// What cannot be removed is logged.
    pub fn remove_outliving(&mut self, attachments: &Attachments) {
        let outlives = |this: &Self, path: &Path| this.dev_outlives || !path.starts_with("/dev");
        for (path, attachment) in attachments.iter() {
            let links = attachment
                .links
                .iter()
                .filter(|(_, creator)| **creator == NodeCreator::Watcher);
            for (link, _) in links {
                if outlives(self, link) {
                    log_failure(self.remove_link(link, path));
                }
            }
            if attachment.node_creator == NodeCreator::Watcher && outlives(self, path) {
                log_failure(self.remove_node(path, attachment.node.num));
            }
        }
        self.remove_run_udev();
    }

    pub(super) fn find(
        &self,
        path: &Path,
        is_it: impl FnOnce(&Entry) -> bool,
    ) -> Result<PathState, ContainerDevError> {
        self.find_place(path, |_, entry| is_it(entry))
    }

    /// Like [`Self::find`], for a test that examines the place.
    pub(super) fn find_place(
        &self,
        path: &Path,
        is_it: impl FnOnce(&Place, &Entry) -> bool,
    ) -> Result<PathState, ContainerDevError> {
        if self.is_host_owned(path) {
            return Ok(PathState::Same);
        }
        let place = match self.walker(path).walk(path, None)? {
            Walk::Place(place) => place,
            Walk::Missing => return Ok(PathState::NoDirectory),
            Walk::HostOwned => return Ok(PathState::Same),
        };
        Ok(match &place.entry()? {
            Entry::Nothing => PathState::Vacant,
            entry if is_it(&place, entry) => PathState::Same,
            _ => PathState::Other,
        })
    }

    /// The directories that are created with a file at a path, the deepest first.
    pub fn missing_directories(&self, path: &Path) -> Vec<PathBuf> {
        let is_missing = |directory: &&Path| {
            let found = self.find(directory, |_| true);
            matches!(found, Ok(PathState::Vacant | PathState::NoDirectory))
        };
        let above = path.ancestors().skip(1);
        above.take_while(is_missing).map(Path::to_owned).collect()
    }

    /// Runs `work` at a path, with missing parent directories created first. They are removed again
    /// if it fails.
    pub(super) fn with_place<T>(
        &mut self,
        path: &Path,
        host_owned: T,
        work: impl FnOnce(&mut Self, &Place) -> Result<T, ContainerDevError>,
    ) -> Result<T, ContainerDevError> {
        if self.is_host_owned(path) {
            return Ok(host_owned);
        }
        let mut made = Vec::new();
        let result = match self.walker(path).walk(path, Some(&mut made)) {
            Ok(Walk::Place(place)) => {
                self.directories.extend(made);
                work(self, &place)
            }
            Ok(Walk::HostOwned) => {
                self.directories.extend(made);
                self.prune(path);
                return Ok(host_owned);
            }
            Ok(Walk::Missing) => Err(ContainerDevError::Path {
                path: path.to_owned(),
            }),
            Err(error) => {
                self.directories.extend(made);
                Err(error)
            }
        };
        if result.is_err() {
            self.prune(path);
        }
        result
    }

    /// Unlinks the file at a path if it is the expected one, then removes the directories that are
    /// empty because of it.
    pub(super) fn remove(
        &mut self,
        path: &Path,
        is_ours: impl FnOnce(&Self, &Place, &Entry) -> bool,
    ) -> Result<Change, ContainerDevError> {
        if self.is_host_owned(path) {
            return Ok(Change::None);
        }
        let place = match self.walker(path).walk(path, None) {
            Ok(Walk::Place(place)) => place,
            // If the path cannot be reached now, then our file is not there any more.
            Ok(Walk::Missing | Walk::HostOwned) | Err(ContainerDevError::InTheWay { .. }) => {
                self.prune(path);
                return Ok(Change::None);
            }
            Err(error) => return Err(error),
        };
        let is_ours = is_ours(self, &place, &place.entry()?);
        if is_ours {
            self.lock_out(&place);
        }
        let removed = is_ours && place.unlink()?;
        if let (Some(node), Some(staging)) = (self.staged.remove(path), &self.staging) {
            staging.discard(&node);
        }
        self.prune(path);
        Ok(if removed { Change::Made } else { Change::None })
    }

    /// Removes what a watcher that was killed has left under the temporary name beside a path: it
    /// can be a mounted node.
    pub(super) fn clear_temporary(&self, path: &Path) {
        if self.is_host_owned(path) {
            return;
        }
        if let Ok(Walk::Place(place)) = self.walker(path).walk(path, None) {
            let temporary = place.temporary();
            self.lock_out(&temporary);
            temporary.clear();
        }
    }

    /// Removes the empty parent directories that we created, the deepest first. A directory that
    /// cannot be removed stays on the list; the next removal tries it again.
    pub(super) fn prune(&mut self, path: &Path) {
        for directory in path.ancestors().skip(1) {
            if !self.directories.contains(directory) {
                return;
            }
            let gone = match self.walker(directory).walk(directory, None) {
                Ok(Walk::Place(place)) => place.remove_directory(),
                Ok(Walk::Missing) => true,
                Ok(Walk::HostOwned) | Err(_) => false,
            };
            if !gone {
                return;
            }
            self.directories.remove(directory);
        }
    }
}

fn log_failure(removed: Result<Change, ContainerDevError>) {
    if let Err(error) = removed {
        tracing::warn!("{error}");
    }
}
