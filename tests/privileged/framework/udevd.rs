//! systemd-udevd for the length of a story: the host's own where it has one, else one that we start and stop.
//! Must not know the product.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::eventually::{DEADLINE, eventually, wait_within};
use super::machine::{Machine, show_udevd};

/// Two of them would answer each other's events.
static ONLY_ONE: Mutex<()> = Mutex::new(());

const PROGRAMS: [&str; 2] = ["/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd"];

/// udevd runs and answers for as long as this lives.
pub struct Udevd {
    ours: Option<Child>,
    rules: Option<PathBuf>,
    _only_one: MutexGuard<'static, ()>,
}

impl Udevd {
    /// Starts it (or uncovers the host's) and waits until it answers.
    pub fn start(machine: &Machine) -> Self {
        Self::start_with_rules(machine, "")
    }

    /// Starts it with rules of the story's own beside the distribution's (udev(7)).
    pub fn start_with_rules(machine: &Machine, rules: &str) -> Self {
        let only_one = ONLY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
        if machine.host_runs_udevd {
            show_udevd();
        }
        let rules = (!rules.is_empty()).then(|| write_rules(rules));
        let ours = (!machine.host_runs_udevd).then(|| spawn(machine));
        let udevd = Self {
            ours,
            rules,
            _only_one: only_one,
        };
        eventually("systemd-udevd answers", || {
            Path::new("/run/udev/control").exists() && answers()
        });
        if udevd.ours.is_none() && udevd.rules.is_some() {
            reload();
        }
        udevd
    }

    /// It falls silent: it is there, and does nothing, until it is told to go on. The host's own is left alone, and
    /// then this says so.
    pub fn pause(&self) -> bool {
        self.signal(Signal::SIGSTOP)
    }

    /// It goes on, and has worked off what came meanwhile when this returns: on a busy computer that may be much.
    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
        let settled = Command::new("udevadm").args(["settle", "--timeout=60"]).status();
        assert!(
            settled.expect("start udevadm").success(),
            "udevd does not come to an end with its events"
        );
    }

    /// It dies over its work, and leaves its socket's file behind. The host's own is left alone.
    pub fn kill(&mut self) {
        if let Some(child) = &mut self.ours {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) -> bool {
        self.ours.as_ref().is_some_and(|child| {
            let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"));
            kill(pid, signal).is_ok()
        })
    }
}

fn write_rules(rules: &str) -> PathBuf {
    let directory = Path::new("/run/udev/rules.d");
    fs::create_dir_all(directory).expect("make udev's directory for rules");
    let path = directory.join(format!("99-oci-hotplug-test-{}.rules", std::process::id()));
    fs::write(&path, rules).expect("write rules for udev");
    path
}

fn reload() {
    let status = Command::new("udevadm")
        .args(["control", "--reload"])
        .status()
        .expect("start udevadm");
    assert!(status.success(), "udevadm control --reload");
}

/// It runs in the story's namespace, where /run/udev is a tmpfs of the story's own; it dies with the story's
/// thread even if that is killed (setpriv --pdeathsig).
fn spawn(machine: &Machine) -> Child {
    let program = PROGRAMS
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("systemd-udevd is not installed: apt-get install udev");
    let log = fs::File::create(machine.scratch("udevd.log")).expect("make udevd's log");
    Command::new("setpriv")
        .args(["--pdeathsig", "TERM", program])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("share udevd's log"))
        .stderr(log)
        .spawn()
        .expect("start systemd-udevd through setpriv (package util-linux)")
}

/// Whether a udevd answers on /run/udev/control.
pub fn answers() -> bool {
    Command::new("udevadm")
        .args(["control", "--ping", "--timeout=2"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

impl Drop for Udevd {
    fn drop(&mut self) {
        if let Some(rules) = &self.rules {
            let _ = fs::remove_file(rules);
            if self.ours.is_none() {
                reload();
            }
        }
        if let Some(child) = &mut self.ours {
            // One that was killed and reaped has given its number back.
            if child.try_wait().is_ok_and(|ended| ended.is_none()) {
                let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"));
                let _ = kill(pid, Signal::SIGTERM);
                let _ = kill(pid, Signal::SIGCONT);
                wait_within(child, DEADLINE);
            }
            // It leaves its socket behind, and a socket there reads as a udevd that runs.
            let _ = fs::remove_file("/run/udev/control");
        }
    }
}
