//! System calls without a safe wrapper in nix or rustix. The only module with `unsafe`; does not
//! use our own types.

pub mod bpf;
pub(crate) mod descriptors;
pub(crate) mod directory_change;
pub mod loop_device;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod namespaces;
#[cfg(feature = "kubernetes")]
pub(crate) mod readiness;
pub(crate) mod socket_filter;
