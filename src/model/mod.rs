//! Facts and decisions: values and pure functions. No I/O, clock, file descriptor or environment.

pub(crate) mod access_list;
#[cfg(test)]
pub(crate) mod any_text;
pub mod cgroup;
pub(crate) mod counters;
pub mod device;
pub(crate) mod host_check;
pub(crate) mod id_maps;
pub mod oci;
pub mod plan;
pub mod policy;
pub(crate) mod quoting;
pub mod remote;
pub mod request;
pub(crate) mod rootless;
pub mod udev_database;
pub mod uevent;
pub mod yaml;
