//! Where log records go: the journal when there is one; else a file in the state directory, because
//! nobody reads the standard error of a hook under crun. Hooks and the operator's tool write to
//! standard error as well.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::field::{Field, Value, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::OptionalWriter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

/// What happens to a container's devices: the field `event` of a watcher's record, beside
/// `container`, `device` (its path in sysfs) and `node` (its path in the container). In the journal
/// they are `OCI_HOTPLUG_EVENT=` and so on; in the log file they stand in this order at the end of
/// the line, quoted as Rust does.
pub mod event {
    /// A device came into the container.
    pub const ATTACHED: &str = "attached";
    /// A device left it.
    pub const DETACHED: &str = "detached";
    /// The policy keeps a device out.
    pub const REFUSED: &str = "refused";
    /// A device comes when another container lets it go.
    pub const WAITING: &str = "waiting";
    /// A disk that came into the container is in another one as well.
    pub const SHARED: &str = "shared";
    /// Something could not be done; it is tried again.
    pub const FAILED: &str = "failed";
    /// The engine had replaced the device filter, and access was given again.
    pub const RESTORED: &str = "restored";
    /// Events of the kernel were lost, and all devices are read anew.
    pub const OVERRUN: &str = "overrun";
    /// A hook refused the start of a container; neither `device` nor `node`.
    pub const NOT_STARTED: &str = "no-start";
    /// All of a watcher.
    pub const ALL: [&str; 8] = [
        ATTACHED, DETACHED, REFUSED, WAITING, SHARED, FAILED, RESTORED, OVERRUN,
    ];
}

/// The identifier of the hook that starts watchers, and refuses containers, in the log.
pub const PRESTART: &str = "oci-hotplug-prestart";
/// The watcher's identifier in the log.
pub const WATCHER: &str = "oci-hotplug-watcher";
use crate::host::state::trust;
use crate::model::quoting::visible;

/// The journal's socket (systemd-journald.service(8)).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The log of a host without journal, in the state directory.
pub const LOG_FILE: &str = "oci-hotplug.log";

/// When the log file is put aside, in bytes. One older file is kept.
const LOG_FILE_MAX: u64 = 1 << 20;

/// How long a reader of standard error may keep us waiting, in milliseconds.
const READER_PATIENCE: u16 = 1000;

/// Writes a line to standard error, as far as anybody takes it. Whoever started us may have closed
/// it, filled it, or never read from it: nothing of that is to change how we end.
pub fn tell(line: &str) {
    let mut stderr = io::stderr();
    // A pipe that is ready takes so much at once (pipe(7), poll(2)).
    for piece in format!("{}\n", visible(line))
        .as_bytes()
        .chunks(nix::libc::PIPE_BUF)
    {
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
            let layer = layer.with_syslog_identifier(program.to_owned());
            VisibleFields(layer.with_field_prefix(Some("OCI_HOTPLUG".to_owned())))
        });
    let file = journal.is_none().then(|| {
        let state_dir = state_dir.to_owned();
        // Opened for each record, of which there are few: whoever removes the file, or fills the
        // disk, does not end it.
        let writer = move || match open_log_file(&state_dir) {
            Ok(file) => VisibleLine(OptionalWriter::some(file)),
            Err(_) => VisibleLine(OptionalWriter::none()),
        };
        tracing_subscriber::fmt::layer()
            // A log that can't be written, on a full disk say, is nothing to complain of on a
            // standard error that may be closed: that would end the process.
            .log_internal_errors(false)
            .with_ansi(false)
            .with_target(false)
            .with_timer(Stamp(program))
            .with_writer(writer)
    });
    let stderr = to_stderr.then(|| {
        tracing_subscriber::fmt::layer()
            .log_internal_errors(false)
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .with_writer(|| VisibleLine(io::stderr()))
            .with_filter(LevelFilter::WARN)
    });
    let subscriber = tracing_subscriber::registry()
        .with(level)
        .with(journal)
        .with(file)
        .with(stderr);
    // Set once per process; a second time is a bug of the caller that tests would see, and not
    // worth a panic.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Writes each record as one line whose foreign text (paths of a container, annotations, strings of
