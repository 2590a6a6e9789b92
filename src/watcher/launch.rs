//! Starts a container's watcher, and waits until it is ready.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::programs::{self, ProgramError};
use crate::host::spawn::{Child, ChildState, Streams, spawn};
use crate::host::state::control::ControlResponse;
use crate::host::state::record_lock::RecordLock;
use crate::host::state::registry::Registry;
use crate::model::oci::ContainerId;

/// The watcher's executable.
const WATCHER: &str = "oci-hotplug-watcher";

/// A watcher cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The executable is missing.
    #[error("cannot start the watcher: {0}")]
    Absent(#[from] ProgramError),
    /// The executable cannot be started.
    #[error("cannot start the watcher {path}: {source}", path = path.display())]
    Spawn { path: PathBuf, source: io::Error },
    /// The watcher ended instead of responding.
    #[error(
        "cannot start the watcher: it ended before it was ready (the log shows why: journalctl -t {WATCHER}, or oci-hotplug.log in the state directory)"
    )]
    Ended,
    /// The watcher did not respond in time.
    #[error(
        "cannot start the watcher: not ready after {0:?} (`oci-hotplug inspect` shows what it waits for)"
    )]
    Late(Duration),
    /// The pipe to the watcher failed.
    #[error("cannot wait for the watcher: {0}")]
    Pipe(#[from] io::Error),
}

/// How long a watcher may take that only revokes the access of a container that has ended.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(2);

/// The interval at which such a watcher is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// Starts a watcher that revokes the access of a container that has ended and whose watcher was
/// killed, and removes the record. The hooks, which are small, do not contain the code for cgroups.
/// Returns whether it is done; errors are in the log.
pub(crate) fn revoke_leftovers(registry: &Registry, id: &ContainerId) -> bool {
    let mut watcher = match launch_successor(registry, id) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(container = %id, "{error}");
            return false;
        }
    };
    let deadline = Instant::now() + REVOKE_TIMEOUT;
    while registry.container_dir(id).exists() && Instant::now() < deadline {
        if watcher.state() != ChildState::Running {
            break;
        }
        std::thread::sleep(CHECK_INTERVAL);
    }
    !registry.container_dir(id).exists()
}

/// Starts the watcher of an enrolled container, hands over the lock, and returns its first
/// response. `config` is the absolute path of the configuration to read; `None` = the default one.
///
/// The watcher's standard input is the lock, and its standard output a pipe for the response. It
/// inherits no environment and no other descriptor of the hook. It changes its working directory
/// itself (`detach`).
///
/// # Errors
/// When it cannot be started, ends, or is not ready before the timeout; then it is killed.
pub(crate) fn launch(
    registry: &Registry,
    id: &ContainerId,
    lock: &RecordLock,
    config: Option<&Path>,
    timeout: Duration,
) -> Result<ControlResponse, LaunchError> {
    let path = programs::find(WATCHER)?;
    let (ready, write_end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    let mut arguments = vec![OsStr::new("--state-dir"), registry.root().as_os_str()];
    if let Some(config) = config {
        arguments.extend([OsStr::new("--config"), config.as_os_str()]);
    }
    arguments.extend(["--handed-over", "--", id.as_str()].map(OsStr::new));
    let streams = Streams {
        stdin: Some(lock.file().as_fd()),
        stdout: Some(write_end.as_fd()),
    };
    let mut child =
        spawn(&path, &arguments, streams).map_err(|source| LaunchError::Spawn { path, source })?;
    // If we kept this copy open, the pipe would not end with the watcher.
    drop(write_end);
    let response = read_response(File::from(ready), timeout);
    if response.is_err() {
        child.kill_and_wait();
    }
    response
}

/// Starts a watcher for an enrolled container that takes over from its current watcher, if there is
/// one. It is ready when it responds on the control socket.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn launch_successor(registry: &Registry, id: &ContainerId) -> Result<Child, LaunchError> {
    let path = programs::find(WATCHER)?;
    let arguments = [
        OsStr::new("--state-dir"),
        registry.root().as_os_str(),
        OsStr::new("--take-over"),
        OsStr::new("--"),
        OsStr::new(id.as_str()),
    ];
    spawn(&path, &arguments, Streams::default()).map_err(|source| LaunchError::Spawn { path, source })
}

fn read_response(mut ready: File, timeout: Duration) -> Result<ControlResponse, LaunchError> {
    let deadline = Instant::now() + timeout;
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let poll_timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(ready.as_fd(), PollFlags::POLLIN)], poll_timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(LaunchError::Pipe(error.into())),
            Ok(0) => return Err(LaunchError::Late(timeout)),
            Ok(_) => {}
        }
        match ready.read(&mut buffer)? {
            0 => return Err(LaunchError::Ended),
            count => text.extend_from_slice(&buffer[..count]),
        }
        if text.ends_with(b"\n") {
            return serde_json::from_slice(&text).map_err(|error| LaunchError::Pipe(error.into()));
        }
    }
}
