//! The watcher's control socket, both ends: one line of JSON asks, one line of JSON answers.
//!
//! Must not know what a request does. Only root gets here: the socket is 0600 in a directory of 0700.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::container::ContainerFacts;
use crate::model::asked::Asked;
use crate::model::attachment::Attachments;
use crate::model::device::SysPath;
use crate::model::symlink::SymlinkRule;

/// The socket's name in the container's directory.
const SOCKET: &str = "control.sock";

/// The longest question: 256 requests of their greatest length, and some.
const MAX_QUESTION: usize = 1 << 20;

/// A reply that its reader does not take in this time is dropped: the watcher has other things to do.
const WRITE_PATIENCE: Duration = Duration::from_millis(500);

/// What one can ask a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Question {
    /// What is inside, what is asked for, and how it goes.
    Status,
    /// Further requests for this container. Answered when the devices that are present are in place.
    Add {
        /// The container that is meant: a watcher of an earlier container of the same id refuses.
        container: ContainerFacts,
        /// The requests.
        asked: Vec<Asked>,
        /// Rules for further links.
        symlinks: Vec<SymlinkRule>,
    },
    /// Requests of this container that are to be no more. Answered when what only they had selected is gone.
    Remove {
        /// The container that is meant, as in [`Question::Add`].
        container: ContainerFacts,
        /// The requests, just as they are asked for; others are left alone.
        asked: Vec<Asked>,
    },
}

/// What a watcher answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It is done.
    Done,
    /// To [`Question::Status`].
    Status(Box<Status>),
    /// It can't be done, and why.
    Failed(String),
    /// The policy refuses it, and why.
    Refused(String),
    /// The container that is meant is not the one that is watched here: that one is gone, ask again.
    Gone,
}

/// How it goes with one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The watcher's process id.
    pub watcher: i32,
    /// The container.
    pub container: ContainerFacts,
    /// What is asked for, and which devices that selects now.
    pub asked: Vec<Asked>,
    /// What is inside.
    pub attached: Attachments,
    /// What is asked for and can't be inside, and why.
    pub problems: Vec<Problem>,
}

/// A device, node or link that should be inside and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The path inside the container.
    pub path: PathBuf,
    /// The device, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<SysPath>,
    /// Why.
    pub reason: String,
}

/// What can go wrong between the two ends.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket could not be made.
    #[error("making the control socket in {dir}: {source}", dir = dir.display())]
    Bind {
        /// The container's directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens.
    #[error("asking the watcher in {dir}: {source} (it may have ended: `oci-hotplug list` tells)", dir = dir.display())]
    Connect {
        /// The container's directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The watcher went away, or did not answer in time.
    #[error("waiting for the watcher's answer in {dir}: {source}", dir = dir.display())]
    NoAnswer {
        /// The container's directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The watcher's end.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
}

/// One asker, of whom a question is or was read.
#[derive(Debug)]
pub struct Asker {
    stream: UnixStream,
    text: Vec<u8>,
}

/// How far an asker has come.
#[derive(Debug)]
pub enum Heard {
    /// The question is not whole yet.
    Nothing,
    /// The whole question.
    Question(Question),
    /// It hung up, or talks nonsense: drop it.
    Over,
}

/// A path to the socket that is short however long the directory's own is (sun_path holds 108 bytes, unix(7)).
fn socket_path(dir: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

impl ControlSocket {
    /// Makes the socket in a container's directory, in place of one that a dead watcher left.
    ///
    /// # Errors
    /// When the directory can't be written.
    pub fn bind(dir: BorrowedFd<'_>, name: &std::path::Path) -> Result<Self, ControlError> {
        let path = socket_path(dir);
        let bind = || {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok(Self { listener })
        };
        bind().map_err(|source| ControlError::Bind {
            dir: name.to_owned(),
            source,
        })
    }

    /// The next asker, if one waits.
    pub fn accept(&self) -> Option<Asker> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(Asker {
            stream,
            text: Vec::new(),
        })
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl AsFd for Asker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Asker {
    /// Reads what has come so far; never waits.
    pub fn hear(&mut self) -> Heard {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Heard::Over,
                Ok(count) => self.text.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Heard::Over,
            }
            if self.text.len() > MAX_QUESTION {
                return Heard::Over;
            }
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                return match serde_json::from_slice(&self.text[..end]) {
                    Ok(question) => Heard::Question(question),
                    Err(error) => {
                        self.answer(&Answer::Failed(format!("reading the question: {error}")));
                        Heard::Over
                    }
                };
            }
        }
    }

    /// Sends the answer. An asker that is gone, or does not read, goes without: nobody else is to wait for it.
    pub fn answer(&mut self, answer: &Answer) {
        let Ok(mut text) = serde_json::to_vec(answer) else {
            return;
        };
        text.push(b'\n');
        let send = || -> io::Result<()> {
            self.stream.set_nonblocking(false)?;
            self.stream.set_write_timeout(Some(WRITE_PATIENCE))?;
            (&self.stream).write_all(&text)
        };
        if let Err(error) = send() {
            tracing::debug!(%error, "an asker did not take its answer");
        }
    }
}

/// Asks the watcher of the container whose directory this is, and waits up to `patience` for the answer.
///
/// # Errors
/// When nobody listens, the watcher ends meanwhile, or the time is over.
pub fn ask(dir: &std::path::Path, question: &Question, patience: Duration) -> Result<Answer, ControlError> {
    let connect = || {
        let dir_fd = std::fs::File::open(dir)?;
        UnixStream::connect(socket_path(dir_fd.as_fd()))
    };
    let mut stream = connect().map_err(|source| ControlError::Connect {
        dir: dir.to_owned(),
        source,
    })?;
    let mut talk = || -> io::Result<Answer> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut text = serde_json::to_vec(question)?;
        text.push(b'\n');
        stream.write_all(&text)?;
        let mut line = String::new();
        if BufReader::new(&stream).read_line(&mut line)? == 0 {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "it ended without an answer",
            ));
        }
        Ok(serde_json::from_str(&line)?)
    };
    talk().map_err(|source| ControlError::NoAnswer {
        dir: dir.to_owned(),
        source,
    })
}
