//! The watcher's end of the control socket. Never waits for a client to send something.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::error::ControlError;
use super::message::{ControlRequest, ControlResponse};
use super::protocol::{FILES_AT_ONCE, socket_path};

/// The maximum length of a request in bytes: 256 device requests of maximum length fit.
const MAX_REQUEST: usize = 1 << 20;

/// A client that does not read its response within this time does not get it, because the watcher
/// has other things to do.
const WRITE_TIMEOUT: Duration = Duration::from_millis(500);

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

impl ControlSocket {
    /// Creates the socket in a container's directory; replaces one that a crashed watcher left.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn bind(dir: BorrowedFd<'_>, name: &Path) -> Result<Self, ControlError> {
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
    pub fn receive(&mut self) -> Received {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Received::Closed,
                Ok(count) => self.text.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Incomplete,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Received::Closed,
            }
            if self.text.len() > MAX_REQUEST {
                return Received::Closed;
            }
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                return match serde_json::from_slice(&self.text[..end]) {
                    Ok(request) => Received::Request(request),
                    Err(error) => {
                        self.respond(&ControlResponse::Failed(format!(
                            "cannot read the request: {error}"
                        )));
                        Received::Closed
                    }
                };
            }
        }
    }

    /// Sends the response. A client that has gone or does not read gets none: no other client has
    /// to wait for it.
    pub fn respond(&mut self, response: &ControlResponse) {
        self.hand_over(response, &[]);
    }

    /// Sends the response with files; returns whether the client has them. A space, which JSON
    /// allows before a value, carries each batch of files.
    pub fn hand_over(&mut self, response: &ControlResponse, files: &[BorrowedFd<'_>]) -> bool {
        let send = || -> io::Result<()> {
            let mut text = serde_json::to_vec(response)?;
            text.push(b'\n');
            self.stream.set_nonblocking(false)?;
            self.stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
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
