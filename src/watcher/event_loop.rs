//! The watcher's event loop: one epoll, one thread. Turns events into a [`Wake`].

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::host::monitor::Ready;
use crate::host::state::control::{ControlClient, ControlRequest, ControlSocket, Received};

/// How many clients may be connected to the control socket.
const MAX_CLIENTS: usize = 64;

/// Tokens of epoll: which file is ready.
mod token {
    pub(super) const CONTAINER: u64 = 0;
    pub(super) const SIGNAL: u64 = 1;
    pub(super) const CONTROL: u64 = 2;
    pub(super) const KERNEL_EVENTS: u64 = 3;
    pub(super) const UDEV_EVENTS: u64 = 4;
    pub(super) const WORKER: u64 = 5;
    pub(super) const FIRST_CLIENT: u64 = 16;
}

/// Why the watcher woke: any combination of these.
#[derive(Debug, Default)]
pub(super) struct Wake {
    /// The container's init has ended.
    pub container_exited: bool,
    /// SIGTERM or SIGINT was received.
    pub must_end: bool,
    /// SIGHUP was received.
    pub must_reload: bool,
    /// SIGIO was received: a directory with links of the host has changed.
    pub links_signal: bool,
    /// Device events have arrived, on these sockets.
    pub device_events: Option<Ready>,
    /// A USB/IP worker has replied.
    pub worker_replies: bool,
    /// Complete requests from the control socket, in the order in which they are handled.
    pub requests: Vec<(ControlClient, ControlRequest)>,
    /// It is time to check what no event reports.
    pub tick: bool,
}

/// The files that the loop waits on for other parts of the watcher.
pub(super) struct Sources<'a> {
    /// Readable when the container's init has ended.
    pub container: BorrowedFd<'a>,
    /// Readable when device events have arrived.
    pub devices: Vec<(Ready, BorrowedFd<'a>)>,
    /// Readable when a worker has replied.
    pub workers: Vec<BorrowedFd<'a>>,
}

pub(super) struct EventLoop {
    epoll: Epoll,
    signals: SignalFd,
    control: ControlSocket,
    /// The clients of the control socket that have not sent a complete request; the index is part
    /// of their token.
    clients: Vec<Option<ControlClient>>,
    /// The last tick, or the start; or a signal for the next one.
    ticked: Instant,
}

impl EventLoop {
    /// Opens the loop; `signals` is from [`block_signals`].
    pub(super) fn open(
        signals: SignalFd,
        control: ControlSocket,
        sources: &Sources<'_>,
    ) -> nix::Result<Self> {
        Ok(Self {
            epoll: register(&signals, &control, sources)?,
            signals,
            control,
            clients: Vec::new(),
            ticked: Instant::now(),
        })
    }

    /// Waits on other files from now on. Clients that have not sent a complete request are dropped.
    pub(super) fn reopen(
        &mut self,
        control: Option<ControlSocket>,
        sources: &Sources<'_>,
    ) -> nix::Result<()> {
        if let Some(control) = control {
            self.control = control;
        }
        self.epoll = register(&self.signals, &self.control, sources)?;
        self.clients.clear();
        Ok(())
    }

    /// Waits on one more worker. If that fails, the next tick notices its reply.
    pub(super) fn add_worker(&self, worker: impl AsFd) {
        let _ = self.epoll.add(worker, readable(token::WORKER));
    }

