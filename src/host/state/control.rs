//! The watcher's control socket, both ends: one line of JSON asks, one line of JSON answers, and
//! files may come with it.
//!
//! Must not know what a request does. Only root gets here: the socket is 0600 in a directory of
//! 0700.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::host::container::ContainerFacts;
use crate::model::counters::Counters;
use crate::model::device::SysPath;
use crate::model::plan::attachment::Attachments;
use crate::model::request::entry::RequestEntry;
use crate::model::request::symlink::SymlinkRule;

/// The socket's name in the container's directory.
const SOCKET: &str = "control.sock";

/// The longest question: 256 requests of their greatest length, and some.
const MAX_QUESTION: usize = 1 << 20;

/// A reply that its reader does not take in this time is dropped: the watcher has other things to
/// do.
const WRITE_PATIENCE: Duration = Duration::from_millis(500);

/// How many files go into one message; the kernel takes 253 (unix(7), SCM_RIGHTS).
const FILES_AT_ONCE: usize = 200;

/// What one can ask a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum ControlRequest {
    /// What is inside, what is asked for, and how it goes.
    Status,
    /// Further requests for this container. Answered when the devices that are present are in
    /// place.
    Add {
        /// The container that is meant: a watcher of an earlier container of the same id refuses.
        container: ContainerFacts,
        /// The requests.
        entries: Vec<RequestEntry>,
        /// Rules for further links.
        symlinks: Vec<SymlinkRule>,
    },
    /// Read the configuration again. Answered when its policy is in force.
    Reload,
    /// Leave the container to the asker. Answered when nothing is under way any more.
    HandOver,
    /// Requests of this container that are to be no more. Answered when what only they had selected
    /// is gone.
    Remove {
        /// The container that is meant, as in [`ControlRequest::Add`].
        container: ContainerFacts,
        /// The requests, just as they are asked for; others are left alone.
        entries: Vec<RequestEntry>,
    },
}

/// What a watcher answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlResponse {
    /// It is done.
    Done,
    /// To [`ControlRequest::Status`].
    Status(Box<Status>),
    /// It can't be done, and why.
    Failed(String),
    /// The policy refuses it, and why.
    Refused(String),
    /// The container that is meant is not the one that is watched here: that one is gone, ask
    /// again.
    Gone,
    /// To [`ControlRequest::HandOver`]: it does nothing more, and ends. The files of the record's
    /// lock and of its leases come with it, in this order: nobody else gets in between.
    HandedOver,
}

/// How it goes with one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The watcher's process id.
    pub watcher: i32,
    /// The container.
    pub container: ContainerFacts,
    /// What is asked for, and which devices that selects now.
    pub requests: Vec<RequestEntry>,
    /// What is inside.
    pub attached: Attachments,
    /// What is asked for and can't be inside, and why.
    pub problems: Vec<Problem>,
    /// What has been counted. An older version says nothing of it.
    #[serde(default)]
    pub counters: Counters,
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
    /// Whether nothing is wrong: another container has the device, and it comes when that releases
    /// it.
    #[serde(default)]
    pub waiting: bool,
}

impl Problem {
    /// Problems that have the same reason as one: all paths and the reason, in the order in which
    /// they are met.
    pub fn grouped<'p>(problems: impl IntoIterator<Item = &'p Self>) -> Vec<(Vec<&'p Path>, &'p str)> {
        let mut groups: Vec<(Vec<&Path>, &str)> = Vec::new();
        for problem in problems {
            let path = problem.path.as_path();
            match groups.iter_mut().find(|(_, reason)| *reason == problem.reason) {
                Some((paths, _)) if paths.contains(&path) => {}
                Some((paths, _)) => paths.push(path),
                None => groups.push((vec![path], &problem.reason)),
            }
        }
        groups
    }
}

/// The first of some paths, and how many there are besides.
pub fn first_of(paths: &[&Path]) -> String {
    match paths {
        [] => String::new(),
        [only] => only.display().to_string(),
        [first, others @ ..] => format!("{} +{}", first.display(), others.len()),
    }
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
    #[error("sending a request to the watcher in {dir}: {}", told(source, " (it may have ended; see `oci-hotplug list`)"), dir = dir.display())]
    Connect {
        /// The container's directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The watcher went away, or did not answer in time.
    #[error("waiting for the response of the watcher in {dir}: {}", told(source, ""), dir = dir.display())]
    NoAnswer {
        /// The container's directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ControlError {
    /// Whether the watcher ended, or made room for another, between the question and its answer:
    /// ask again.
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::NoAnswer { source, .. } => matches!(
                source.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ),
            Self::Bind { .. } => false,
        }
    }
}

