//! The framework of the privileged tests and the benchmark: a machine, bundles, containers under
//! plain runc, devices that are really added and removed, udevd, and uevent listeners. It does not
//! know the product's internals: it starts the executables and examines what kernel and container
//! show.

pub mod activity;
pub mod alone;
pub mod announcements;
pub mod bundle;
pub mod container;
pub mod disk;
pub mod eventually;
pub mod hook;
pub mod identity;
pub mod journald;
#[path = "../../support/json_schema.rs"]
pub mod json_schema;
pub mod kernel;
pub mod machine;
pub mod ordinary_user;
pub mod shell;
pub mod terminal;
pub mod tool;
pub mod tracer;
pub mod udevd;
#[path = "../../support/udevd_answers.rs"]
mod udevd_answers;
pub mod user_manager;
pub mod watcher;

pub use alone::alone;
pub use announcements::Announcements;
pub use bundle::{Bundle, Place};
pub use container::RuncContainer;
pub use disk::{Disk, WholeDisk};
pub use eventually::eventually;
pub use hook::Hook;
pub use journald::Journald;
pub use machine::{Hierarchy, Machine};

pub use terminal::Terminal;
pub use udevd::Udevd;
pub use watcher::Watcher;