    /// Waits until something happens, but not longer than until `deadline` or the next tick, which
    /// is due this long after the last one.
    pub(super) fn wait(&mut self, deadline: Option<Instant>, tick_interval: Duration) -> nix::Result<Wake> {
        let mut ready = [EpollEvent::empty(); 16];
        let tick = self.ticked + tick_interval;
        let until = deadline.map_or(tick, |deadline| deadline.min(tick));
        let count = match self.epoll.wait(&mut ready, timeout(until)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error),
        };
        let mut wake = Wake::default();
        let mut has_new_clients = false;
        for event in &ready[..count] {
            match event.data() {
                token::CONTAINER => wake.container_exited = true,
                token::SIGNAL => read_signals(&self.signals, &mut wake),
                token::CONTROL => has_new_clients = true,
                token::KERNEL_EVENTS => wake.device_events = Some(Ready::Kernel.and(wake.device_events)),
                token::UDEV_EVENTS => wake.device_events = Some(Ready::Udev.and(wake.device_events)),
                token::WORKER => wake.worker_replies = true,
                client => {
                    let index = client.saturating_sub(token::FIRST_CLIENT);
                    wake.requests.extend(self.read_client(index as usize));
                }
            }
        }
        if has_new_clients {
            self.accept();
        }
        let now = Instant::now();
        if wake.links_signal {
            // Usually this comes with a device, and before its event, which is more urgent. It is
            // followed by a short interval.
            self.ticked = now;
        } else if tick <= now {
            self.ticked = now;
            wake.tick = true;
        }
        Ok(wake)
    }

    /// Reads from a client; returns it with its request once that is complete.
    fn read_client(&mut self, index: usize) -> Option<(ControlClient, ControlRequest)> {
        let slot = self.clients.get_mut(index)?;
        match slot.as_mut()?.receive() {
            Received::Incomplete => None,
            Received::Closed => {
                *slot = None;
                None
            }
            Received::Request(request) => {
                let client = slot.take()?;
                // A client sends one request, then waits for the response.
                let _ = self.epoll.delete(client.as_fd());
                Some((client, request))
            }
        }
    }

    fn accept(&mut self) {
        while let Some(client) = self.control.accept() {
            let clients = &mut self.clients;
            let index = clients.iter().position(Option::is_none).unwrap_or(clients.len());
            let event = readable(token::FIRST_CLIENT + index as u64);
            if index >= MAX_CLIENTS || self.epoll.add(client.as_fd(), event).is_err() {
                continue;
            }
            if index == clients.len() {
                clients.push(None);
            }
            clients[index] = Some(client);
        }
    }
}

/// The timeout of a wait until a time, rounded up.
fn timeout(until: Instant) -> EpollTimeout {
    let left = until.saturating_duration_since(Instant::now());
    let millis = left.as_micros().div_ceil(1000);
    EpollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX))
}

fn readable(token: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN, token)
}

fn register(signals: &SignalFd, control: &ControlSocket, sources: &Sources<'_>) -> nix::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(sources.container, readable(token::CONTAINER))?;
    epoll.add(signals.as_fd(), readable(token::SIGNAL))?;
    epoll.add(control.as_fd(), readable(token::CONTROL))?;
    for (ready, fd) in &sources.devices {
        let token = match ready {
            Ready::Kernel => token::KERNEL_EVENTS,
            Ready::Udev | Ready::All => token::UDEV_EVENTS,
        };
        epoll.add(fd, readable(token))?;
    }
    for worker in &sources.workers {
        epoll.add(worker, readable(token::WORKER))?;
    }
    Ok(epoll)
}

