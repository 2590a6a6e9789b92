//! Collects facts about a host for `model::host_check`. Reads files, runs installed programs with
//! `--version`, and loads one trivial BPF program, which is dropped again. Changes nothing.

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