/// What a failed talk means to people; `hint` belongs to what is no lack of time.
fn told(error: &io::Error, hint: &str) -> String {
    match error.kind() {
        // socket(7): a time limit of a socket that is over is EAGAIN.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "the watcher did not answer in time; it may be stopped or overloaded (`oci-hotplug inspect` shows its process; kill -CONT resumes a stopped one)"
            .to_owned(),
        _ => format!("{error}{hint}"),
    }
}

/// The watcher's end.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
}

/// One asker, of whom a question is or was read.
#[derive(Debug)]
pub struct ControlClient {
    stream: UnixStream,
    text: Vec<u8>,
}

/// How far an asker has come.
#[derive(Debug)]
pub enum Received {
    /// The request is not complete yet.
    Incomplete,
    /// The complete request.
    Request(ControlRequest),
    /// The client closed the connection or sent no valid request: drop it.
    Closed,
}

/// A path to the socket that is short however long the directory's own is (sun_path holds 108
/// bytes, unix(7)).
fn socket_path(dir: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// Connects, and waits for that no longer than `patience`: a watcher that is stopped takes nobody
/// out of its queue, and when that is full, a connection waits for ever, unless sending has a time
/// limit (unix_stream_connect in the kernel's net/unix/af_unix.c).
fn connect_within(path: &std::path::Path, patience: Duration) -> io::Result<UnixStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let stream = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let stream = UnixStream::from(stream);
    stream.set_write_timeout(Some(patience))?;
    connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream)
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
    pub fn accept(&self) -> Option<ControlClient> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(ControlClient {
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

impl AsFd for ControlClient {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl ControlClient {
    /// Reads what has come so far; never waits.
    pub fn hear(&mut self) -> Received {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Received::Closed,
                Ok(count) => self.text.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Incomplete,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Received::Closed,
            }
            if self.text.len() > MAX_QUESTION {
                return Received::Closed;
            }
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                return match serde_json::from_slice(&self.text[..end]) {
                    Ok(question) => Received::Request(question),
                    Err(error) => {
                        self.answer(&ControlResponse::Failed(format!("reading the request: {error}")));
                        Received::Closed
                    }
                };
            }
        }
    }

    /// Sends the answer. An asker that is gone, or does not read, goes without: nobody else is to
    /// wait for it.
    pub fn answer(&mut self, answer: &ControlResponse) {
        self.hand_over(answer, &[]);
    }

    /// Sends the answer with files; whether the asker has them. A blank goes before the text with
    /// each lot of files: JSON allows it.
    pub fn hand_over(&mut self, answer: &ControlResponse, files: &[BorrowedFd<'_>]) -> bool {
        let send = || -> io::Result<()> {
            let mut text = serde_json::to_vec(answer)?;
            text.push(b'\n');
            self.stream.set_nonblocking(false)?;
            self.stream.set_write_timeout(Some(WRITE_PATIENCE))?;
            for lot in files.chunks(FILES_AT_ONCE) {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_AT_ONCE))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                ancillary.push(SendAncillaryMessage::ScmRights(lot));
                sendmsg(
                    &self.stream,
                    &[IoSlice::new(b" ")],
                    &mut ancillary,
                    SendFlags::NOSIGNAL,
                )?;
            }
            (&self.stream).write_all(&text)
        };
        let outcome = send();
        if let Err(error) = &outcome {
            tracing::debug!(%error, "a client did not read its response");
        }
        outcome.is_ok()
    }
}

/// Requests the watcher of the container whose directory this is, and waits up to `patience` for
/// the answer.
///
/// # Errors
/// When nobody listens, the watcher ends meanwhile, or the time is over.
pub fn ask(
    dir: &std::path::Path,
    question: &ControlRequest,
    patience: Duration,
) -> Result<ControlResponse, ControlError> {
    let malformed = |error: serde_json::Error| no_answer(dir, error.into());
    let text = serde_json::to_vec(question).map_err(malformed)?;
    let (answer, _) = talk(dir, text, patience)?;
    serde_json::from_slice(&answer).map_err(malformed)
}

