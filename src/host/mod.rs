//! The Linux host as objects: effects, thin, each behind a type that says what it is.

pub mod announcer;
pub mod backoff;
pub mod config;
pub mod container;
pub mod container_dev;
pub mod engine_names;
pub mod filter;
pub mod host_check;
pub mod host_use;
pub mod log;
pub mod monitor;
pub mod nodeless;
pub mod process;
pub mod programs;
pub mod quiet;
pub mod runtime_state;
pub mod spawn;
pub mod state;
pub mod stuck;
pub mod systemd;
pub mod users;
