//! The Linux host as objects. Each type performs effects of one kind and decides nothing.

pub mod announcer;
pub mod backoff;
pub mod config;
pub mod container;
pub mod container_dev;
pub mod engine_names;
pub mod file_system;
pub mod filter;
pub mod host_check;
pub mod host_use;
pub mod kernel_text;
pub mod log;
pub mod monitor;
pub mod nodeless;
pub mod process;
pub mod programs;
pub mod rootless;
pub mod rootless_check;
pub mod runtime_state;
pub mod spawn;
pub mod state;
pub mod stuck;
pub mod systemd;
pub mod udev_database;
pub mod users;
