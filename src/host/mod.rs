//! The Linux host as objects. Each type performs effects of one kind and decides nothing.

pub mod announcer;
pub(crate) mod backoff;
pub mod config;
pub mod container;
pub mod container_dev;
pub(crate) mod engine_names;
pub(crate) mod file_system;
pub mod filter;
pub(crate) mod host_check;
pub(crate) mod host_use;
pub(crate) mod kernel_text;
pub(crate) mod log;
pub mod monitor;
pub(crate) mod nodeless;
pub mod process;
pub(crate) mod programs;
pub(crate) mod regular_file;
pub(crate) mod rootless;
pub(crate) mod rootless_check;
pub(crate) mod runtime_state;
pub(crate) mod spawn;
pub mod state;
pub(crate) mod stuck;
pub(crate) mod systemd;
pub(crate) mod udev_database;
pub(crate) mod users;
