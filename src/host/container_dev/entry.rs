//! What is at a place.

use std::fmt;
use std::path::PathBuf;

use nix::sys::stat::SFlag;
use rustix::fs::Statx;

use crate::model::device::{DevKind, DevNum};

/// What is at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Nothing,
    Node {
        num: DevNum,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Link(PathBuf),
    Directory,
    Fifo,
    Socket,
    /// A regular file in the directory's own file system.
    File {
        size: u64,
        uid: u32,
    },
    /// A mount of a regular file, or of a file system that may never answer, so that it is not
    /// examined.
    Mount,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Node { num, .. } => write!(f, "the device node {num}"),
            // The container chose the text of the link.
            Self::Link(target) => write!(f, "a symbolic link to {target:?}"),
            Self::Directory => f.write_str("a directory"),
            Self::Fifo => f.write_str("a FIFO"),
            Self::Socket => f.write_str("a socket"),
            Self::File { .. } => f.write_str("a file"),
            Self::Mount => f.write_str("a mount of another file system"),
        }
    }
}

pub(super) fn file_type(attributes: &Statx) -> SFlag {
    SFlag::from_bits_truncate(u32::from(attributes.stx_mode) & SFlag::S_IFMT.bits())
}

pub(super) fn node_entry(kind: DevKind, found: &Statx) -> Entry {
    let num = DevNum {
        kind,
        major: found.stx_rdev_major,
        minor: found.stx_rdev_minor,
    };
    Entry::Node {
        num,
        mode: u32::from(found.stx_mode) & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
    }
}
