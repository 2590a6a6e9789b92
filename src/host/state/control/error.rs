//! Errors of the control socket.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// The two ends cannot communicate.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be created.
    #[error("cannot create the control socket in {dir}: {source}", dir = dir.display())]
    Bind { dir: PathBuf, source: io::Error },
    /// No process listens on the socket.
    #[error("cannot send a request to the watcher in {dir}: {}", describe(source, " (it may have ended; see `oci-hotplug list`)"), dir = dir.display())]
    Connect { dir: PathBuf, source: io::Error },
    /// The watcher ended, or did not respond in time.
    #[error("cannot get the response of the watcher in {dir}: {}", describe(source, ""), dir = dir.display())]
    NoResponse { dir: PathBuf, source: io::Error },
}

impl ControlError {
    /// Whether the watcher ended, or was replaced by another one, before it responded: then the
    /// request can be sent again.
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::NoResponse { source, .. } => matches!(
                source.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ),
            Self::Bind { .. } => false,
        }
    }
}

/// The error for people; `hint` is added unless the time was over.
fn describe(error: &io::Error, hint: &str) -> String {
    match error.kind() {
        // A socket whose timeout is over returns EAGAIN (socket(7)).
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "the watcher did not answer in time; it may be stopped or overloaded (`oci-hotplug inspect` shows its process; kill -CONT resumes a stopped one)"
            .to_owned(),
        _ => format!("{error}{hint}"),
    }
}
