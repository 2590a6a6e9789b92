//! The variants: oci-hotplug with and without udevd, and the peer. How a container of each is
//! created, its process found, and everything removed.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::interrupt::Interrupted;
use super::table::Table;
use crate::figures::Figure;
use crate::framework::eventually::{DEADLINE, within};
use crate::framework::{Bundle, Machine, RuncContainer, Watcher};
use crate::size::EXECUTABLES;

/// What handles the devices of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// oci-hotplug, `ready=kernel`.
    Kernel,
    /// oci-hotplug, which waits for udevd by default.
    Default,
    /// container-hotplug, which always waits for udevd.
    Peer,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "oci-hotplug, ready=kernel",
            Self::Default => "oci-hotplug",
            Self::Peer => "container-hotplug",
        }
    }
}

/// A machine with the peer's executable.
pub struct Scene<'m> {
    pub machine: &'m Machine,
    directory: PathBuf,
    program: PathBuf,
    /// A script that starts the program in a new session.
    in_session: PathBuf,
    _log: Log,
}

impl<'m> Scene<'m> {
    pub fn new(machine: &'m Machine, directory: &Path) -> Self {
        let program = directory.join("container-hotplug");
        let in_session = directory.join("in-session");
        let script = format!("#!/bin/sh\nexec setsid '{}' \"$@\"\n", program.display());
        fs::write(&in_session, script).expect("write a script");
        fs::set_permissions(&in_session, fs::Permissions::from_mode(0o755)).expect("make it executable");
        Self {
            machine,
            directory: directory.to_owned(),
            program,
            in_session,
            _log: Log::new(directory.join("log")),
        }
    }

    /// A container that requests `device` and everything below it: the same for all variants. The
    /// probe needs a node that the container has made.
    fn bundle(&self, variant: Variant, device: &str) -> Bundle<'m> {
        let bundle = Bundle::new(self.machine).capability("CAP_MKNOD");
        let request = format!("devnode:{device}");
        match variant {
            Variant::Kernel => {
                bundle.annotation("io.oci-hotplug.devices", &format!("{request};ready=kernel"))
            }
            Variant::Default => bundle.annotation("io.oci-hotplug.devices", &request),
            Variant::Peer => bundle
                .without_hooks()
                .annotation("org.lowrisc.hotplug.devices", &request)
                .runtime(&self.program),
        }
    }

    /// Creates a container without starting its process.
    pub fn create(&self, variant: Variant, device: &str) -> Running<'m> {
        self.run(variant, self.bundle(variant, device))
    }

    fn run(&self, variant: Variant, bundle: Bundle<'m>) -> Running<'m> {
        let container = bundle.create();
        let daemon = match variant {
            Variant::Peer => self.daemons().into_iter().find(|daemon| {
                let mut words = daemon.command_line.split(' ');
                words.any(|word| word == container.id)
            }),
            _ => container.watcher(),
        };
        let daemon = daemon.unwrap_or_else(|| panic!("no process handles the devices of {}", container.id));
        Running {
            daemon,
            container,
            variant,
        }
    }

    /// Creates and starts a container. The peer's process gets a session, as an engine's monitor
    /// has one (and as our watcher has one by itself): the scheduler shares processors between
    /// sessions (sched(7), autogroups), and the benchmark's has other work.
    pub fn start(&self, variant: Variant, device: &str) -> Running<'m> {
        let mut bundle = self.bundle(variant, device);
        if variant == Variant::Peer {
            bundle = bundle.runtime(&self.in_session);
        }
        let running = self.run(variant, bundle);
        running.container.start();
        running
    }

    /// All processes of the peer's executable, whose path no other run has.
    fn daemons(&self) -> Vec<Watcher> {
        Watcher::all_with(|words| Path::new(&*words[0]) == self.program)
    }

    /// The sizes of the executables.
    pub fn sizes(&self, table: &mut Table) -> Result<(), Interrupted> {
        table.head();
        let of = |paths: &[&Path]| {
            let bytes: u64 = paths
                .iter()
                .map(|path| fs::metadata(path).expect("look at an executable").len())
                .sum();
            let mut figure = Figure::default();
            #[allow(clippy::cast_precision_loss, reason = "mebibytes")]
            figure.add_value(bytes as f64 / 1024.0 / 1024.0);
            figure
        };
        let stripped = of(&[&self.directory.join("stripped")]);
        let watcher = EXECUTABLES.iter().find(|(name, ..)| name.ends_with("-watcher"));
        let watcher = watcher.map(|(_, path, _)| Path::new(*path)).expect("a watcher");
        let all: Vec<_> = EXECUTABLES.iter().map(|(_, path, _)| Path::new(*path)).collect();
        table.values(
            "size of the executable that runs, stripped",
            "MiB",
            &of(&[watcher]),
            &stripped,
        );
        table.values("size of all executables, stripped", "MiB", &of(&all), &stripped);
        println!(
            "\ncontainer-hotplug as built, with symbols: {:.2} MiB",
            of(&[&self.program]).median()
        );
        Ok(())
    }
}

impl Drop for Scene<'_> {
    /// A create that failed may have left a process.
    fn drop(&mut self) {
        for daemon in self.daemons() {
            println!("ending {daemon:?}, which has no container");
            daemon.kill();
        }
    }
}

/// A container with the process that handles its devices.
pub struct Running<'m> {
    pub container: RuncContainer<'m>,
    pub daemon: Watcher,
    variant: Variant,
}

impl Drop for Running<'_> {
    /// The peer's process ends when the container's cgroup is empty, and then removes its pin.
    fn drop(&mut self) {
        if self.variant != Variant::Peer {
            return;
        }
        self.container.delete();
        if within(DEADLINE, || (!self.daemon.is_alive()).then_some(())).is_none() {
            println!("{:?} does not end with its container", self.daemon);
            self.daemon.kill();
        }
        let _ = fs::remove_file(format!("/sys/fs/bpf/{}-device-filter", self.container.id));
    }
}

/// Receives what the peer writes to its log, as a system's log daemon would, so that the socket
/// never fills.
struct Log {
    socket: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Log {
    fn new(path: PathBuf) -> Self {
        let socket = UnixDatagram::bind(&path).expect("a socket for the peer's log");
        let timeout = Some(Duration::from_millis(200));
        socket.set_read_timeout(timeout).expect("set a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                match socket.recv(&mut buffer) {
                    Ok(_) => {}
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                        ) => {}
                    Err(error) => panic!("receive the peer's log: {error}"),
                }
            }
        });
        Self {
            socket: path,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.socket);
    }
}
