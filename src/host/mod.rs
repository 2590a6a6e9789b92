//! The Linux host as objects: effects, thin, each behind a type that says what it is.

pub mod announcer;
pub mod cgroup_owners;
pub mod config;
pub mod container;
pub mod container_dev;
pub mod control;
pub mod engine_names;
pub mod filter;
pub mod host_use;
pub mod leases;
pub mod leftovers;
pub mod log;
pub mod monitor;
pub mod nodeless;
pub mod process;
pub mod programs;
pub mod quiet;
pub mod readiness;
pub mod refused_starts;
pub mod registry;
pub mod replaced_file;
pub mod runtime_state;
pub mod systemd;
pub mod trust;
pub mod users;
