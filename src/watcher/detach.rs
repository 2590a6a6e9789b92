//! Makes the watcher independent of the process that started it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::stat::{Mode, umask};
use nix::unistd;

use crate::host::process::raise_limits;
use crate::sys::descriptors;

/// What the hook handed over.
pub struct HandedOver {
    /// The locked file of the container (the standard input until now).
    pub lock: File,
    /// Where the response goes (the standard output until now).
    pub ready: File,
}

/// Makes this process independent: a session of its own, no descriptor but what was handed over,
/// `/` as working directory, umask 0 so that modes are what requests say. A process that waits for
/// the end of a pipe that the hook had open does not wait for the watcher.
///
/// Call this first, before anything is opened. `handed_over` says whether standard input and output
/// are the lock and the pipe that [`HandedOver`] names.
///
/// # Errors
/// When a descriptor can't be moved, or /dev/null can't be opened.
pub fn detach(handed_over: bool) -> io::Result<Option<HandedOver>> {
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
    // Fails for the leader of a process group, which has a session or a service of its own.
    let _ = unistd::setsid();
    // Each attached device needs a descriptor for its lease.
    raise_limits();
    std::env::set_current_dir("/")?;
    umask(Mode::empty());
    Ok(given)
}

/// The same open file under a number of its own, closed on exec.
fn keep(fd: impl AsFd) -> io::Result<File> {
    let copy: OwnedFd = fd.as_fd().try_clone_to_owned()?;
    Ok(File::from(copy))
}
