//! systemd-journald in the namespaces of a test: it stores its files in memory, isolated from the
//! host. Does not know the product.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, umount2};

use super::eventually::eventually;
use super::machine::{Machine, mount_tmpfs};

const PROGRAM: &str = "/lib/systemd/systemd-journald";
const SOCKET: &str = "/run/systemd/journal/socket";
const MACHINE_ID: &str = "/etc/machine-id";
/// The directories of its sockets and files.
const DIRECTORIES: [&str; 2] = ["/run/systemd", "/run/log"];

/// A journald that runs until this is dropped.
pub struct Journald(Child);

impl Journald {
    /// Starts it, and waits until it listens.
    pub fn start(machine: &Machine) -> Self {
        for directory in DIRECTORIES {
            fs::create_dir_all(directory).expect("make a directory for journald");
            mount_tmpfs(Path::new(directory), "mode=755");
        }
        assert!(
            fs::read_to_string(MACHINE_ID).is_ok_and(|id| id.trim().len() == 32),
            "this computer has no {MACHINE_ID}: systemd-machine-id-setup makes one"
        );
        let log = fs::File::create(machine.scratch("journald.log")).expect("make journald's log");
        let journald = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", PROGRAM])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share a log"))
            .stderr(log)
            .spawn()
            .expect("start systemd-journald (package systemd)");
        let journald = Self(journald);
        eventually("systemd-journald listens", || {
            UnixDatagram::unbound().is_ok_and(|socket| socket.connect(SOCKET).is_ok())
        });
        journald
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        for directory in DIRECTORIES {
            let _ = umount2(directory, MntFlags::MNT_DETACH);
        }
    }
}
