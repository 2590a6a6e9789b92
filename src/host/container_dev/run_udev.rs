//! The container's `/run/udev`, on which its udev database is mounted.
//!
//! Everything that is mounted there by the engine or the container, and every file of the image,
//! stays as it is. `/run` is entered only where its file system cannot block: it belongs to the
//! root file system, or is a tmpfs of the container.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::libc::{EINVAL, ENOSYS};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::SFlag;
use nix::unistd::fchdir;
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::dev::{ContainerDev, DirectoryIdentity, MountIdentity};
use super::entry::file_type;
use super::error::{ContainerDevError, MountError, failed, step};
use super::open::{RESOLVE_PLAIN, how_to_open, open_retrying};
use super::place::{Opened, Place};
use crate::host::container::namespaces::{Namespace, OwnNamespace};
use crate::host::file_system::{Mounts, attributes, file_system_number, identity};
use crate::model::udev_database::RUN_UDEV;
use crate::sys::mount::restrict;

/// What is at the container's `/run/udev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtRunUdev {
    /// The container's database.
    Database,
    /// Nothing, or an empty directory.
    Nothing,
    /// Another mount.
    Mount,
    /// A directory with files.
    Files,
}

impl ContainerDev {
    /// What is at `/run/udev`. `database` is the directory of the container's database, if it has
    /// one; `replaced` is one that it had, and whose mount counts as nothing.
    ///
    /// # Errors
    /// When something is in the way, which is not followed.
    pub fn find_database(
        &mut self,
        database: Option<DirectoryIdentity>,
        replaced: Option<DirectoryIdentity>,
    ) -> Result<AtRunUdev, ContainerDevError> {
        let Some(run) = self.open_run(false)? else {
            return Ok(AtRunUdev::Nothing);
        };
        let place = self.place(Rc::new(run), RUN_UDEV);
        if database.is_some() && open_mount(&place).ok().map(|(_, found)| found) == database {
            return Ok(AtRunUdev::Database);
        }
        match place.open(OFlag::empty()) {
            Err(Errno::ENOENT) => Ok(AtRunUdev::Nothing),
            Err(Errno::EXDEV) => {
                let (_, mounted) = open_mount(&place)?;
                Ok(match Some(mounted) {
                    found if found == database => AtRunUdev::Database,
                    found if found == replaced => AtRunUdev::Nothing,
                    _ => AtRunUdev::Mount,
                })
            }
            Ok(found) => match place.is_empty_directory(&found)? {
                true => Ok(AtRunUdev::Nothing),
                false => Ok(AtRunUdev::Files),
            },
            Err(source) => Err(place.blocked(source)),
        }
    }

    /// Mounts a directory of the host read-only on `/run/udev`, which is created if it is missing.
    /// `container` is the container's mount namespace; `replaced` as in [`Self::find_database`].
    ///
    /// # Errors
    /// When something is in the way, or the kernel refuses.
    pub fn mount_database(
        &mut self,
        database: &OwnedFd,
        replaced: Option<DirectoryIdentity>,
        container: &OwnedFd,
    ) -> Result<(), ContainerDevError> {
        let missing = || failed("open", Path::new("/run"), Errno::ENOENT);
        let failed_mount = |source| ContainerDevError::Staging {
            path: RUN_UDEV.into(),
            source,
        };
        let run = self.open_run(true)?.ok_or_else(missing)?;
        let place = self.place(Rc::new(run), RUN_UDEV);
        if let Err(Errno::EXDEV) = place.open_directory() {
            match open_mount(&place)? {
                (mounted, found) if Some(found) == replaced => {
                    unmount(&mounted, container).map_err(failed_mount)?;
                }
                _ => {}
            }
        }
        let target = match place.open_directory() {
            Err(Errno::ENOENT) => {
                if place.make_directory()? {
                    self.directories.insert(RUN_UDEV.into());
                }
                place.open_directory()
            }
            other => other,
        };
        let target = target.map_err(|source| place.blocked(source))?;
        mount(database, &target, container).map_err(failed_mount)
    }

