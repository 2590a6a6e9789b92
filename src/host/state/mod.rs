//! The state directory: what the programs of this project store for each other, protected by locks.

pub mod atomic_file;
pub mod cgroup_owners;
pub mod control;
pub mod error;
pub mod flock;
pub mod journal;
pub mod journal_writer;
pub mod leases;
pub mod leftovers;
pub mod notes;
pub mod record;
pub mod record_lock;
pub mod refused_starts;
pub mod registry;
pub mod trust;
pub mod versioned;
