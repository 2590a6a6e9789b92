//! The device cgroup: grants, and the rules or the program that implement them.

pub mod device_rules;
pub mod filter_program;
pub mod grants;
pub mod v1_transition;
