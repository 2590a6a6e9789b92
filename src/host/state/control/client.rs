//! The client's end of the control socket: the command line, hooks, and the next watcher.

use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::error::ControlError;
use super::message::{ControlRequest, ControlResponse};
use super::protocol::{FILES_AT_ONCE, socket_path};
use crate::host::file_system::open_directory;

/// Connects, and waits no longer than `timeout`. A stopped watcher accepts no connections, and when
/// its queue is full, connect(2) blocks until the socket's send timeout (unix_stream_connect in the
/// kernel's net/unix/af_unix.c).
fn connect_within(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let stream = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let stream = UnixStream::from(stream);
    stream.set_write_timeout(Some(timeout))?;
    connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream)
}

/// Sends a request to the watcher with this directory, and waits up to `timeout` for the response.
///
/// # Errors
/// When no process listens, the watcher ends meanwhile, or the time is over.
pub fn send_request(
    dir: &Path,
    request: &ControlRequest,
    timeout: Duration,
) -> Result<ControlResponse, ControlError> {
    let malformed = |error: serde_json::Error| no_response(dir, error.into());
    let text = serde_json::to_vec(request).map_err(malformed)?;
    let (response, _) = exchange(dir, text, timeout)?;
    serde_json::from_slice(&response).map_err(malformed)
}

/// Sends [`ControlRequest::HandOver`] and returns the files of [`ControlResponse::HandedOver`];
/// `None` if the response is another one. A watcher calls this; it writes the JSON by hand because
/// serialising requests and parsing responses as well would make watchers larger.
///
/// # Errors
/// As [`send_request`].
pub fn request_handover(dir: &Path, timeout: Duration) -> Result<Option<Vec<File>>, ControlError> {
    let (response, files) = exchange(dir, br#"{"verb":"hand-over"}"#.to_vec(), timeout)?;
    Ok((response.trim_ascii() == br#""handed-over""#).then_some(files))
}

fn no_response(dir: &Path, source: io::Error) -> ControlError {
    ControlError::NoResponse {
        dir: dir.to_owned(),
        source,
    }
}

/// Sends one line; returns the line that comes back and the files that come with it.
fn exchange(
    dir: &Path,
    mut request: Vec<u8>,
    timeout: Duration,
) -> Result<(Vec<u8>, Vec<File>), ControlError> {
    let connect = || {
        let dir_fd = open_directory(dir)?;
        connect_within(&socket_path(dir_fd.as_fd()), timeout)
    };
    let mut stream = connect().map_err(|source| ControlError::Connect {
        dir: dir.to_owned(),
        source,
    })?;
    request.push(b'\n');
    let mut exchange = || -> io::Result<(Vec<u8>, Vec<File>)> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.write_all(&request)?;
        receive(&stream)
    };
    exchange().map_err(|source| no_response(dir, source))
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