/// Blocks the signals that the loop reads from a signalfd.
pub(super) fn block_signals() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGIO] {
        mask.add(signal);
    }
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn read_signals(signals: &SignalFd, wake: &mut Wake) {
    while let Ok(Some(info)) = signals.read_signal() {
        match Signal::try_from(info.ssi_signo as i32) {
            Ok(Signal::SIGHUP) => wake.must_reload = true,
            Ok(Signal::SIGIO) => wake.links_signal = true,
            _ => wake.must_end = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use nix::sys::signal::raise;

    const TICK: Duration = Duration::from_secs(1);

    /// Pairs of connected files: the loop waits on the first one of each pair.
    struct Files {
        container: (UnixStream, UnixStream),
        devices: (UnixStream, UnixStream),
        udev: (UnixStream, UnixStream),
        worker: (UnixStream, UnixStream),
    }

    impl Files {
        fn new() -> Self {
            let [container, devices, udev, worker] = [(); 4].map(|()| UnixStream::pair().unwrap());
            Self {
                container,
                devices,
                udev,
                worker,
            }
        }

        fn sources(&self) -> Sources<'_> {
            Sources {
                container: self.container.0.as_fd(),
                devices: vec![
                    (Ready::Kernel, self.devices.0.as_fd()),
                    (Ready::Udev, self.udev.0.as_fd()),
                ],
                workers: vec![self.worker.0.as_fd()],
            }
        }
    }

    fn bind(dir: &Path) -> ControlSocket {
        let file = File::open(dir).unwrap();
        ControlSocket::bind(file.as_fd(), dir).unwrap()
    }

    /// What has happened up to now, as text.
    fn wakes(events: &mut EventLoop) -> Vec<String> {
        let wake = events.wait(Some(Instant::now()), TICK).unwrap();
        let reasons = [
            ("container", wake.container_exited),
            ("end", wake.must_end),
            ("reload", wake.must_reload),
            ("links", wake.links_signal),
            ("kernel", wake.device_events == Some(Ready::Kernel)),
            ("udev", wake.device_events == Some(Ready::Udev)),
            ("all devices", wake.device_events == Some(Ready::All)),
            ("worker", wake.worker_replies),
        ];
        let reasons = reasons.iter().filter(|(_, is_reason)| *is_reason);
        let requests = wake.requests.iter().map(|(_, request)| format!("{request:?}"));
        reasons
            .map(|(reason, _)| (*reason).to_owned())
            .chain(requests)
            .collect()
    }

    #[test]
    fn a_wake_has_everything_that_is_ready() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new();
        let signals = block_signals().unwrap();
        let mut events = EventLoop::open(signals, bind(dir.path()), &files.sources()).unwrap();
        assert_eq!(wakes(&mut events), [""; 0]);
        files.udev.1.write_all(b"x").unwrap();
        assert_eq!(wakes(&mut events), ["udev"]);
        nix::unistd::read(&files.udev.0, &mut [0]).unwrap();
        files.devices.1.write_all(b"x").unwrap();
        files.worker.1.write_all(b"x").unwrap();
        assert_eq!(wakes(&mut events), ["kernel", "worker"]);
        files.udev.1.write_all(b"x").unwrap();
        assert_eq!(wakes(&mut events), ["all devices", "worker"]);
        for signal in [Signal::SIGHUP, Signal::SIGIO, Signal::SIGTERM] {
            raise(signal).unwrap();
        }
        assert_eq!(
            wakes(&mut events),
            ["end", "reload", "links", "all devices", "worker"]
        );
        files.container.1.write_all(b"x").unwrap();
        assert_eq!(wakes(&mut events), ["container", "all devices", "worker"]);
    }

    #[test]
    fn a_request_is_returned_once_complete_and_reopening_drops_clients() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new();
        let signals = block_signals().unwrap();
        let mut events = EventLoop::open(signals, bind(dir.path()), &files.sources()).unwrap();
        let connect = || UnixStream::connect(dir.path().join("control.sock")).unwrap();
        let text = serde_json::to_string(&ControlRequest::Status).unwrap() + "\n";
        let (begin, end) = text.split_at(4);
        let mut clients = [connect(), connect()];
        for client in &mut clients {
            client.write_all(begin.as_bytes()).unwrap();
        }
        // The clients are accepted first, then read.
        assert_eq!(wakes(&mut events), [""; 0]);
        assert_eq!(wakes(&mut events), [""; 0]);
        clients[1].write_all(end.as_bytes()).unwrap();
        assert_eq!(wakes(&mut events), ["Status"]);
        std::fs::remove_file(dir.path().join("control.sock")).unwrap();
        events.reopen(Some(bind(dir.path())), &files.sources()).unwrap();
        let _ = clients[0].write_all(end.as_bytes());
        assert_eq!(wakes(&mut events), [""; 0]);
        let mut client = connect();
        client.write_all(text.as_bytes()).unwrap();
        assert_eq!(wakes(&mut events), [""; 0]);
        assert_eq!(wakes(&mut events), ["Status"]);
    }

    #[test]
    fn the_loop_wakes_after_the_interval_or_at_an_earlier_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new();
        let signals = block_signals().unwrap();
        let mut events = EventLoop::open(signals, bind(dir.path()), &files.sources()).unwrap();
        let begin = Instant::now();
        let soon = begin + Duration::from_millis(100);
        assert!(!events.wait(Some(soon), TICK).unwrap().tick);
        assert!(Instant::now() >= soon, "the timeout is rounded up");
        while !events.wait(None, TICK).unwrap().tick {}
        assert!(begin.elapsed() >= TICK, "{:?}", begin.elapsed());
        // A longer interval counts from the last tick, too, and may become shorter at any time.
        let soon = Instant::now() + Duration::from_millis(10);
        assert!(!events.wait(Some(soon), 100 * TICK).unwrap().tick);
        let short = Duration::from_millis(20);
        assert!(events.wait(None, short).unwrap().tick);
        assert!(begin.elapsed() >= TICK + short, "{:?}", begin.elapsed());
        // A signal begins an interval.
        std::thread::sleep(short);
        raise(Signal::SIGIO).unwrap();
        let wake = events.wait(None, short).unwrap();
        assert!(wake.links_signal && !wake.tick);
        assert!(events.wait(None, short).unwrap().tick);
    }
}
