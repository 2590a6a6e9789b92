//! Starts the USB/IP worker `oci-hotplug-usbip` for a watcher, a hook or `oci-hotplug recover`.
//!
//! A server that hangs can block the process that configures its device in the kernel, even against
//! SIGKILL, until the device is detached. That process must not be a watcher, which serves other
//! devices as well, nor one of the watcher's threads, which would keep the container's lock. The
//! device stays attached when the worker ends: the kernel has the connection, and its `remove`
//! event tells the watcher when the connection breaks. Therefore no worker runs while devices are
//! merely attached.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use serde::de::DeserializeOwned;

use super::records;
use super::task::{AttachReply, AttachTask, Failure, Release, ReleaseReply, Task, Work};
use crate::host::programs::{self, ProgramError};
use crate::host::spawn::{Child, Streams, spawn};
use crate::host::state::trust;

/// The name of the executable.
const WORKER: &str = "oci-hotplug-usbip";
/// The longest reply that is read, in bytes.
const MAX_REPLY: usize = 64 * 1024;
/// The timeout of a release at the end of a container. Measured: 0.4 s.
pub(crate) const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// The timeout for a killed worker to end.
const KILL_TIMEOUT: Duration = Duration::from_millis(20);

/// Why a worker cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// The executable is missing.
    #[error(transparent)]
    Absent(#[from] ProgramError),
    #[error("cannot start {path}: {source}", path = path.display())]
    Spawn { path: PathBuf, source: io::Error },
}

/// A worker that attaches a device. Dropping it kills it; the next worker, or [`release`], undoes
/// an unfinished attachment.
#[derive(Debug)]
pub(crate) struct Worker(Started);

impl Worker {
    /// Starts a worker that attaches a device for a container.
    ///
    /// # Errors
    /// If the worker cannot be started.
    pub(crate) fn attach(state_dir: &Path, task: AttachTask) -> Result<Self, WorkerError> {
        Started::new(state_dir, Work::Attach(task)).map(Self)
    }

    /// The reply; `None` while the worker runs. Never blocks.
    pub(crate) fn reply(&mut self) -> Option<AttachReply> {
        self.0.reply()
    }
}

impl AsFd for Worker {
    /// Readable when [`Worker::reply`] may return a reply.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.pipe.as_fd()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.process.kill();
        // A worker that is blocked in the kernel ends later.
        self.0.process.ends_within(KILL_TIMEOUT);
    }
}

/// Detaches devices that were attached for containers, and waits until that is done or the timeout
/// has passed. The worker continues after the timeout.
pub(crate) fn release(state_dir: &Path, release: Release, timeout: Duration) {
    // A directory that other users can write cannot be trusted.
    if trust::check(state_dir).is_err() || !is_in_use(state_dir) {
        return;
    }
    let mut started = match Started::new(state_dir, Work::Release(release)) {
        Ok(started) => started,
        Err(error) => return tracing::error!("cannot release remote devices: {error}"),
    };
    if !started.process.ends_within(timeout) {
        return tracing::warn!("usbip: the kernel has not released a remote device within {timeout:?}");
    }
    let reply: Option<ReleaseReply> = started.reply();
    if let Some(Err(failure)) = reply {
        tracing::warn!("cannot release remote devices: {}", failure.reason);
    }
}

/// Whether this host has attached a device or begun to: the directory then contains a file other
/// than the hubs' lock, which is never removed.
fn is_in_use(state_dir: &Path) -> bool {
    let entries = fs::read_dir(state_dir.join(records::DIRECTORY));
    let mut entries = entries.into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name() != "hubs.lock")
}

/// A worker that has received its task.
#[derive(Debug)]
struct Started {
    process: Child,
    pipe: File,
    received: Vec<u8>,
}

impl Started {
    fn new(state_dir: &Path, work: Work) -> Result<Self, WorkerError> {
        let path = programs::find(WORKER)?;
        let task = Task {
            state_dir: state_dir.to_owned(),
            work,
        };
        start(&path, &task).map_err(|source| WorkerError::Spawn { path, source })
    }

    fn reply<T: DeserializeOwned>(&mut self) -> Option<Result<T, Failure>> {
        let mut buffer = [0; 1024];
        loop {
            match self.pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) if self.received.len() < MAX_REPLY => {
                    self.received.extend_from_slice(&buffer[..count]);
                }
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => break,
            }
        }
        let reply = serde_json::from_slice(&self.received);
        Some(reply.unwrap_or_else(|_| {
            Err(Failure {
                reason: format!("{WORKER} ended without a reply (`oci-hotplug usbip attach` may show why)"),
                is_taken: false,
            })
        }))
    }
}

fn start(path: &Path, task: &Task) -> io::Result<Started> {
    let (stdin, to_worker) = pipe2(OFlag::O_CLOEXEC)?;
    let (from_worker, stdout) = pipe2(OFlag::O_CLOEXEC)?;
    for end in [&to_worker, &from_worker] {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    // Write the task before the worker runs: it is much shorter than the capacity of a pipe
    // (pipe(7): 64 KiB).
    File::from(to_worker).write_all(&serde_json::to_vec(task)?)?;
    let streams = Streams {
        stdin: Some(stdin.as_fd()),
        stdout: Some(stdout.as_fd()),
    };
    Ok(Started {
        process: spawn(path, &[], streams)?,
        pipe: File::from(from_worker),
        received: Vec::new(),
    })
}
