//! bpf(2) for device filters: programs attached to a cgroup, and hash maps.
//!
//! A thin wrapper with one function per command. Errors are those of the kernel. Descriptors are
//! owned and close-on-exec (the kernel opens every bpf descriptor so). Does not know grants or
//! cgroup paths, nor what a program means.
#![allow(unsafe_code)]

mod call;
mod map;
mod program;

pub use map::HashMap;
pub use program::{
    Attached, BPF_F_ALLOW_MULTI, LoadError, ProgInfo, prog_attach, prog_get_fd_by_id, prog_info, prog_load,
    prog_query, prog_query_effective, prog_replace,
};
