//! Receives the uevents of the kernel and of udevd together with the watcher, and records when they
//! arrive.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use crate::probe::now;

/// Who sends an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The kernel: multicast group 1.
    Kernel,
    /// udevd: multicast group 2.
    Udevd,
}

/// One uevent.
#[derive(Debug)]
pub struct Uevent {
    speaker: Speaker,
    action: String,
    path: String,
    time: i64,
}

/// A socket that receives both groups.
pub struct Uevents {
    heard: Receiver<Uevent>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Uevents {
    /// Opens the socket.
    pub fn listen() -> Self {
        let kind = SockType::Raw;
        let socket = socket(
            AddressFamily::Netlink,
            kind,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkKObjectUEvent,
        )
        .expect("a socket for uevents");
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 3)).expect("join both groups");
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 100_000)).expect("set a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, heard) = channel();
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || listen(&socket, &sender, &told));
        Self {
            heard,
            stop,
            thread: Some(thread),
        }
    }

    /// When the event `action` of `speaker` arrived for the device with this name. Drops earlier
    /// events of other devices.
    #[track_caller]
    pub fn when(&self, speaker: Speaker, action: &str, name: &str) -> i64 {
        let end = format!("/{name}");
        loop {
            let event = self.heard.recv_timeout(Duration::from_secs(10));
            let event = event.unwrap_or_else(|error| panic!("no {action} of {name} by {speaker:?}: {error}"));
            if event.speaker == speaker && event.action == action && event.path.ends_with(&end) {
                return event.time;
            }
        }
    }
}

fn listen(socket: &OwnedFd, sender: &Sender<Uevent>, stop: &AtomicBool) {
    let mut buffer = vec![0; 16 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => panic!("receive a uevent: {error}"),
        };
        let time = now();
        let gone = |event| sender.send(event).is_err();
        if parse(&buffer[..length], time).is_some_and(gone) {
            return;
        }
    }
}

/// Both formats contain ACTION and DEVPATH; libudev's begins with its name.
fn parse(message: &[u8], time: i64) -> Option<Uevent> {
    let speaker = if message.starts_with(b"libudev\0") {
        Speaker::Udevd
    } else {
        Speaker::Kernel
    };
    let value = |key: &[u8]| {
        let found = message
            .split(|byte| *byte == 0)
            .find_map(|word| word.strip_prefix(key))?;
        Some(String::from_utf8_lossy(found).into_owned())
    };
    Some(Uevent {
        speaker,
        action: value(b"ACTION=")?,
        path: value(b"DEVPATH=")?,
        time,
    })
}

impl Drop for Uevents {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
