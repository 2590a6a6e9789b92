//! The udev database of a container: what libudev inside finds below `/run/udev`.
//!
//! ```text
//! control     an empty file: its existence makes libudev's monitor listen to udevd's group
//! data/ID     what udevd stored of one device
//! tags/TAG/ID empty files: the devices with a tag
//! ```
//! It describes the attached devices, the devices without a node that belong to them, and the
//! parents of both. Pure: reads and writes no file.

mod entry;
mod id;
mod mode;
mod state;
mod text;

pub use entry::{Entries, EntryFacts, EntryKind};
pub use id::DatabaseId;
pub use mode::{UdevMode, UdevModeError};
pub use state::DatabaseState;
pub use text::{Entry, MAX_HOST_ENTRY, entry_for_container};

/// Where libudev reads the database.
pub const RUN_UDEV: &str = "/run/udev";