    /// Whether the container can write to sysfs, as privileged containers can.
    ///
    /// # Errors
    /// When the container's mounts cannot be read.
    pub fn has_writable_sys(&self) -> Result<bool, ContainerDevError> {
        let path = Path::new("/sys");
        let reading = |source: io::Error| failed("read the mount of", path, source);
        let sys = match open_retrying(&self.root, Path::new("sys"), how_to_open(OFlag::empty())) {
            Ok(sys) => sys,
            Err(Errno::ENOENT | Errno::ELOOP) => return Ok(false),
            Err(source) => return Err(failed("open", path, source)),
        };
        let facts = Mounts::id_of(&sys).and_then(|id| self.mounts.facts(id));
        let facts = facts.map_err(reading)?;
        Ok(facts.is_some_and(|facts| facts.is_sysfs && !facts.is_read_only))
    }

    /// Removes the directories that [`Self::mount_database`] created, after the container has
    /// ended.
    pub fn remove_run_udev(&mut self) {
        self.prune(&Path::new(RUN_UDEV).join("data"));
    }

    /// The container's `/run`; `None` if there is none and `is_made` is false.
    fn open_run(&mut self, is_made: bool) -> Result<Option<OwnedFd>, ContainerDevError> {
        let place = self.place(self.root.clone(), "/run");
        if let Some(run) = self.known_run(&place) {
            return Ok(Some(run));
        }
        let opened = match place.open_entry() {
            Err(Errno::ENOENT) if !is_made => return Ok(None),
            Err(Errno::ENOENT) => {
                if place.make_directory()? {
                    self.directories.insert("/run".into());
                }
                place.open_entry()
            }
            other => other,
        };
        let run = match opened.map_err(|source| place.blocked(source))? {
            Opened::Own(run) if is_directory(&run)? => run,
            Opened::Mounted(run) if is_directory(&run)? => {
                self.check_volume(&place, &run)?;
                run
            }
            Opened::Own(_) | Opened::Mounted(_) => return Err(place.blocked(Errno::ENOTDIR)),
            Opened::Foreign => return Err(place.blocked(Errno::EXDEV)),
        };
        self.check_propagation(&run)?;
        let checked = run.try_clone().and_then(|checked| {
            let identity = mount_identity(&checked)?;
            Ok((checked, identity))
        });
        self.run = Some(checked.map_err(|source| failed("open", place.path(), source))?);
        Ok(Some(run))
    }

    /// `/run`, if it is the one that was checked. That one is held open, so that its mount id is
    /// not used for another mount.
    fn known_run(&self, place: &Place) -> Option<OwnedFd> {
        let (_, known) = self.run.as_ref()?;
        let run = open_retrying(&place.parent, Path::new(&place.name), how_to_open(OFlag::empty())).ok()?;
        (mount_identity(&run).ok()? == *known).then_some(run)
    }

    /// A tmpfs that the host has mounted, too, is a volume: nothing is created in it.
    fn check_volume(&self, place: &Place, run: &OwnedFd) -> Result<(), ContainerDevError> {
        let number = attributes(run).map(|found| file_system_number(&found));
        let is_volume = number.and_then(|number| {
            let host = Mounts::new(File::open("/proc/thread-self")?.into());
            host.has_file_system(number)
        });
        match is_volume {
            Ok(false) => Ok(()),
            Ok(true) => Err(ContainerDevError::InTheWay {
                path: place.path().to_owned(),
                found: "a volume of the host".to_owned(),
            }),
            Err(source) => Err(failed("read the mount of", place.path(), source)),
        }
    }

    /// What is mounted on a shared mount would appear on the host.
    fn check_propagation(&self, run: &OwnedFd) -> Result<(), ContainerDevError> {
        let path = Path::new("/run");
        let facts = Mounts::id_of(run).and_then(|id| self.mounts.facts(id));
        let facts = facts.map_err(|source| failed("read the mount of", path, source))?;
        if facts.is_some_and(|facts| facts.is_shared) {
            return Err(ContainerDevError::InTheWay {
                path: path.to_owned(),
                found: "a mount that is shared with the host".to_owned(),
            });
        }
        Ok(())
    }

