//! Attaching for a container's watcher, in a process of its own: `oci-hotplug usbip attach --owner ID`.
//!
//! A server that hangs can stop whoever configures its device in the kernel, beyond all signals, until the device is taken
//! away again. That must be neither a watcher, which has others' devices to see to, nor one of its threads, which would
//! keep the container's lock. What is attached stays so when the process ends: the kernel has the connection, and its
//! `remove` event tells the watcher of the end of it. So nothing runs while all is well.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use serde::{Deserialize, Serialize};

use super::client::ClientError;
use super::records::Record;
use super::{Attached, Last, UsbipError};
use crate::host::programs::{self, ProgramError};
use crate::host::state::trust;
use crate::model::device::SysPath;
use crate::model::remote::{Bound, RemoteDevice, Which};

/// The executable.
const TOOL: &str = "oci-hotplug";
/// The longest answer that is read, in bytes.
const MAX_WORD: usize = 64 * 1024;
/// How long giving back may take at a container's end. Seen: 0.4 s.
pub const GIVE_BACK: Duration = Duration::from_secs(3);
/// How often a bounded wait looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A process can't be started.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Nothing to start.
    #[error(transparent)]
    Absent(#[from] ProgramError),
    /// The system refuses.
    #[error("starting {path}: {source}", path = path.display())]
    Spawn {
        /// The executable.
        path: PathBuf,
        /// Why it did not start.
        source: io::Error,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// It is attached.
    Attached {
        /// Where.
        bound: Bound,
        /// What a person should know of how.
        note: Option<String>,
    },
    /// It is not.
    Failed {
        /// Why.
        reason: String,
        /// Whether somebody has it who may let it go soon.
        taken: bool,
    },
}

impl Word {
    /// An outcome, for the watcher.
    pub fn of(outcome: Result<Attached, UsbipError>) -> Self {
        match outcome {
            Ok(attached) => bound(&attached).map_or_else(
                || Self::Failed {
                    reason: "the device went as soon as it had come".into(),
                    taken: false,
                },
                |bound| Self::Attached {
                    bound,
                    note: attached.record.as_ref().and_then(Record::note),
                },
            ),
            Err(error) => Self::Failed {
                taken: matches!(
                    error,
                    UsbipError::AlreadyAttached { .. }
                        | UsbipError::InProgress { .. }
                        | UsbipError::Client(ClientError::Busy { .. } | ClientError::Refused { .. })
                ),
                reason: error.to_string(),
            },
        }
    }
}

/// Which device it is, for a container.
pub(super) fn bound(attached: &Attached) -> Option<Bound> {
    let (device, record) = (attached.device.as_ref()?, attached.record.as_ref()?);
    let Which::BusId(busid) = &record.remote.which else {
        return None;
    };
    let last = Last {
        busid: busid.clone(),
        port: record.port,
        local_port: record.local_port,
    };
    Some(Bound {
        syspath: SysPath::new(device.dir.to_str()?),
        num: device.raw_node()?,
        last: last.to_string(),
    })
}

/// One that is at work. Dropped, it is killed; what it began is for the next one, or for [`release`].
#[derive(Debug)]
pub struct Worker {
    process: Process,
    pipe: File,
    said: Vec<u8>,
}

impl Worker {
    /// Starts to attach a device for a container. `last` is the last of the [`Bound`] before.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn attach(
        state_dir: &Path,
        device: &RemoteDevice,
        owner: &str,
        last: Option<&str>,
        patience: Duration,
    ) -> Result<Self, WorkerError> {
        let mut arguments = vec!["attach".to_owned(), format!("--owner={owner}")];
        arguments.push(format!("--timeout={}", patience.as_secs().max(1)));
        arguments.extend(last.map(|last| format!("--last={last}")));
        arguments.extend(["--".to_owned(), device.to_string()]);
        let (pipe, write_end) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        let process = Process::start(state_dir, &arguments, Some(write_end.as_fd()))?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
        Ok(Self {
            process,
            pipe: File::from(pipe),
            said: Vec::new(),
        })
    }

    /// What it has said; `None` while it is at work. Never waits.
    pub fn hear(&mut self) -> Option<Word> {
        let mut buffer = [0; 1024];
        loop {
            match self.pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) if self.said.len() < MAX_WORD => self.said.extend_from_slice(&buffer[..count]),
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => break,
            }
        }
        let word = serde_json::from_slice(&self.said);
        Some(word.unwrap_or_else(|_| Word::Failed {
            reason: "the process that was to attach it ended without a word (`oci-hotplug usbip attach` may tell why)"
                .into(),
            taken: false,
        }))
    }
}

