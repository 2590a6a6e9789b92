//! Looks again whenever something happens on the host: what `--watch` does.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::monitor::DeviceMonitor;

/// What no event tells of (a container that has started) is seen after this time.
const LOOK_AGAIN: u16 = 1000;

/// One plug is a burst of events: they are waited for in one go.
const BURST: Duration = Duration::from_millis(50);

/// Calls `look` at once, after every burst of events, and each second. Returns when `look` fails: for instance because
/// whoever reads our output has gone.
pub(super) fn follow(
    monitor: &mut DeviceMonitor,
    mut look: impl FnMut(&DeviceMonitor) -> Result<()>,
) -> Result<()> {
    loop {
        look(monitor)?;
        let woken = {
            let mut fds: Vec<PollFd> = monitor
                .fds()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            poll(&mut fds, PollTimeout::from(LOOK_AGAIN))
        };
        match woken {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => std::thread::sleep(BURST),
            Err(error) => return Err(error).context("waiting for events"),
        }
        monitor.drain();
        monitor.refresh();
    }
}

/// Shows one picture in place of the last: on a terminal it is drawn over, else one follows the other.
#[derive(Default)]
pub(super) struct Screen {
    shown: Option<String>,
}

impl Screen {
    /// Draws `picture`, unless it is what is shown.
    pub(super) fn show(&mut self, picture: String) -> Result<()> {
        if self.shown.as_ref() == Some(&picture) {
            return Ok(());
        }
        let terminal = std::io::stdout().is_terminal();
        match (terminal, &self.shown) {
            // Home, and away with everything below (ECMA-48: CUP, ED). Not a colour: NO_COLOR does not count.
            (true, _) => write!(std::io::stdout(), "\x1b[H\x1b[J")?,
            (false, Some(_)) => writeln!(std::io::stdout())?,
            (false, None) => {}
        }
        let mut out = anstream::stdout().lock();
        out.write_all(picture.as_bytes())?;
        out.flush()?;
        self.shown = Some(picture);
        Ok(())
    }
}
