//! What a process does at this moment, for messages about one that is late.

use std::fs;

/// Its state, system call and kernel stack (proc_pid_status(5), proc_pid_syscall(5),
/// proc_pid_stack(5)).
pub fn activity(pid: impl std::fmt::Display) -> String {
    let read = |file: &str| {
        fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_else(|error| error.to_string())
    };
    let status = read("status");
    let state = status.lines().find(|line| line.starts_with("State:"));
    let stack = read("stack");
    let frames: Vec<&str> = stack
        .lines()
        .map(|line| line.trim_start_matches("[<0>] "))
        .collect();
    format!(
        "process {pid}: {}, system call {}, kernel stack {}",
        state.unwrap_or("no state"),
        read("syscall").trim_end(),
        frames.join(" < ")
    )
}
