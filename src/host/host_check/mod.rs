//! Collects facts about a host for `model::host_check`. Reads files, runs installed programs with
//! `--version`, and loads one trivial BPF program, which is dropped again. Changes nothing.

mod engines;
mod inotify;
pub(crate) mod installed;
mod programs;
mod system;
mod tree;

pub(crate) use engines::{engines, runtimes};
pub(crate) use installed::{containers, has_units, hook_programs, may_be_written_by_others, state_dir};
pub(crate) use system::{live, system};
pub(crate) use tree::Tree;
