//! Opens files in a container by descriptor, and sets owner and mode of new ones.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat};
use nix::unistd::{Gid, Uid, fchownat};

use super::entry::file_type;
use crate::host::file_system::attributes;
use crate::model::device::{DevKind, DevNum};

/// How often openat2 is tried while renames elsewhere make it fail (openat2(2), EAGAIN).
const ATTEMPTS: u32 = 64;

/// Follows no link and does not leave the directory.
pub(super) const RESOLVE_PLAIN: ResolveFlag = ResolveFlag::RESOLVE_BENEATH
    .union(ResolveFlag::RESOLVE_NO_SYMLINKS)
    .union(ResolveFlag::RESOLVE_NO_MAGICLINKS);

pub(super) fn how_to_open(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | flags)
        .resolve(RESOLVE_PLAIN)
}

/// openat2 with retries: a rename elsewhere makes it fail. The number of attempts is limited,
/// because a container could rename on purpose.
pub(super) fn open_retrying(at: impl AsFd, path: &Path, how: OpenHow) -> nix::Result<OwnedFd> {
    for _ in 0..ATTEMPTS {
        match openat2(at.as_fd(), path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// Sets owner and mode of a node that was just created. Its type and number are compared first
/// (ESTALE if they differ), because the container may have replaced the file in the meantime.
pub(super) fn finish_node(fd: &OwnedFd, num: DevNum, mode: u32, uid: u32, gid: u32) -> nix::Result<()> {
    let found =
        attributes(fd).map_err(|source| Errno::from_raw(source.raw_os_error().unwrap_or_default()))?;
    let kind = if num.kind == DevKind::Block {
        SFlag::S_IFBLK
    } else {
        SFlag::S_IFCHR
    };
    let device = (found.stx_rdev_major, found.stx_rdev_minor);
    if file_type(&found) != kind || device != (num.major, num.minor) {
        return Err(Errno::ESTALE);
    }
    fchownat(
        fd,
        "",
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        AtFlags::AT_EMPTY_PATH,
    )?;
    set_mode(fd, mode)
}

/// chmod of an O_PATH descriptor. fchmod(2) refuses those, so this goes through its link in our own
/// /proc.
pub(super) fn set_mode(fd: &OwnedFd, mode: u32) -> nix::Result<()> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    fchmodat(
        AT_FDCWD,
        link.as_str(),
        Mode::from_bits_truncate(mode),
        FchmodatFlags::FollowSymlink,
    )
}
