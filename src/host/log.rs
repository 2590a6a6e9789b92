//! Where log records go: the journal when there is one; else a file in the state directory, because nobody reads
//! the standard error of a hook under crun. Hooks and the operator's tool write to standard error as well.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::OptionalWriter;
use tracing_subscriber::prelude::*;

/// The journal's socket (systemd-journald.service(8)).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The log of a host without journal, in the state directory.
const LOG_FILE: &str = "oci-hotplug.log";

/// When the log file is put aside, in bytes. One older file is kept.
const LOG_FILE_MAX: u64 = 1 << 20;

/// Starts logging for this process; to be called once. `program` is the identifier in the journal.
/// `to_stderr` adds plain lines, as people and runtimes show them.
///
/// A log that can't be opened is no reason to fail: then there is standard error alone.
pub fn start(program: &'static str, level: LevelFilter, state_dir: &Path, to_stderr: bool) {
    let journal = Path::new(JOURNAL)
        .exists()
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
            .with_ansi(false)
            .with_target(false)
            .with_timer(Stamp(program))
            .with_writer(writer)
    });
    let stderr = to_stderr.then(|| {
        tracing_subscriber::fmt::layer()
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

/// The time, and who speaks.
struct Stamp(&'static str);

impl FormatTime for Stamp {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        SystemTime.format_time(writer)?;
        write!(writer, " {}[{}]", self.0, std::process::id())
    }
}

fn open_log_file(state_dir: &Path) -> io::Result<File> {
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
