//! System calls without a safe wrapper in nix or rustix. The only module with `unsafe`; does not
//! use our own types.

pub mod bpf;
pub mod descriptors;
pub mod loop_device;
pub mod memory;
pub mod mount;
pub mod namespaces;
#[cfg(feature = "kubernetes")]
pub mod readiness;
pub mod socket_filter;
