//! The state directory: what the programs of this project store for each other, protected by locks.

pub(crate) mod atomic_file;
pub mod cgroup_owners;
pub mod control;
pub(crate) mod error;
pub(crate) mod flock;
pub mod journal;
pub(crate) mod journal_writer;
pub(crate) mod leases;
pub(crate) mod leftovers;
pub mod notes;
pub mod record;
pub(crate) mod record_lock;
pub(crate) mod refused_starts;
pub(crate) mod registry;
pub(crate) mod trust;
pub(crate) mod versioned;
