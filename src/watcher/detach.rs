//! Makes the watcher independent of the process that started it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::unistd;

use crate::host::container_dev::clear_umask;
use crate::host::process::raise_limits;
use crate::sys::descriptors;

/// The files that the hook handed over.
pub struct HandedOver {
    /// The locked file of the container (formerly standard input).
    pub lock: File,
    /// The pipe for the response (formerly standard output).
    pub ready: File,
}

/// Makes this process independent of its parent: new session, no open files but those that were
/// handed over, `/` as working directory, and umask 0, so that nodes get the modes of the requests.
/// A process that waits for the end of a pipe that the hook had open does not wait for the watcher.
///
/// Call this before anything is opened. `handed_over` says whether standard input and output are
/// the lock and the pipe of [`HandedOver`].
///
/// # Errors
/// When a descriptor cannot be moved, or /dev/null cannot be opened.
pub(crate) fn detach(handed_over: bool) -> io::Result<Option<HandedOver>> {
    descriptors::close_from(3)?;
    let given = if handed_over {
        Some(HandedOver {
            lock: keep(io::stdin().as_fd())?,
            ready: keep(io::stdout().as_fd())?,
        })
    } else {
        None
    };
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(&null)?;
    if handed_over {
        unistd::dup2_stderr(&null)?;
    }
    // Fails for a process group leader, which already has a session or is a service.
    let _ = unistd::setsid();
    // Each attached device needs a descriptor for its lease.
    raise_limits();
    std::env::set_current_dir("/")?;
    clear_umask();
    Ok(given)
}

/// The same open file under a new number, with close-on-exec.
fn keep(fd: impl AsFd) -> io::Result<File> {
    let copy: OwnedFd = fd.as_fd().try_clone_to_owned()?;
    Ok(File::from(copy))
}
