//! A listener to uevents: `udevadm monitor`, a program of systemd's that has nothing of ours in it,
//! so that what it accepts is what libudev accepts. In the host's namespaces, or in a container's.
//! Must not know the product.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::container::RuncContainer;
use super::eventually::eventually;
use super::machine::Machine;

/// One uevent that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// `KERNEL` (the kernel's form) or `UDEV` (libudev's form).
    pub form: String,
    /// `add`, `remove` ...
    pub action: String,
    /// The path below /sys.
    pub path: String,
    /// Its properties, `KEY=value`.
    pub properties: Vec<String>,
}

/// A listener that runs for as long as this lives.
pub struct Announcements {
    monitor: Child,
    log: PathBuf,
}

impl Announcements {
    /// Listens in the host's namespaces.
    pub fn on_the_host(machine: &Machine) -> Self {
        Self::listen(machine, Command::new("setpriv"))
    }

    /// Listens in the container's network namespace, and in its user namespace, where it is the
    /// mapped root.
    pub fn inside(machine: &Machine, container: &RuncContainer<'_>, user_namespace: bool) -> Self {
        let mut enter = Command::new("nsenter");
        enter.arg("--target").arg(container.pid.to_string()).arg("--net");
        if user_namespace {
            enter.arg("--user");
        }
        enter.args(["--", "setpriv"]);
        Self::listen(machine, enter)
    }

    fn listen(machine: &Machine, mut command: Command) -> Self {
        let log = machine.scratch(&format!("heard-{}.log", machine.fresh_id()));
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
        // It says what it will print once its sockets are bound.
        eventually("udevadm monitor listens", || {
            listener.text().contains("KERNEL - the kernel uevent")
        });
        listener
    }

    /// Everything heard so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.text().split("\n\n").filter_map(parse).collect()
    }

    /// How often `form` said `action` of the device whose path ends in `/name`.
    pub fn count(&self, form: &str, action: &str, name: &str) -> usize {
        let end = format!("/{name}");
        let is_it =
            |heard: &Heard| heard.form == form && heard.action == action && heard.path.ends_with(&end);
        self.heard().into_iter().filter(is_it).count()
    }

    /// Waits until `form` has said `action` of the device whose path ends in `/name`, and gives
    /// what it said.
    #[track_caller]
    pub fn eventually_hear(&self, form: &str, action: &str, name: &str) -> Heard {
        let end = format!("/{name}");
        let found = super::eventually::within(super::eventually::DEADLINE, || {
            self.heard()
                .into_iter()
                .find(|heard| heard.form == form && heard.action == action && heard.path.ends_with(&end))
        });
        found.unwrap_or_else(|| panic!("{form} never said {action} of {name}; heard:\n{}", self.text()))
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

/// `UDEV  [1233.209349] add      /devices/virtual/vc/vcs30 (vc)` and the properties below it.
fn parse(paragraph: &str) -> Option<Heard> {
    let mut lines = paragraph.trim_start_matches('\n').lines();
    let first = lines.next()?;
    let (form, rest) = first.split_once('[')?;
    let mut words = rest.split_once(']')?.1.split_whitespace();
    Some(Heard {
        form: form.trim().to_owned(),
        action: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        properties: lines.map(str::to_owned).collect(),
    })
}
