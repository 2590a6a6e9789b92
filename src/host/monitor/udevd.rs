//! Whether a udevd serves this host.
//!
//! Its control socket's file says little: one that was killed leaves it behind, and then nobody
//! would ever speak of a device. What counts is that somebody listens there; connecting would tell,
//! and disturb.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use crate::host::file_system::file_id;
use crate::host::rootless::receives_uevents;

/// systemd-udevd-control.socket, systemd-udevd(8).
const CONTROL: &str = "/run/udev/control";

/// The sockets of this thread's network namespace (proc_pid_net(5)).
const SOCKETS: &str = "/proc/thread-self/net/unix";

/// A socket that is listened on, __SO_ACCEPTCON (linux/net.h), as the flags column of [`SOCKETS`]
/// has it.
const LISTENING: u32 = 1 << 16;

/// What was found, for as long as the control socket's file stays the same one.
#[derive(Debug, Default)]
pub(super) struct Udevd {
    known: Cell<Option<((u64, u64), bool)>>,
    /// Whether it was running when last looked at, not long ago.
    is_running: Cell<bool>,
}

impl Udevd {
    /// Whether one runs. One that was running counts as running until [`Self::expire`]; for one
    /// that has ended meanwhile, devices wait until then at most. Otherwise costs a stat, and a
    /// look at all sockets only when the file is another one than last time.
    pub(super) fn runs(&self) -> bool {
        if !self.is_running.get() {
            self.is_running.set(self.is_found());
        }
        self.is_running.get()
    }

    fn is_found(&self) -> bool {
        let Ok(file) = fs::symlink_metadata(CONTROL) else {
            return false;
        };
        match self.known.get() {
            Some((known, runs)) if known == file_id(&file) => runs,
            _ => {
                // Where no uevents arrive, the table has the sockets of another network namespace.
                let runs = is_listened_on(Path::new(SOCKETS)) || !receives_uevents();
                self.known.set(Some((file_id(&file), runs)));
                runs
            }
        }
    }

    /// Makes the next query look again: a udevd that was killed leaves the same file behind.
    pub(super) fn look_again(&self) {
        self.known.set(None);
        self.expire();
    }

    /// Makes the next query look whether the file is still the same one.
    pub(super) fn expire(&self) {
        self.is_running.set(false);
    }
}

/// Whether a udevd serves this host: somebody listens on its control socket.
pub fn udevd_is_running() -> bool {
    Udevd::default().runs()
}

/// Whether somebody listens on the control socket, as this table of sockets has it.
pub fn is_listened_on(sockets: &Path) -> bool {
    match fs::read(sockets) {
        Ok(table) => String::from_utf8_lossy(&table).lines().any(is_the_one),
        // Without the table the file has to do.
        Err(_) => true,
    }
}

/// A line of the table: `Num RefCount Protocol Flags Type St Inode Path`.
fn is_the_one(line: &str) -> bool {
    let mut columns = line.split_ascii_whitespace().skip(3);
    let flags = columns
        .next()
        .and_then(|flags| u32::from_str_radix(flags, 16).ok());
    let path = columns.nth(3);
    path == Some(CONTROL) && flags.is_some_and(|flags| flags & LISTENING != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_running_counts_as_running_until_it_is_looked_for_again() {
        let now = udevd_is_running();
        let udevd = Udevd::default();
        assert_eq!(udevd.runs(), now);
        udevd.is_running.set(true);
        assert!(udevd.runs());
        udevd.expire();
        assert_eq!(udevd.runs(), now);
        udevd.is_running.set(true);
        udevd.look_again();
        assert_eq!(udevd.runs(), now);
    }

    #[test]
    fn only_a_socket_that_is_listened_on_counts() {
        let line = |flags, path| format!("ffff8f0a: 00000002 00000000 {flags} 0005 01 12345 {path}");
        assert!(is_the_one(&line("00010000", "/run/udev/control")));
        assert!(!is_the_one(&line("00000000", "/run/udev/control")));
        assert!(!is_the_one(&line("00010000", "/run/udev/control2")));
        assert!(!is_the_one(
            "Num       RefCount Protocol Flags    Type St Inode Path"
        ));
        assert!(!is_the_one("ffff8f0a: 00000002 00000000 00010000 0001 01 9"));
    }
}
