//! Whether this process has the privileges of the host's root.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::unistd::{Uid, User, geteuid};

use crate::host::kernel_text;
use crate::model::rootless::{self, Rootless};
use crate::sys::namespaces;

/// The map of this process's user namespace (proc_pid_uid_map(5)).
const UID_MAP: &str = "/proc/self/uid_map";

/// The id of users that are not mapped (proc_sys_kernel(5)), and its default.
const OVERFLOW_UID: (&str, u32) = ("/proc/sys/kernel/overflowuid", 65534);

/// Whether this process belongs to an ordinary user, or to root of a user namespace: neither can
/// load a device filter or create device nodes (bpf(2), mknod(2)).
pub(crate) fn rootless() -> Option<Rootless> {
    Rootless::of(geteuid().as_raw(), &uid_map())
}

/// Whether uevents arrive in this process's network namespace: the kernel sends them only to those
/// that the initial user namespace owns (lib/kobject_uevent.c, uevent_net_init). Engines that run
/// in a separate network namespace, as rootless Docker does, run their hooks there as well.
pub(crate) fn receives_uevents() -> bool {
    if !rootless().is_some_and(|rootless| rootless.is_namespace_root) {
        return true;
    }
    // The initial user namespace is above ours, so the owner of the host's network namespace is
    // hidden.
    let owner = File::open("/proc/self/ns/net").and_then(|network| namespaces::owner_of(network.as_fd()));
    owner.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The user id by which this process sees the host's root.
pub(crate) fn host_root() -> u32 {
    rootless::host_root(&uid_map()).unwrap_or_else(unmapped_user)
}

/// The id by which this process sees all users that are not mapped, and, unless an administrator
/// has changed one of them, all groups.
pub(crate) fn unmapped_user() -> u32 {
    let overflow = fs::read_to_string(OVERFLOW_UID.0).ok();
    let overflow = overflow.and_then(|text| text.trim().parse().ok());
    overflow.unwrap_or(OVERFLOW_UID.1)
}

/// The user's home directory, by the user database (passwd(5)): hooks of stage poststop have no
/// environment, and that of other hooks is the caller's. `None` if the user has no entry there.
pub(crate) fn home(user: Rootless) -> Option<PathBuf> {
    let entry = User::from_uid(Uid::from_raw(user.uid)).ok()??;
    Some(entry.dir).filter(|home| home.is_absolute())
}

fn uid_map() -> String {
    let text = File::open(UID_MAP).and_then(|file| kernel_text::read(&file));
    text.unwrap_or_default()
}
