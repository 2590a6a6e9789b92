//! Facts and decisions: values and pure functions. No I/O, clock, file descriptor or environment.

pub mod access_list;
#[cfg(test)]
pub(crate) mod any_text;
pub mod cgroup;
pub mod counters;
pub mod device;
pub mod host_check;
pub mod id_maps;
pub mod oci;
pub mod plan;
pub mod policy;
pub(crate) mod quoting;
pub mod remote;
pub mod request;
pub mod rootless;
pub mod udev_database;
pub mod uevent;
pub mod yaml;