/// Requests as [`ControlRequest::HandOver`]. The files of [`ControlResponse::HandedOver`]; `None`
/// when it has another answer. (A watcher asks, which would grow if it knew questions and answers
/// from both ends.)
///
/// # Errors
/// As [`ask`].
pub fn ask_to_leave(dir: &std::path::Path, patience: Duration) -> Result<Option<Vec<File>>, ControlError> {
    let (answer, files) = talk(dir, br#"{"verb":"hand-over"}"#.to_vec(), patience)?;
    Ok((answer.trim_ascii() == br#""handed-over""#).then_some(files))
}

fn no_answer(dir: &std::path::Path, source: io::Error) -> ControlError {
    ControlError::NoAnswer {
        dir: dir.to_owned(),
        source,
    }
}

/// One line there, one line back, and the files that came with it.
fn talk(
    dir: &std::path::Path,
    mut question: Vec<u8>,
    patience: Duration,
) -> Result<(Vec<u8>, Vec<File>), ControlError> {
    let connect = || {
        let dir_fd = std::fs::File::open(dir)?;
        connect_within(&socket_path(dir_fd.as_fd()), patience)
    };
    let mut stream = connect().map_err(|source| ControlError::Connect {
        dir: dir.to_owned(),
        source,
    })?;
    question.push(b'\n');
    let mut talk = || -> io::Result<(Vec<u8>, Vec<File>)> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.write_all(&question)?;
        receive(&stream)
    };
    talk().map_err(|source| no_answer(dir, source))
}

/// Reads up to the end of the line, and takes the files that come with it.
fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<File>)> {
    let (mut line, mut files) = (Vec::new(), Vec::new());
    let mut buffer = [0; 4096];
    while line.last() != Some(&b'\n') {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_AT_ONCE))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let received = match recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                files.extend(more.map(File::from));
            }
        }
        if received.bytes == 0 {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the watcher ended without a response",
            ));
        }
        line.extend_from_slice(&buffer[..received.bytes]);
    }
    Ok((line, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case newcomer: one refusal prints a line for each of eight nodes.
    #[test]
    fn problems_of_one_reason_are_grouped() {
        let problem = |path: &str, reason: &str| Problem {
            path: path.into(),
            device: None,
            reason: reason.into(),
            waiting: false,
        };
        let problems = [
            problem("/dev/a", "no"),
            problem("/dev/b", "never"),
            problem("/dev/c", "no"),
            problem("/dev/c", "no"),
        ];
        let groups: Vec<String> = Problem::grouped(&problems)
            .iter()
            .map(|(paths, reason)| format!("{}: {reason}", first_of(paths)))
            .collect();
        assert_eq!(groups, ["/dev/a +1: no", "/dev/b: never"]);
    }

    #[test]
    fn the_words_between_two_watchers_are_those_of_all() {
        let question: ControlRequest = serde_json::from_str(r#"{"verb":"hand-over"}"#).unwrap();
        assert_eq!(question, ControlRequest::HandOver);
        assert_eq!(
            serde_json::to_string(&ControlResponse::HandedOver).unwrap(),
            r#""handed-over""#
        );
    }

    #[test]
    fn files_come_with_the_answer_however_many_and_it_is_known_where_they_lead() {
        let dir = tempfile::tempdir().unwrap();
        let dir_fd = File::open(dir.path()).unwrap();
        let socket = ControlSocket::bind(dir_fd.as_fd(), dir.path()).unwrap();
        let paths: Vec<PathBuf> = (0..450)
            .map(|number| dir.path().join(number.to_string()))
            .collect();
        let files: Vec<File> = paths.iter().map(|path| File::create(path).unwrap()).collect();
        let place = dir.path().to_owned();
        let asker = std::thread::spawn(move || ask_to_leave(&place, Duration::from_secs(10)));
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let mut heard = loop {
            if let Some(heard) = socket.accept() {
                break heard;
            }
            assert!(std::time::Instant::now() < deadline, "nobody asks");
            std::thread::yield_now();
        };
        while !matches!(heard.hear(), Received::Request(ControlRequest::HandOver)) {
            assert!(std::time::Instant::now() < deadline, "nothing is asked");
        }
        let all: Vec<_> = files.iter().map(File::as_fd).collect();
        assert!(heard.hand_over(&ControlResponse::HandedOver, &all));
        let given = asker.join().unwrap().unwrap().unwrap();
        let leads_to =
            |file: &File| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        assert_eq!(given.iter().map(leads_to).collect::<Vec<_>>(), paths);
    }
}
