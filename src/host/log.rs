//! Where log records go: the journal when there is one; else a file in the state directory, because nobody reads
//! the standard error of a hook under crun. Hooks and the operator's tool write to standard error as well.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::OptionalWriter;
use tracing_subscriber::prelude::*;

/// What happens to a container's devices: the field `event` of a watcher's record, beside `container`, `device` (its
/// path in sysfs) and `node` (its path in the container). In the journal they are `OCI_HOTPLUG_EVENT=` and so on; in the
/// log file they stand in this order at the end of the line, quoted as Rust does.
pub mod event {
    /// A device came into the container.
    pub const ATTACHED: &str = "attached";
    /// A device left it.
    pub const DETACHED: &str = "detached";
    /// The policy keeps a device out.
    pub const REFUSED: &str = "refused";
    /// A device comes when another container lets it go.
    pub const WAITING: &str = "waiting";
    /// Something could not be done; it is tried again.
    pub const FAILED: &str = "failed";
    /// The engine had replaced the device filter, and access was given again.
    pub const RESTORED: &str = "restored";
    /// Events of the kernel were lost, and all devices are read anew.
    pub const OVERRUN: &str = "overrun";
    /// A hook refused the start of a container; neither `device` nor `node`.
    pub const NOT_STARTED: &str = "no-start";
    /// All of a watcher.
    pub const ALL: [&str; 7] = [ATTACHED, DETACHED, REFUSED, WAITING, FAILED, RESTORED, OVERRUN];
}

/// The identifier of the hook that starts watchers, and refuses containers, in the log.
pub const PRESTART: &str = "oci-hotplug-prestart";
/// The watcher's identifier in the log.
pub const WATCHER: &str = "oci-hotplug-watcher";
use super::trust;

/// The journal's socket (systemd-journald.service(8)).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The log of a host without journal, in the state directory.
pub const LOG_FILE: &str = "oci-hotplug.log";

/// When the log file is put aside, in bytes. One older file is kept.
const LOG_FILE_MAX: u64 = 1 << 20;

/// How long a reader of standard error may keep us waiting, in milliseconds.
const READER_PATIENCE: u16 = 1000;

/// Writes a line to standard error, as far as anybody takes it. Whoever started us may have closed it, filled it, or
/// never read from it: nothing of that is to change how we end.
pub fn tell(line: &str) {
    let mut stderr = io::stderr();
    // A pipe that is ready takes so much at once (pipe(7), poll(2)).
    for piece in format!("{line}\n").as_bytes().chunks(nix::libc::PIPE_BUF) {
        let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        let is_ready = poll(&mut ready, PollTimeout::from(READER_PATIENCE)).is_ok_and(|count| count > 0);
        if !is_ready || stderr.write_all(piece).is_err() {
            return;
        }
    }
}

/// Starts logging for this process; to be called once. `program` is the identifier in the journal.
/// `to_stderr` adds plain lines, as people and runtimes show them.
///
/// A log that can't be opened is no reason to fail: then there is standard error alone.
pub fn start(program: &'static str, level: LevelFilter, state_dir: &Path, to_stderr: bool) {
    let journal = journal_is_there()
        .then(|| tracing_journald::layer().ok())
        .flatten()
        .map(|layer| {
            layer
                .with_syslog_identifier(program.to_owned())
                .with_field_prefix(Some("OCI_HOTPLUG".to_owned()))
        });
    let file = journal.is_none().then(|| {
        let state_dir = state_dir.to_owned();
        // Opened for each record, of which there are few: whoever removes the file, or fills the disk, does not end it.
        let writer = move || match open_log_file(&state_dir) {
            Ok(file) => OptionalWriter::some(file),
            Err(_) => OptionalWriter::none(),
        };
        tracing_subscriber::fmt::layer()
            // A log that can't be written, on a full disk say, is nothing to complain of on a standard error that
            // may be closed: that would end the process.
            .log_internal_errors(false)
            .with_ansi(false)
            .with_target(false)
            .with_timer(Stamp(program))
            .with_writer(writer)
    });
    let stderr = to_stderr.then(|| {
        tracing_subscriber::fmt::layer()
            .log_internal_errors(false)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .without_time()
            .with_writer(io::stderr)
            .with_filter(LevelFilter::WARN)
    });
    let subscriber = tracing_subscriber::registry()
        .with(level)
        .with(journal)
        .with(file)
        .with(stderr);
    // Set once per process; a second time is a bug of the caller that tests would see, and not worth a panic.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Whether the host has a journal, which then has the log.
pub fn journal_is_there() -> bool {
    Path::new(JOURNAL).exists()
}

/// The time, and who speaks.
struct Stamp(&'static str);

impl FormatTime for Stamp {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        SystemTime.format_time(writer)?;
        write!(writer, " {}[{}]", self.0, std::process::id())
    }
}

fn open_log_file(state_dir: &Path) -> io::Result<File> {
    trust::check(state_dir).map_err(io::Error::other)?;
    let path = state_dir.join(LOG_FILE);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_FILE_MAX) {
        fs::rename(&path, state_dir.join(format!("{LOG_FILE}.old")))?;
    }
    let open = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
    };
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(state_dir)?;
            open()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tally::Tally;

    #[test]
    fn all_that_is_told_is_counted() {
        for event in event::ALL {
            let mut tally = Tally::default();
            tally.count(event);
            assert_ne!(tally, Tally::default(), "{event}");
        }
    }
}
