//! Symbolic links.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::unistd::symlinkat;

use super::dev::ContainerDev;
use super::entry::Entry;
use super::error::ContainerDevError;
use super::outcome::LinkOutcome;
use super::path::{checked, leads_to, link_text};
use crate::model::cgroup::grants::Change;
use crate::model::plan::attachment::PathState;

impl ContainerDev {
    /// Creates a symbolic link at `link` to `target` (absolute, in the container), with missing
    /// parent directories. The link's text is relative below /dev, as udev's are, and absolute
    /// elsewhere. `ours` has the same meaning as for nodes.
    ///
    /// Outside /dev no mount is entered: volumes from the host stay unchanged.
    pub fn add_link(
        &mut self,
        link: &Path,
        target: &Path,
        ours: bool,
    ) -> Result<LinkOutcome, ContainerDevError> {
        let (link, target) = (checked(link, false)?, checked(target, false)?);
        let text = link_text(&link, &target);
        const ACTION: &str = "create the link";
        self.with_place(&link, LinkOutcome::HostOwned, |_, place| {
            let create = |parent: &OwnedFd, name: &OsStr| symlinkat(text.as_path(), parent, name);
            if !ours && place.create(ACTION, create)? {
                return Ok(LinkOutcome::Created);
            }
            let found = place.entry()?;
            match &found {
                Entry::Nothing => {}
                Entry::Link(there) if ours && *there == text => return Ok(LinkOutcome::Unchanged),
                Entry::Link(there) if !ours && leads_to(&link, there, &target) => {
                    return Ok(LinkOutcome::Adopted);
                }
                Entry::Link(_) if ours => {}
                _ => return Err(place.taken(&found)),
            }
            place.put(ACTION, found != Entry::Nothing, |temporary| {
                temporary.make(ACTION, create)
            })?;
            Ok(LinkOutcome::Created)
        })
    }

    /// Whether a link to `target` is at `link`.
    pub fn find_link(&self, link: &Path, target: &Path) -> Result<PathState, ContainerDevError> {
        let (link, target) = (checked(link, false)?, checked(target, false)?);
        self.find(
            &link,
            |entry| matches!(entry, Entry::Link(text) if leads_to(&link, text, &target)),
        )
    }

    /// Removes what an earlier watcher has left of a link that is not at `link`: an unfinished
    /// link, and directories that we created for it and that are empty.
    pub fn remove_link_remains(&mut self, link: &Path, target: &Path) -> Result<Change, ContainerDevError> {
        self.clear_temporary(&checked(link, false)?);
        self.remove_link(link, target)
    }

    /// Removes the link at `link` if it has exactly the text that [`Self::add_link`] gives it;
    /// anything else at the path stays.
    pub fn remove_link(&mut self, link: &Path, target: &Path) -> Result<Change, ContainerDevError> {
        let (link, target) = (checked(link, false)?, checked(target, false)?);
        let text = link_text(&link, &target);
        self.remove(&link, |_, _, entry| *entry == Entry::Link(text.clone()))
    }
}
