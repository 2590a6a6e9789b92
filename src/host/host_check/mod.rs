//! Looks at a host, for `model::host_check` to judge. Reads files, asks found programs for their
//! version, loads one trivial BPF program that is dropped again; changes nothing.

mod engines;
mod inotify;
pub mod installed;
mod programs;
mod system;
mod tree;

pub use engines::{engines, runtimes};
pub use installed::{containers, has_units, hook_programs, may_be_written_by_others, state_dir};
pub use system::{System, live, system};
pub use tree::Tree;
