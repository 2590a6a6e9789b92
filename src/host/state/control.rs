//! The watcher's control socket, both ends: one line of JSON is the request, one line of JSON the
//! response, and files may come with the response.
//!
//! Does not know what a request does. Only root has access: the socket has mode 0600, in a
//! directory with mode 0700.

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

/// The maximum length of a request in bytes: 256 device requests of maximum length fit.
const MAX_QUESTION: usize = 1 << 20;

/// A client that does not read its response within this time does not get it, because the watcher
/// has other things to do.
const WRITE_PATIENCE: Duration = Duration::from_millis(500);

/// How many files are sent in one message; the kernel's maximum is 253 (unix(7), SCM_RIGHTS).
const FILES_AT_ONCE: usize = 200;

/// A request to a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum ControlRequest {
    /// Return the state of the container: its requests, attachments and problems.
    Status,
    /// Add device requests. The response comes when the devices that are present are attached.
    Add {
        /// The container that the client means: a watcher of an earlier container with the same id
        /// refuses.
        container: ContainerFacts,
        entries: Vec<RequestEntry>,
        /// Rules for links.
        symlinks: Vec<SymlinkRule>,
    },
    /// Read the configuration again. The response comes when its policy is in force.
    Reload,
    /// Leave the container to the client, which is a new watcher. The response comes when no step
    /// is being carried out.
    HandOver,
    /// Remove device requests. The response comes when the devices that only they had selected are
    /// detached.
    Remove {
        /// The container that the client means, as in [`ControlRequest::Add`].
        container: ContainerFacts,
        /// The requests to remove, equal to those that were added; other requests stay.
        entries: Vec<RequestEntry>,
    },
}

/// The response of a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlResponse {
    /// The request has been carried out.
    Done,
    /// The response to [`ControlRequest::Status`].
    Status(Box<Status>),
    /// The request failed, for this reason.
    Failed(String),
    /// The policy denies the request, for this reason.
    Refused(String),
    /// The watcher is for another container with the same id; the container that the client means
    /// has ended. The client may try again.
    Gone,
    /// The response to [`ControlRequest::HandOver`]: the watcher does nothing more, and ends. The
    /// files of the record lock and of the leases come with the response, in this order, so that
    /// they are never unlocked.
    HandedOver,
}

/// The state of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The watcher's process id.
    pub watcher: i32,
    pub container: ContainerFacts,
    /// The requests, with the devices that they select now.
    pub requests: Vec<RequestEntry>,
    pub attached: Attachments,
    /// The requested devices that are not attached, with the reasons.
    pub problems: Vec<Problem>,
    /// The counters. Absent in responses of older versions.
    #[serde(default)]
    pub counters: Counters,
}

/// A device, node or link that should be in the container and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The path inside the container.
    pub path: PathBuf,
    /// The device, if the problem is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<SysPath>,
    pub reason: String,
    /// Whether this is not a failure: another container holds the device exclusively, and it is
    /// attached when that container releases it.
    #[serde(default)]
    pub waiting: bool,
}

impl Problem {
    /// Groups problems by reason: for each reason all paths, in the order of the problems.
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

/// The first of some paths, with the number of the others.
pub fn first_of(paths: &[&Path]) -> String {
    match paths {
        [] => String::new(),
        [only] => only.display().to_string(),
        [first, others @ ..] => format!("{} +{}", first.display(), others.len()),
    }
}

/// The two ends cannot communicate.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be created.
    #[error("making the control socket in {dir}: {source}", dir = dir.display())]
    Bind { dir: PathBuf, source: io::Error },
    /// No process listens on the socket.
    #[error("sending a request to the watcher in {dir}: {}", told(source, " (it may have ended; see `oci-hotplug list`)"), dir = dir.display())]
    Connect { dir: PathBuf, source: io::Error },
    /// The watcher ended, or did not respond in time.
    #[error("waiting for the response of the watcher in {dir}: {}", told(source, ""), dir = dir.display())]
    NoAnswer { dir: PathBuf, source: io::Error },
}

impl ControlError {
    /// Whether the watcher ended, or was replaced by another one, before it responded: then the
    /// request can be sent again.
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

/// The error for people; `hint` is added unless the time was over.
fn told(error: &io::Error, hint: &str) -> String {
    match error.kind() {
        // A socket whose timeout is over returns EAGAIN (socket(7)).
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

/// A client of the watcher, with what has been read of its request.
#[derive(Debug)]
pub struct ControlClient {
    stream: UnixStream,
    text: Vec<u8>,
}

/// How much of a request has arrived.
#[derive(Debug)]
pub enum Received {
    /// The request is not complete yet.
    Incomplete,
    /// The request is complete.
    Request(ControlRequest),
    /// The client closed the connection or sent an invalid request.
    Closed,
}

/// A path to the socket that is short even if the path of the directory is long (sun_path holds 108
/// bytes, unix(7)).
fn socket_path(dir: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// Connects, and waits no longer than `timeout`. A stopped watcher accepts no connections, and when
/// its queue is full, connect(2) blocks until the socket's send timeout (unix_stream_connect in the
/// kernel's net/unix/af_unix.c).
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
    /// Creates the socket in a container's directory; replaces one that a crashed watcher left.
    ///
    /// # Errors
    /// When the directory cannot be written.
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

    /// The next client that has connected, if any.
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
    /// Reads what has arrived; never waits.
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

    /// Sends the response. A client that has gone or does not read gets none: no other client has
    /// to wait for it.
    pub fn answer(&mut self, answer: &ControlResponse) {
        self.hand_over(answer, &[]);
    }

    /// Sends the response with files; returns whether the client has them. A space, which JSON
    /// allows before a value, carries each batch of files.
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

/// Sends a request to the watcher with this directory, and waits up to `timeout` for the response.
///
/// # Errors
/// When no process listens, the watcher ends meanwhile, or the time is over.
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

/// Sends [`ControlRequest::HandOver`] and returns the files of [`ControlResponse::HandedOver`];
/// `None` if the response is another one. A watcher calls this; it writes the JSON by hand because
/// serialising requests and parsing responses as well would make watchers larger.
///
/// # Errors
/// As [`send_request`].
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

/// Sends one line; returns the line that comes back and the files that come with it.
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

    /// Case newcomer: one denied device with eight nodes printed eight lines.
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
