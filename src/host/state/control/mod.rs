//! The watcher's control socket, both ends: one line of JSON is the request, one line of JSON the
//! response, and files may come with the response.
//!
//! Does not know what a request does. Only root has access: the socket has mode 0600, in a
//! directory with mode 0700.

mod client;
mod error;
mod message;
mod protocol;
mod server;

pub use client::{request_handover, send_request};
pub use error::ControlError;
pub use message::{ControlRequest, ControlResponse, Problem, Status, first_of};
pub use server::{ControlClient, ControlSocket, Received};

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_handover_messages_written_by_hand_are_valid() {
        let request: ControlRequest = serde_json::from_str(r#"{"verb":"hand-over"}"#).unwrap();
        assert_eq!(request, ControlRequest::HandOver);
        assert_eq!(
            serde_json::to_string(&ControlResponse::HandedOver).unwrap(),
            r#""handed-over""#
        );
    }

    #[test]
    fn any_number_of_files_comes_with_the_response() {
        let dir = tempfile::tempdir().unwrap();
        let dir_fd = File::open(dir.path()).unwrap();
        let socket = ControlSocket::bind(dir_fd.as_fd(), dir.path()).unwrap();
        let paths: Vec<PathBuf> = (0..450)
            .map(|number| dir.path().join(number.to_string()))
            .collect();
        let files: Vec<File> = paths.iter().map(|path| File::create(path).unwrap()).collect();
        let place = dir.path().to_owned();
        let requester = std::thread::spawn(move || request_handover(&place, Duration::from_secs(10)));
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let mut client = loop {
            if let Some(client) = socket.accept() {
                break client;
            }
            assert!(std::time::Instant::now() < deadline, "no client connected");
            std::thread::yield_now();
        };
        while !matches!(client.receive(), Received::Request(ControlRequest::HandOver)) {
            assert!(std::time::Instant::now() < deadline, "no request arrived");
        }
        let all: Vec<_> = files.iter().map(File::as_fd).collect();
        assert!(client.hand_over(&ControlResponse::HandedOver, &all));
        let given = requester.join().unwrap().unwrap().unwrap();
        let leads_to =
            |file: &File| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        assert_eq!(given.iter().map(leads_to).collect::<Vec<_>>(), paths);
    }
}
