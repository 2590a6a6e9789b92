//! Access to devices through the device cgroup: what is granted, and the rules or the program that
//! say so.

pub mod device_rules;
pub mod filter_program;
pub mod grants;
