//! Enters the user namespace in which a rootless engine runs its containers.
//!
//! The engine's hooks run there as root. A process of the same user that was started elsewhere, by
//! a terminal or by systemd, has no privileges over the containers until it is there, too.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::geteuid;

use crate::host::file_system::{attributes, identity};
use crate::sys::namespaces;

/// The engine's user namespace cannot be entered.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot enter the user namespace of the rootless engine by its process {pid}: cannot {action}: {source} (run this as the user who runs the engine)"
)]
pub struct EnterError {
    pid: i32,
    action: &'static str,
    source: io::Error,
}

/// Makes the calling process root of the outermost user namespace that its user created around the
/// process `pid`, with a separate mount namespace, in which the host's mounts can be cloned. The
/// process must have only one thread (setns(2)). Its user has all privileges in that namespace,
/// because the user created it (user_namespaces(7), "Capabilities").
///
/// # Errors
/// When the process is not in such a namespace. The calling process may then be in another
/// namespace, and must end.
pub(crate) fn enter_engine_namespace(pid: i32) -> Result<(), EnterError> {
    let failed = |action| move |source: io::Error| EnterError { pid, action, source };
    let path = format!("/proc/{pid}/ns/user");
    let inner = File::open(path).map_err(failed("open it"))?;
    let outermost = outermost(inner.into()).map_err(failed("find it"))?;
    let creator = namespaces::creator_of(outermost.as_fd()).map_err(failed("examine it"))?;
    if creator != geteuid().as_raw() {
        return Err(failed("examine it")(io::Error::other(format!(
            "user {creator} created it"
        ))));
    }
    setns(outermost, CloneFlags::CLONE_NEWUSER)
        .map_err(io::Error::from)
        .map_err(failed("enter it"))?;
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(io::Error::from)
        .map_err(failed("create a mount namespace"))
}

/// The user namespace around this one whose parent is our own.
fn outermost(mut namespace: OwnedFd) -> io::Result<OwnedFd> {
    let ours = identity(&attributes(File::open("/proc/self/ns/user")?)?);
    if identity(&attributes(&namespace)?) == ours {
        return Err(io::Error::other("the process has no separate user namespace"));
    }
    loop {
        let parent = namespaces::parent_of(namespace.as_fd())?;
        if identity(&attributes(&parent)?) == ours {
            return Ok(namespace);
        }
        namespace = parent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_in_our_user_namespace_is_refused_before_anything_is_entered() {
        let error = enter_engine_namespace(std::process::id() as i32).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no separate user namespace"), "{text}");
        assert!(enter_engine_namespace(i32::MAX).is_err());
    }
}
