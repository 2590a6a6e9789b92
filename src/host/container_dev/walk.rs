//! Walks to a place, one directory at a time.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;

use super::error::ContainerDevError;
use super::file_system_user::FileSystemUser;
use super::place::{ContainerMounts, Opened, Place};
use crate::host::file_system::{attributes, file_system_number};

/// The result of a walk.
pub(super) enum Walk {
    /// The parent directory exists.
    Place(Place),
    /// A parent directory is missing.
    Missing,
    /// The path leads into the host's devtmpfs, where nothing is created.
    HostOwned,
}

/// The parameters of a walk.
pub(super) struct Walker<'a> {
    /// The directory where the walk starts.
    pub start: &'a Rc<OwnedFd>,
    /// The path of `start` in the container: `/` or `/dev`.
    pub base: &'a Path,
    /// The device number of the host's devtmpfs.
    pub host_dev: (u32, u32),
    /// The owner of directories that are created.
    pub user: FileSystemUser,
    pub mounts: &'a ContainerMounts,
}

impl Walker<'_> {
    /// Walks to the parent directory of `path` (absolute, below the base). If `made` is given,
    /// missing directories are created and added to it.
    pub(super) fn walk(
        &self,
        path: &Path,
        mut made: Option<&mut Vec<PathBuf>>,
    ) -> Result<Walk, ContainerDevError> {
        let invalid = || ContainerDevError::Path {
            path: path.to_owned(),
        };
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(invalid());
        };
        let steps = above.strip_prefix(self.base).map_err(|_| invalid())?;
        let mut here = Place {
            parent: self.start.clone(),
            name: OsString::new(),
            path: self.base.to_owned(),
            user: self.user,
            mounts: self.mounts.clone(),
        };
        for step in steps.components() {
            let Component::Normal(step) = step else {
                return Err(invalid());
            };
            here.path.push(step);
            here.name = step.to_owned();
            let parent = match here.open_directory() {
                Err(Errno::ENOENT) => match &mut made {
                    None => return Ok(Walk::Missing),
                    Some(made) => {
                        let made_here = here.make_directory()?;
                        made.extend(made_here.then(|| here.path.clone()));
                        here.open_directory()
                    }
                },
                other => other,
            };
            here.parent = match parent {
                Ok(parent) => Rc::new(parent),
                Err(Errno::EXDEV) if self.is_host_dev(&here) => return Ok(Walk::HostOwned),
                Err(source) => return Err(here.blocked(source)),
            };
        }
        Ok(Walk::Place(Place {
            name: name.to_owned(),
            path: path.to_owned(),
            ..here
        }))
    }

    /// Whether the mount at this place is the host's devtmpfs or a part of it, for example with `-v
    /// /dev/bus/usb:/dev/bus/usb`.
    fn is_host_dev(&self, place: &Place) -> bool {
        let Ok(Opened::Mounted(mount)) = place.open_entry() else {
            return false;
        };
        attributes(&mount).is_ok_and(|found| file_system_number(&found) == self.host_dev)
    }
}
