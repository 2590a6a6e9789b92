//! A uevent listener: `udevadm monitor`, a program of systemd without any of our code, so that it
//! accepts exactly what libudev accepts. It runs in the host's namespaces or in a container's. Does
//! not know the product.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::container::RuncContainer;
use super::eventually::eventually;
use super::machine::Machine;

/// A received uevent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedUevent {
    /// `KERNEL` (the kernel's form) or `UDEV` (libudev's form).
    pub form: String,
    /// `add`, `remove` ...
    pub action: String,
    /// The path below /sys.
    pub path: String,
    /// The properties, `KEY=value`.
    pub properties: Vec<String>,
}

/// A listener that runs until it is dropped.
pub struct Announcements {
    monitor: Child,
    log: PathBuf,
}

impl Announcements {
    /// Listens in the host's namespaces.
    pub fn on_the_host(machine: &Machine) -> Self {
        Self::listen(machine, Command::new("setpriv"))
    }

    /// Listens in the container's network namespace, and in its user namespace as the mapped root.
    pub fn inside(machine: &Machine, container: &RuncContainer<'_>, user_namespace: bool) -> Self {
        Self::of_process(machine, container.pid, user_namespace)
    }

    /// The same for the container with this init.
    pub fn of_process(machine: &Machine, pid: i32, user_namespace: bool) -> Self {
        let mut enter = Command::new("nsenter");
        enter.arg("--target").arg(pid.to_string()).arg("--net");
        if user_namespace {
            enter.arg("--user");
        }
        enter.args(["--", "setpriv"]);
        Self::listen(machine, enter)
    }

    fn listen(machine: &Machine, mut command: Command) -> Self {
        let log = machine.scratch(&format!("received-{}.log", machine.fresh_id()));
        let output = File::create(&log).expect("make a log of uevents");
        let monitor = command
            .args(["--pdeathsig", "KILL"])
            .args(["udevadm", "monitor", "--kernel", "--udev", "--property"])
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("share a log"))
            .stderr(output)
            .spawn()
            .expect("start udevadm monitor (packages udev, util-linux)");
        let listener = Self { monitor, log };
        // It prints a heading when its sockets are bound.
        eventually("udevadm monitor listens", || {
            listener.text().contains("KERNEL - the kernel uevent")
        });
        listener
    }

    /// All uevents received so far.
    pub fn received(&self) -> Vec<ReceivedUevent> {
        self.text().split("\n\n").filter_map(parse).collect()
    }

    /// How often a uevent of this form and action was received of the device whose path ends in
    /// `/name`.
    pub fn count(&self, form: &str, action: &str, name: &str) -> usize {
        let end = format!("/{name}");
        let is_it = |received: &ReceivedUevent| {
            received.form == form && received.action == action && received.path.ends_with(&end)
        };
        self.received().into_iter().filter(is_it).count()
    }

    /// Waits for a uevent of this form and action of the device whose path ends in `/name`, and
    /// returns it.
    #[track_caller]
    pub fn eventually_receive(&self, form: &str, action: &str, name: &str) -> ReceivedUevent {
        let end = format!("/{name}");
        let found = super::eventually::within(super::eventually::DEADLINE, || {
            self.received().into_iter().find(|received| {
                received.form == form && received.action == action && received.path.ends_with(&end)
            })
        });
        found.unwrap_or_else(|| panic!("no {form} uevent {action} of {name}; received:\n{}", self.text()))
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Announcements {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

/// Parses `UDEV  [1233.209349] add      /devices/virtual/vc/vcs30 (vc)` and the properties below
/// it.
fn parse(paragraph: &str) -> Option<ReceivedUevent> {
    let mut lines = paragraph.trim_start_matches('\n').lines();
    let first = lines.next()?;
    let (form, rest) = first.split_once('[')?;
    let mut words = rest.split_once(']')?.1.split_whitespace();
    Some(ReceivedUevent {
        form: form.trim().to_owned(),
        action: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        properties: lines.map(str::to_owned).collect(),
    })
}