    fn place(&self, parent: Rc<OwnedFd>, path: &str) -> Place {
        let path = Path::new(path);
        Place {
            parent,
            name: path.file_name().unwrap_or_default().to_owned(),
            path: path.to_owned(),
            user: self.user,
            mounts: self.mounts.clone(),
        }
    }
}

/// The root directory of the mount at a place, as an O_PATH descriptor, which contacts no file
/// system.
fn open_mount(place: &Place) -> Result<(OwnedFd, DirectoryIdentity), ContainerDevError> {
    let looking = |source: io::Error| failed("examine", place.path(), source);
    let opened = open_retrying(&place.parent, Path::new(&place.name), how_to_open(OFlag::empty()));
    let mounted = opened.map_err(|source| looking(source.into()))?;
    let found = identity(&attributes(&mounted).map_err(looking)?);
    Ok((mounted, found))
}

impl Place {
    /// Whether a directory that was opened here is empty.
    fn is_empty_directory(&self, found: &OwnedFd) -> Result<bool, ContainerDevError> {
        if !is_directory(found)? {
            return Err(self.blocked(Errno::ENOTDIR));
        }
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(RESOLVE_PLAIN | ResolveFlag::RESOLVE_NO_XDEV);
        let looking = |source: Errno| failed("list", self.path(), source);
        let directory = open_retrying(&self.parent, Path::new(&self.name), how).map_err(looking)?;
        let mut directory = Dir::from_fd(directory).map_err(looking)?;
        let mut names = directory.iter().flatten();
        Ok(names.all(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")))
    }
}

fn is_directory(fd: &OwnedFd) -> Result<bool, ContainerDevError> {
    let found = attributes(fd).map_err(|source| failed("examine", Path::new("/run"), source))?;
    Ok(file_type(&found) == SFlag::S_IFDIR)
}

fn mount_identity(fd: &OwnedFd) -> io::Result<MountIdentity> {
    let found = attributes(fd)?;
    Ok((identity(&found), found.stx_mnt_id))
}

/// Unmounts a mount of the container by its root directory. Nothing can be mounted over a directory
/// that was removed.
fn unmount(mounted: &OwnedFd, container: &OwnedFd) -> Result<(), MountError> {
    in_container(container, || {
        fchdir(mounted)
            .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
            .map_err(step("unmount the earlier udev database"))
    })
}

fn clone_mount(directory: &OwnedFd) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(directory, "", flags)?)
}

/// Opens a directory of the host by its path in this mount namespace.
///
/// # Errors
/// When another directory is there.
fn open_again(directory: &OwnedFd) -> io::Result<OwnedFd> {
    let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = open(&path, flags, Mode::empty())?;
    match identity(&attributes(&found)?) == identity(&attributes(directory)?) {
        true => Ok(found),
        false => Err(Errno::ESTALE.into()),
    }
}

/// Mounts a directory of the host on a directory of the container.
fn mount(database: &OwnedFd, target: &OwnedFd, container: &OwnedFd) -> Result<(), MountError> {
    let tree = match clone_mount(database) {
        // Only mounts of this mount namespace can be cloned (open_tree(2)). The process entered it
        // after it had opened the directory (`container::engine_namespace`).
        Err(error) if error.raw_os_error() == Some(EINVAL) => {
            open_again(database).and_then(|database| clone_mount(&database))
        }
        result => result,
    };
    let tree = tree.map_err(step("clone the mount of the udev database"))?;
    restrict(tree.as_fd()).map_err(|source| match source.raw_os_error() {
        Some(ENOSYS) => step("make the udev database read-only (needs Linux 5.12)")(source),
        _ => step("make the udev database read-only")(source),
    })?;
    in_container(container, || {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, "", target, "", flags).map_err(step("mount the udev database"))
    })
}

/// Runs work in the container's mount namespace, where only descriptors mean the same as before.
fn in_container(
    container: &OwnedFd,
    work: impl FnOnce() -> Result<(), MountError>,
) -> Result<(), MountError> {
    let own = OwnNamespace::open(Namespace::Mount).map_err(step("open the host's mount namespace"))?;
    own.run_and_return(|| {
        Namespace::Mount
            .enter(container)
            .map_err(step("enter the container's mount namespace"))?;
        work()
    })
}