/// a device) forges no line and moves no cursor. The formatter hands a whole record over at once.
struct VisibleLine<W>(W);

impl<W: Write> Write for VisibleLine<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record.strip_suffix(b"\n").unwrap_or(record));
        self.0.write_all(format!("{}\n", visible(&text)).as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Hands records on with such text made visible in every field: a journal keeps texts as they are.
struct VisibleFields<L>(L);

impl<S: Subscriber, L: Layer<S>> Layer<S> for VisibleFields<L> {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if fields
            .0
            .iter()
            .all(|(_, text)| matches!(visible(text), Cow::Borrowed(_)))
        {
            return self.0.on_event(event, context);
        }
        let metadata = event.metadata();
        let fields: Vec<(Field, String)> = fields
            .0
            .into_iter()
            .map(|(field, text)| (field, visible(&text).into_owned()))
            .collect();
        let Some((first, _)) = fields.first() else { return };
        // A set of values has a fixed length; a field without a value is passed over.
        let mut values: [(&Field, Option<&dyn Value>); MAX_FIELDS] = [(first, None); MAX_FIELDS];
        for (value, (field, text)) in values.iter_mut().zip(&fields) {
            *value = (field, Some(text as &dyn Value));
        }
        let set = metadata.fields().value_set(&values);
        self.0.on_event(&Event::new(metadata, &set), context);
    }
}

/// More fields than any of our records has.
const MAX_FIELDS: usize = 8;

/// The fields of a record as texts.
#[derive(Default)]
struct Fields(Vec<(Field, String)>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push((field.clone(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.clone(), value.to_owned()));
    }
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
    use crate::model::counters::Counters;
    use std::sync::{Arc, Mutex};

    const HOSTILE: &str = "x\n2026-11-21T14:13:38Z oci-hotplug-watcher[1] INFO forged\u{1b}[2J\u{202e}\u{9b}";

    /// A layer that keeps the fields of the records that it is handed.
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let texts = fields
                .0
                .into_iter()
                .map(|(field, text)| format!("{field}={text}"));
            self.0.lock().unwrap().extend(texts);
        }
    }

    /// Case security 5.
    #[test]
    fn foreign_text_forges_no_line_in_the_journal() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let layer = tracing_subscriber::registry().with(VisibleFields(Kept(kept.clone())));
        tracing::subscriber::with_default(layer, || {
            tracing::warn!(container = "c1", node = HOSTILE, number = 7, "{HOSTILE}");
            tracing::warn!(container = %"c1", "plain");
        });
        let shown = visible(HOSTILE);
        assert!(shown.starts_with("x\\n2026"), "{shown}");
        assert_eq!(
            *kept.lock().unwrap(),
            [
                format!("message={shown}"),
                "container=c1".into(),
                format!("node={shown}"),
                "number=7".into(),
                "message=plain".into(),
                "container=c1".into(),
            ]
        );
    }

    /// Case security 5.
    #[test]
    fn foreign_text_forges_no_line_in_the_log_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = path.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || {
                VisibleLine(OpenOptions::new().append(true).create(true).open(&file).unwrap())
            });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(container = %HOSTILE, node = HOSTILE, "{HOSTILE}");
            tracing::warn!("second");
        });
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(
            !text.contains(|letter: char| letter != '\n' && letter.is_control()),
            "{text}"
        );
        assert!(!text.contains('\u{202e}'), "{text}");
    }

    #[test]
    fn all_that_is_told_is_counted() {
        for event in event::ALL {
            let mut counters = Counters::default();
            counters.count(event);
            assert_ne!(counters, Counters::default(), "{event}");
        }
    }
}
