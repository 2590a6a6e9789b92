//! A character device that is really added and removed, on any kernel with virtual terminals:
//! opening /dev/ttyN allocates the terminal, and /dev/vcsN, vcsuN and vcsaN are added with uevents;
//! VT_DISALLOCATE removes them. Reading /dev/vcsN returns the text on the terminal's screen. Does
//! not know containers.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use super::eventually::{DEADLINE, eventually_some, within};
use super::kernel;

/// The terminals that tests of this process have chosen.
static CHOSEN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// An unused virtual terminal.
pub struct Terminal {
    console: File,
    number: i32,
}

impl Terminal {
    /// Chooses a terminal that is not allocated. Nothing is plugged in yet.
    pub fn new() -> Self {
        let console = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/tty0")
            .unwrap_or_else(|error| {
                panic!("open /dev/tty0: {error} (the tests need a kernel with virtual terminals)")
            });
        let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (20..=60)
            .filter(|number| !chosen.contains(number))
            .find(|number| !fs::exists(format!("/sys/class/vc/vcs{number}")).unwrap_or(true))
            .expect("a virtual terminal that is not used");
        chosen.insert(number);
        Self { console, number }
    }

    /// The node of the screen, `/dev/vcsN`, whether it exists or not.
    pub fn node(&self) -> String {
        format!("/dev/vcs{}", self.number)
    }

    /// The content at the start of the screen after [`Self::plug`].
    pub fn content(&self) -> String {
        format!("oci-hotplug {}", self.number)
    }

    /// Allocates the terminal and writes on it. The node exists when this returns; the text appears
    /// a moment later.
    pub fn plug(&self) -> String {
        let path = format!("/dev/tty{}", self.number);
        let mut tty = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_noctty()
            .open(&path)
            .expect("open a tty");
        write!(tty, "\r{}", self.content()).expect("write on a tty");
        let node = self.node();
        assert!(
            fs::exists(&node).expect("look for a node"),
            "devtmpfs has no {node} although it was plugged"
        );
        node
    }

    /// Frees the terminal. A process that has the screen open keeps it open; the nodes are removed.
    pub fn unplug(&self) {
        eventually_some("no process has the terminal open", || self.disallocate());
    }

    fn disallocate(&self) -> Option<()> {
        kernel::disallocate_terminal(&self.console, self.number).ok()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if fs::exists(self.node()).unwrap_or(false) {
            let _ = within(DEADLINE, || self.disallocate());
        }
        let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.remove(&self.number);
    }
}

/// Opening a terminal must not make it the controlling terminal of the test.
trait Noctty {
    fn custom_noctty(&mut self) -> &mut Self;
}

impl Noctty for OpenOptions {
    fn custom_noctty(&mut self) -> &mut Self {
        use std::os::unix::fs::OpenOptionsExt;
        self.custom_flags(nix::libc::O_NOCTTY)
    }
}
