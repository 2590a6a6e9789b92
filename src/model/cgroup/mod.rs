//! The device cgroup: grants, and the rules or the program that implement them.

pub(crate) mod device_rules;
pub mod filter_program;
pub mod grants;
pub(crate) mod v1_transition;
