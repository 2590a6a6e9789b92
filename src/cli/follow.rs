//! `--watch`: follows the devices of the host.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::monitor::DeviceMonitor;

/// After this time, in milliseconds, changes without a uevent are shown, such as a container that
/// has started.
const POLL_INTERVAL: u16 = 1000;

/// One plug causes several uevents within this time.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Calls `show` at once, after uevents, and every second. Returns when `show` fails, for instance
/// because the reader of the output has ended.
pub(super) fn follow(
    monitor: &mut DeviceMonitor,
    mut show: impl FnMut(&DeviceMonitor) -> Result<()>,
) -> Result<()> {
    loop {
        show(monitor)?;
        let woken = {
            let mut fds: Vec<PollFd> = monitor
                .fds()
                .map(|(_, fd)| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            poll(&mut fds, PollTimeout::from(POLL_INTERVAL))
        };
        match woken {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => std::thread::sleep(DEBOUNCE),
            Err(error) => return Err(error).context("cannot wait for events"),
        }
        monitor.drain();
        monitor.refresh();
    }
}

/// Replaces the shown text on a terminal; elsewhere each text follows the one before.
#[derive(Default)]
pub(super) struct Screen {
    shown: Option<String>,
}

impl Screen {
    /// Shows a text, unless it is shown already.
    pub(super) fn show(&mut self, text: String) -> Result<()> {
        if self.shown.as_ref() == Some(&text) {
            return Ok(());
        }
        let terminal = std::io::stdout().is_terminal();
        match (terminal, &self.shown) {
            // Cursor to the top left, and clear the rest (ECMA-48: CUP, ED). NO_COLOR is about
            // colours only.
            (true, _) => write!(std::io::stdout(), "\x1b[H\x1b[J")?,
            (false, Some(_)) => writeln!(std::io::stdout())?,
            (false, None) => {}
        }
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        self.shown = Some(text);
        Ok(())
    }
}