impl AsFd for Worker {
    /// Readable when there is something to hear.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.process.kill();
        // One that is stuck in the kernel is not waited for.
        self.process.ended_within(4 * LOOK_AGAIN);
    }
}

/// Whether this host has anything attached, or begun to: beside the one lock that stays, there is a file.
fn is_in_use(state_dir: &Path) -> bool {
    let entries = std::fs::read_dir(state_dir.join("usbip")).into_iter().flatten();
    entries.flatten().any(|entry| entry.file_name() != "hubs.lock")
}

/// What is to be given back.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// All of the containers that are gone.
    Strays,
    /// All of this container.
    All(&'a str),
    /// One of its devices.
    One(&'a str, &'a RemoteDevice),
    /// What was begun for it, and not ended.
    Begun(&'a str),
}

/// Gives back what was attached for containers, and waits for that for so long.
pub fn release(state_dir: &Path, what: What<'_>, patience: Duration) {
    // What strangers wrote there is nobody's.
    if trust::check(state_dir).is_err() || !is_in_use(state_dir) {
        return;
    }
    let mut arguments = vec!["release".to_owned()];
    if let What::All(owner) | What::One(owner, _) | What::Begun(owner) = what {
        arguments.push(format!("--owner={owner}"));
    }
    match what {
        What::One(_, device) => arguments.push(format!("--device={device}")),
        What::Begun(_) => arguments.push("--begun".into()),
        What::Strays | What::All(_) => {}
    }
    match Process::start(state_dir, &arguments, None) {
        Ok(mut process) => {
            if !process.ended_within(patience) {
                tracing::warn!("usbip: the kernel does not let go of a remote device within {patience:?}");
            }
        }
        Err(error) => tracing::error!("giving a remote device back: {error}"),
    }
}

fn failed(source: nix::errno::Errno) -> WorkerError {
    WorkerError::Spawn {
        path: TOOL.into(),
        source: source.into(),
    }
}

/// A process of ours, not yet waited for: its number is surely its own. (`std::process` would be 40 KiB of the watcher.)
#[derive(Debug)]
struct Process {
    pid: Pid,
    has_ended: bool,
}

impl Process {
    /// Starts `oci-hotplug usbip` with these arguments, and nothing of ours but its standard output.
    fn start(
        state_dir: &Path,
        arguments: &[String],
        output: Option<BorrowedFd<'_>>,
    ) -> Result<Self, WorkerError> {
        let path = programs::find(TOOL)?;
        let spawn = || -> nix::Result<Pid> {
            let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| nix::errno::Errno::EINVAL);
            let mut words = vec![text(TOOL.as_bytes())?, text(b"--state-dir")?];
            words.push(text(state_dir.as_os_str().as_bytes())?);
            words.push(text(b"usbip")?);
            for argument in arguments {
                words.push(text(argument.as_bytes())?);
            }
            let mut actions = PosixSpawnFileActions::init()?;
            let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
            for standard in [0, 2] {
                actions.add_dup2(null.as_raw_fd(), standard)?;
            }
            let output = output.map_or(null.as_raw_fd(), |output| output.as_raw_fd());
            actions.add_dup2(output, 1)?;
            // A watcher has signals blocked, for its signalfd.
            let mut attributes = PosixSpawnAttr::init()?;
            attributes.set_flags(
                PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
            )?;
            attributes.set_sigmask(&SigSet::empty())?;
            let mut pipe = SigSet::empty();
            pipe.add(Signal::SIGPIPE);
            attributes.set_sigdefault(&pipe)?;
            posix_spawn(path.as_path(), &actions, &attributes, &words, &[] as &[&CStr])
        };
        match spawn() {
            Ok(pid) => Ok(Self {
                pid,
                has_ended: false,
            }),
            Err(error) => Err(WorkerError::Spawn {
                source: error.into(),
                path,
            }),
        }
    }

    fn kill(&mut self) {
        if !self.has_ended() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    fn has_ended(&mut self) -> bool {
        let is_alive = || {
            matches!(
                waitpid(self.pid, Some(WaitPidFlag::WNOHANG)),
                Ok(WaitStatus::StillAlive)
            )
        };
        self.has_ended = self.has_ended || !is_alive();
        self.has_ended
    }

    fn ended_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            if self.has_ended() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}
