//! Starts a container's watcher, and waits until it says that it is ready.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::container::ContainerFacts;
use crate::host::programs::{self, ProgramError};
use crate::host::spawn::{Child, ChildState, Streams, spawn};
use crate::host::state::control::{self, ControlError, ControlRequest, ControlResponse};
use crate::host::state::error::RegistryError;
use crate::host::state::leftovers;
use crate::host::state::record::RecordedInit;
use crate::host::state::record_lock::RecordLock;
use crate::host::state::registry::Registry;
use crate::model::oci::ContainerId;

/// The watcher's executable.
const WATCHER: &str = "oci-hotplug-watcher";

/// How long to pause before asking a watcher again that is just starting or ending.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// How long the init of the previous run of a container may take to end. crun's `delete --force` returns before the killed
/// process has ended.
const DYING: Duration = Duration::from_secs(2);

/// Why there is no watcher.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Nothing to start.
    #[error("starting the watcher: {0}")]
    Absent(#[from] ProgramError),
    /// It can't be started.
    #[error("starting the watcher {path}: {source}", path = path.display())]
    Spawn {
        /// The executable.
        path: PathBuf,
        /// Why it did not start.
        source: io::Error,
    },
    /// It ended instead of answering.
    #[error(
        "starting the watcher: it ended before it was ready (the log tells why: journalctl -t {WATCHER}, or oci-hotplug.log in the state directory)"
    )]
    Ended,
    /// It did not answer in time.
    #[error("starting the watcher: not ready after {0:?} (`oci-hotplug inspect` tells what it waits for)")]
    Late(Duration),
    /// The pipe between us failed.
    #[error("waiting for the watcher: {0}")]
    Pipe(#[from] io::Error),
}

/// Sends `question` to the watcher of `container`; where there is none, enrolls the container and calls `start` with the
/// lock and the time that is left. Returns [`ControlResponse::Gone`] when the watcher of an earlier container of this id is still
/// there at the deadline.
///
/// # Errors
/// [`RegistryError::IdInUse`] at once when the id belongs to another container that runs. When the state directory can't be
/// used, the watcher doesn't answer in time, or `start` fails.
pub fn ask_or_start<E: From<RegistryError> + From<ControlError>>(
    registry: &Registry,
    id: &ContainerId,
    container: &ContainerFacts,
    question: &ControlRequest,
    deadline: Instant,
    start: impl FnOnce(RecordLock, Duration) -> Result<ControlResponse, E>,
) -> Result<ControlResponse, E> {
    let mut is_clean = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if let Some(lock) = registry.try_enroll(id)? {
            let before = lock.recorded_init();
            check_id(before.clone(), container)?;
            let is_other = before.is_some_and(|init| !init.is_of(container));
            if is_other && !is_clean && leftovers::is_in_force(&lock) {
                drop(lock);
                is_clean = true;
                take_back(registry, id);
                continue;
            }
            return start(lock, left);
        }
        check_id(registry.recorded_init(id), container)?;
        match control::ask(&registry.container_dir(id), question, left.max(ASK_AGAIN)) {
            Ok(ControlResponse::Gone) if left > ASK_AGAIN => {}
            // It is just starting or ending, or makes room for the one that comes next.
            Err(error) if error.is_ended() && left > ASK_AGAIN => {}
            answer => return Ok(answer?),
        }
        std::thread::sleep(ASK_AGAIN);
    }
}

/// How long a watcher may take that only takes back what a container had that has ended.
const REVOCATION: Duration = Duration::from_secs(2);

/// Has the grants of a container that has ended, and whose watcher was killed, taken back, and its record removed. That is a
/// watcher's work: hooks are small, and change nothing in cgroups. Whether it is done; what fails is in the log.
pub fn take_back(registry: &Registry, id: &ContainerId) -> bool {
    let mut watcher = match succeed(registry, id) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(container = %id, "{error}");
            return false;
        }
    };
    let deadline = Instant::now() + REVOCATION;
    while registry.container_dir(id).exists() && Instant::now() < deadline {
        if watcher.state() != ChildState::Running {
            break;
        }
        std::thread::sleep(ASK_AGAIN);
    }
    !registry.container_dir(id).exists()
}

/// Whether the id is free for `container`: an enrolled container with another init has ended. An init with the same bundle is
/// that of the previous run, which may be about to end.
///
/// # Errors
/// [`RegistryError::IdInUse`].
fn check_id(enrolled: Option<RecordedInit>, container: &ContainerFacts) -> Result<(), RegistryError> {
    let Some(other) = enrolled.filter(|init| !init.is_of(container)) else {
        return Ok(());
    };
    let patience = if other.bundle == container.bundle {
        DYING
    } else {
        Duration::ZERO
    };
    match other.running() {
        Some(process) if !process.wait(patience) => Err(RegistryError::IdInUse {
            id: container.id.clone(),
            pid: other.pid,
            bundle: other.bundle,
        }),
        _ => Ok(()),
    }
}

/// Starts the watcher of a container that is enrolled, hands it the lock, and returns its first word. `config` is
/// the configuration that it reads, where one was named: absolute.
///
/// The watcher is given the lock as its standard input and a pipe for its answer as its standard output, and
/// nothing else: no environment or descriptor of the hook. It leaves the hook's working directory by itself (`detach`).
///
/// # Errors
/// When it can't be started, ends, or is not ready within `patience`; then it is stopped again.
pub fn launch(
    registry: &Registry,
    id: &ContainerId,
    lock: &RecordLock,
    config: Option<&Path>,
    patience: Duration,
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
    // With our copy open, the end of the watcher would not end the pipe.
    drop(write_end);
    let answer = read_answer(File::from(ready), patience);
    if answer.is_err() {
        child.kill_and_wait();
    }
    answer
}

/// Starts a watcher for a container that is enrolled, in place of the one that is there, if one is. It is ready when it
/// answers at the control socket. Nothing of this process goes with it.
///
/// # Errors
/// When it can't be started.
pub fn succeed(registry: &Registry, id: &ContainerId) -> Result<Child, LaunchError> {
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

fn read_answer(mut ready: File, patience: Duration) -> Result<ControlResponse, LaunchError> {
    let deadline = Instant::now() + patience;
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(ready.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(LaunchError::Pipe(error.into())),
            Ok(0) => return Err(LaunchError::Late(patience)),
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
