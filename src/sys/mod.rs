//! System calls that neither nix nor rustix wraps safely. The only `unsafe` of the house; knows
//! none of our types.

pub mod bpf;
pub mod descriptors;
pub mod loop_device;
pub mod memory;
#[cfg(feature = "kubernetes")]
pub mod readiness;
