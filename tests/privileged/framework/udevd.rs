//! systemd-udevd in the namespaces of a test, isolated from a udevd of the host (`machine.rs`).
//! Does not know the product.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::activity::activity;
use super::eventually::{DEADLINE, eventually, wait_within, within};
use super::machine::Machine;
use super::udevd_answers::answers;

const PROGRAMS: [&str; 2] = ["/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd"];

/// A udevd that runs until this is dropped.
pub struct Udevd(Child);

impl Udevd {
    /// Starts udevd, and waits until it responds.
    pub fn start(machine: &Machine) -> Self {
        Self::start_with_rules(machine, "")
    }

    /// Starts it with additional rules of the test (udev(7)).
    pub fn start_with_rules(machine: &Machine, rules: &str) -> Self {
        write_rules(rules);
        Self::start_with_log(&machine.scratch("udevd.log"))
    }

    /// Starts it on this thread, which may be another one than the test's.
    pub fn start_with_log(log: &Path) -> Self {
        let udevd = Self(spawn(log));
        eventually("systemd-udevd answers", answers);
        udevd
    }

    /// Stops udevd: it exists, but does nothing until `go_on`.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.0.id());
        eventually("systemd-udevd is stopped", || {
            let stat = fs::read_to_string(&stat).expect("read udevd's state");
            stat.rsplit_once(") ")
                .is_some_and(|(_, state)| state.starts_with('T'))
        });
    }

    /// Continues udevd. When this returns, it has processed everything that has happened in the
    /// meantime, which may take long on a busy machine.
    ///
    /// udevd answers a client only when no event is left, and one client at a time. A client was
    /// once seen to wait for 60 s although udevd was idle, so they ask one after another.
    pub fn resume(&self) {
        let events = uevents();
        self.signal(Signal::SIGCONT);
        let settled = within(2 * DEADLINE, || settles().then_some(()));
        assert!(
            settled.is_some(),
            "udevd does not come to an end with its events, {} of which happened since it was continued; {}",
            uevents() - events,
            activity(self.0.id())
        );
    }

    /// Kills udevd while it works; the file of its socket stays.
    pub fn kill(&mut self) {
        self.0.kill().expect("kill udevd");
        self.0.wait().expect("reap udevd");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("a pid fits"))
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("signal udevd");
    }
}

/// Whether udevd says within some seconds that it has processed everything.
fn settles() -> bool {
    let settled = Command::new("udevadm").args(["settle", "--timeout=10"]).status();
    settled.expect("start udevadm").success()
}

/// How many events the kernel has sent since it booted.
fn uevents() -> u64 {
    let number = fs::read_to_string("/sys/kernel/uevent_seqnum").expect("read the number of events");
    number.trim().parse().expect("a number")
}

/// Waits until the host's udevd, if there is one, has processed all devices: it changes the group
/// and the change time of nodes in /dev. The first thread of this process is still in the host's
/// mount namespace.
pub fn host_settles() {
    let status = Command::new("nsenter")
        .arg(format!("--mount=/proc/{}/ns/mnt", std::process::id()))
        .args(["udevadm", "settle", "--timeout=60"])
        .status()
        .expect("start nsenter (package util-linux)");
    assert!(status.success(), "the host's udevd does not come to an end");
}

fn write_rules(rules: &str) {
    let directory = Path::new("/run/udev/rules.d");
    fs::create_dir_all(directory).expect("make udev's directory for rules");
    fs::write(directory.join("99-oci-hotplug-test.rules"), rules).expect("write rules for udev");
}

/// The kernel kills udevd when the thread that started it ends in any way (prctl(2),
/// PR_SET_PDEATHSIG). That works even for a stopped udevd, on which SIGTERM would have no effect.
fn spawn(log: &Path) -> Child {
    let program = PROGRAMS
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("systemd-udevd is not installed: apt-get install udev");
    let log = fs::File::create(log).expect("make udevd's log");
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", program])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("share udevd's log"))
        .stderr(log)
        .spawn()
        .expect("start systemd-udevd through setpriv (package util-linux)")
}

impl Drop for Udevd {
    fn drop(&mut self) {
        // If it was killed and reaped, its pid is free again.
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = kill(self.pid(), Signal::SIGTERM);
            let _ = kill(self.pid(), Signal::SIGCONT);
            wait_within(&mut self.0, DEADLINE);
        }
        // It leaves its socket behind, which would look like a running udevd.
        let _ = fs::remove_file("/run/udev/control");
    }
}
