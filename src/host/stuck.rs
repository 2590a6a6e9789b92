//! Finds processes that a hanging USB/IP server has blocked in the kernel.

use std::fs;
use std::path::Path;

/// Whether a process of a cgroup, or of a cgroup below it, is in uninterruptible sleep in the
/// kernel's USB core. As a rule it is in usb_kill_urb (drivers/usb/core/urb.c), which waits for the
/// server's confirmation. SIGKILL does not end such a process.
pub(crate) fn is_blocked_by_usb(cgroup: &Path) -> bool {
    let tasks = ["cgroup.threads", "tasks", "cgroup.procs"]
        .iter()
        .find_map(|file| fs::read_to_string(cgroup.join(file)).ok())
        .unwrap_or_default();
    if tasks.lines().any(is_task_blocked) {
        return true;
    }
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .any(|entry| is_blocked_by_usb(&entry.path()))
}

/// proc_pid_wchan(5) names the kernel function in which a task sleeps; state D means that SIGKILL
/// does not wake it.
fn is_task_blocked(task: &str) -> bool {
    let read = |file: &str| fs::read_to_string(format!("/proc/{task}/{file}")).unwrap_or_default();
    if !read("wchan").starts_with("usb_") {
        return false;
    }
    let stat = read("stat");
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('D'))
}
