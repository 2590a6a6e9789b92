//! Starts a container's watcher, and waits until it says that it is ready.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::control::Answer;
use crate::host::registry::{RecordLock, Registry};
use crate::model::oci::ContainerId;

/// The watcher's executable: it lives beside the hook's.
const WATCHER: &str = "oci-hotplug-watcher";

/// Where install.sh and packages put the hooks and the watcher.
const HOOK_DIR: &str = "/usr/libexec/oci/hooks.d";

/// Why there is no watcher.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Nothing to start.
    #[error("starting the watcher {path}: {source} (it is installed beside the hooks)", path = path.display())]
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

/// Starts the watcher of a container that is enrolled, hands it the lock, and returns its first word. `config` is
/// the configuration that it reads, where one was named: absolute.
///
/// The watcher is given the lock as its standard input and a pipe for its answer as its standard output, and
/// nothing else: no environment, working directory or descriptor of the hook.
///
/// # Errors
/// When it can't be started, ends, or is not ready within `patience`; then it is stopped again.
pub fn launch(
    registry: &Registry,
    id: &ContainerId,
    lock: &RecordLock,
    config: Option<&Path>,
    patience: Duration,
) -> Result<Answer, LaunchError> {
    let path = executable()?;
    let (ready, write_end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    let mut command = Command::new(&path);
    command.arg("--state-dir").arg(registry.root());
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let mut child = command
        .arg("--handed-over")
        .arg(id.as_str())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(lock.file().try_clone()?))
        .stdout(Stdio::from(write_end))
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| LaunchError::Spawn { path, source })?;
    let answer = read_answer(File::from(ready), patience);
    if answer.is_err() {
        // It is our own child, not yet waited for: the number is surely still its own.
        let _ = child.kill();
        let _ = child.wait();
    }
    answer
}

fn executable() -> Result<PathBuf, LaunchError> {
    let mut path = std::fs::read_link("/proc/self/exe")?;
    path.set_file_name(WATCHER);
    let installed = Path::new(HOOK_DIR).join(WATCHER);
    // The operator's tool is installed elsewhere.
    if !path.exists() && installed.exists() {
        return Ok(installed);
    }
    Ok(path)
}

fn read_answer(mut ready: File, patience: Duration) -> Result<Answer, LaunchError> {
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
