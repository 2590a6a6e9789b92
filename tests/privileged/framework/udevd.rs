//! systemd-udevd for the length of a story. It runs in the story's namespaces: a udevd of the host
//! neither hears it nor is heard (`machine.rs`). Must not know the product.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::eventually::{DEADLINE, eventually, wait_within};
use super::machine::Machine;

const PROGRAMS: [&str; 2] = ["/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd"];

/// udevd runs and answers for as long as this lives.
pub struct Udevd(Child);

impl Udevd {
    /// Starts it and waits until it answers.
    pub fn start(machine: &Machine) -> Self {
        Self::start_with_rules(machine, "")
    }

    /// Starts it with rules of the story's own beside the distribution's (udev(7)).
    pub fn start_with_rules(machine: &Machine, rules: &str) -> Self {
        write_rules(rules);
        Self::start_with_log(&machine.scratch("udevd.log"))
    }

    /// Starts it on this thread, which may be another one than the story's.
    pub fn start_with_log(log: &Path) -> Self {
        let udevd = Self(spawn(log));
        eventually("systemd-udevd answers", || {
            Path::new("/run/udev/control").exists() && answers()
        });
        udevd
    }

    /// It falls silent: it is there, and does nothing, until it is told to go on.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.0.id());
        eventually("systemd-udevd is stopped", || {
            let stat = fs::read_to_string(&stat).expect("read udevd's state");
            stat.rsplit_once(") ")
                .is_some_and(|(_, state)| state.starts_with('T'))
        });
    }

    /// It goes on, and has worked off what came meanwhile when this returns: on a busy computer
    /// that may be much.
    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
        let settled = Command::new("udevadm").args(["settle", "--timeout=60"]).status();
        assert!(
            settled.expect("start udevadm").success(),
            "udevd does not come to an end with its events"
        );
    }

    /// It dies over its work, and leaves its socket's file behind.
    pub fn kill(&mut self) {
        self.0.kill().expect("kill udevd");
        self.0.wait().expect("reap udevd");
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("a pid fits"))
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("signal udevd");
    }
}

/// Waits until the host's udevd, where it has one, has processed all devices: it changes the group
/// and the change time of nodes in /dev. The first thread of this process has left the host's mount
/// namespace for no story.
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

/// The kernel kills it when the thread that starts it ends, however that ends (prctl(2),
/// PR_SET_PDEATHSIG): also one that is stopped, on which SIGTERM would have no effect.
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

/// Whether a udevd answers on /run/udev/control.
fn answers() -> bool {
    Command::new("udevadm")
        .args(["control", "--ping", "--timeout=2"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

impl Drop for Udevd {
    fn drop(&mut self) {
        // One that was killed and reaped has given its number back.
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = kill(self.pid(), Signal::SIGTERM);
            let _ = kill(self.pid(), Signal::SIGCONT);
            wait_within(&mut self.0, DEADLINE);
        }
        // It leaves its socket behind, and a socket there reads as a udevd that runs.
        let _ = fs::remove_file("/run/udev/control");
    }
}
