//! A FUSE server that says hello and never answers again: a process that accesses its file system
//! waits in the kernel, where SIGKILL does not reach.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long a request may wait for an answer before the connection is cut, so that a failing test
/// ends.
const RESCUE: Duration = Duration::from_secs(20);

/// How often the rescuer looks for a request.
const LOOK: Duration = Duration::from_millis(200);

/// The server's end of one mount.
pub struct SilentServer {
    device: Arc<Mutex<Option<File>>>,
    /// The thread that rescues, which ends when the sender is dropped.
    rescuer: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Drop for SilentServer {
    fn drop(&mut self) {
        // The thread has the connection, too: it must not close it amid the next test.
        if let Some((sender, thread)) = self.rescuer.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

impl SilentServer {
    /// The options of mount(8) for a connection that has this descriptor.
    pub fn options(fd: i32, is_directory: bool) -> String {
        let mode = if is_directory { "40000" } else { "100644" };
        format!("fd={fd},rootmode={mode},user_id=0,group_id=0")
    }

    /// Serves a connection (an open /dev/fuse) that was just mounted.
    pub fn start(device: File) -> Self {
        greet(&device);
        let flags = rustix::fs::fcntl_getfl(&device).unwrap();
        rustix::fs::fcntl_setfl(&device, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
        let device = Arc::new(Mutex::new(Some(device)));
        let (sender, needed) = mpsc::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let rescued = device.clone();
        let thread = std::thread::spawn(move || {
            // Threads that share their root directory cannot change namespaces, as the one that
            // makes nodes does.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
            ready.send(()).unwrap();
            let mut waits = Duration::ZERO;
            while needed.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
                let mut device = rescued.lock().unwrap();
                waits = if has_request(&device) {
                    waits + LOOK
                } else {
                    Duration::ZERO
                };
                if waits >= RESCUE {
                    // The connection ends with its last descriptor, and everybody who waits gets
                    // an error.
                    device.take();
                    return;
                }
            }
        });
        is_ready.recv().unwrap();
        Self {
            device,
            rescuer: Some((sender, thread)),
        }
    }

    /// That nobody has asked anything, up to now.
    #[track_caller]
    pub fn expect_no_request(&self) {
        let mut device = self.device.lock().unwrap();
        let device = device.as_mut().expect("somebody waited for an answer");
        let mut request = [0; 64 * 1024];
        match device.read(&mut request) {
            Ok(_) => panic!("a request was sent, of type {}", word(&request, 4)),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
        }
    }
}

/// Whether a request waits on the connection.
fn has_request(device: &Option<File>) -> bool {
    let Some(device) = device else {
        return false;
    };
    let mut device = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
    poll(&mut device, PollTimeout::ZERO).unwrap() > 0
}

/// Answers FUSE_INIT (linux/fuse.h): 40 bytes of header and what the kernel can do; 16 and 64 bytes
/// back.
fn greet(mut device: &File) {
    let mut request = [0; 64 * 1024];
    let length = device.read(&mut request).unwrap();
    assert_eq!(
        (word(&request, 4), length >= 56),
        (26, true),
        "FUSE_INIT comes first"
    );
    let mut answer = [0u8; 80];
    answer[0..4].copy_from_slice(&80u32.to_ne_bytes());
    answer[8..16].copy_from_slice(&request[8..16]);
    answer[16..20].copy_from_slice(&7u32.to_ne_bytes());
    answer[20..24].copy_from_slice(&31u32.to_ne_bytes());
    answer[36..40].copy_from_slice(&4096u32.to_ne_bytes());
    device.write_all(&answer).unwrap();
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}
