//! Device nodes and links in one container's file system, and the mount of its udev database:
//! creates, adopts and removes them, and changes nothing else.
//!
//! All access is through descriptors that are opened at the start. Does not know which devices are
//! requested, and stores nothing: the caller says which nodes and links are ours (`ours`), and
//! stores [`ContainerDev::directories`].

mod changes;
mod dev;
mod entry;
mod error;
mod file_system_user;
mod host_node;
mod links;
mod nodes;
mod open;
mod outcome;
mod path;
mod place;
mod run_udev;
mod staging;
mod walk;

pub use dev::{ContainerDev, DirectoryIdentity};
pub use error::{ContainerDevError, MountError};
pub(crate) use file_system_user::clear_umask;
pub use outcome::{LinkOutcome, NodeOutcome, NodeOwner, Placement};
pub use run_udev::AtRunUdev;
