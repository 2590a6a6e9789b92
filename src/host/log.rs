//! The log: the journal if the host has one, else a file in the state directory, because crun
//! discards the standard error of hooks. Hooks and the operator's tool also write to standard
//! error.

mod file;
mod spanless;

use std::borrow::Cow;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::field::{Field, Value, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::MakeWriterExt;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

pub(crate) use self::file::LOG_FILE;
use self::file::{LogFile, LogWriter};
use self::spanless::Spanless;
use crate::model::quoting::visible;

/// Values of the field `event` in a watcher's log records, beside `container`, `device` (its path
/// in sysfs) and `node` (its path in the container). In the journal these fields are
/// `OCI_HOTPLUG_EVENT=` and so on; in the log file they are at the end of the line in this order,
/// quoted as Rust does it.
pub(crate) mod event {
    pub(crate) const ATTACHED: &str = "attached";
    pub(crate) const DETACHED: &str = "detached";
    /// The policy denies a device.
    pub(crate) const DENIED: &str = "denied";
    /// Another container holds the device exclusively; it is attached when that container releases
    /// it.
    pub(crate) const WAITING: &str = "waiting";
    /// A disk that was attached is in another container as well.
    pub(crate) const SHARED: &str = "shared";
    /// A device was attached to a rootless container, and nobody there may open the host's node.
    pub(crate) const INACCESSIBLE: &str = "inaccessible";
    /// A step failed and will be tried again.
    pub(crate) const FAILED: &str = "failed";
    /// The engine had replaced the device filter, and access was granted again; or the container
    /// had unmounted a node, and it is mounted again.
    pub(crate) const RESTORED: &str = "restored";
    /// Uevents were lost, so all devices are read again.
    pub(crate) const OVERRUN: &str = "overrun";
    /// A hook refused to start a container. The record has neither `device` nor `node`.
    pub(crate) const REFUSED_START: &str = "refused-start";
    /// All events of watchers.
    pub(crate) const ALL: [&str; 9] = [
        ATTACHED,
        DETACHED,
        DENIED,
        WAITING,
        SHARED,
        INACCESSIBLE,
        FAILED,
        RESTORED,
        OVERRUN,
    ];
}

/// The log identifier of the prestart hook.
pub(crate) const PRESTART: &str = "oci-hotplug-prestart";
/// The log identifier of watchers.
pub(crate) const WATCHER: &str = "oci-hotplug-watcher";

/// The journal's socket (systemd-journald.service(8)).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// How long a write may wait for a blocked reader of standard error, in milliseconds.
const STDERR_TIMEOUT: u16 = 1000;

/// Prints a line to standard error as far as possible. Standard error may be closed, full, or never
/// read; none of that changes the exit code.
pub(crate) fn print_to_stderr(line: &str) {
    let mut stderr = io::stderr();
    // A pipe that poll(2) reports as writable takes this much without blocking (pipe(7)).
    for piece in format!("{}\n", visible(line))
        .as_bytes()
        .chunks(nix::libc::PIPE_BUF)
    {
        let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        let is_ready = poll(&mut ready, PollTimeout::from(STDERR_TIMEOUT)).is_ok_and(|count| count > 0);
        if !is_ready || stderr.write_all(piece).is_err() {
            return;
        }
    }
}

/// Starts logging; call it once per process. `program` is the identifier in the journal.
/// `to_stderr` also prints records without timestamps to standard error, for people and runtimes.
///
/// A log that cannot be opened is not an error: standard error remains.
pub(crate) fn start(program: &'static str, level: LevelFilter, state_dir: &Path, to_stderr: bool) {
    let journal = has_journal()
        .then(|| tracing_journald::layer().ok())
        .flatten()
        .map(|layer| {
            let layer = layer.with_syslog_identifier(program.to_owned());
            VisibleFields(layer.with_field_prefix(Some("OCI_HOTPLUG".to_owned())))
        });
    let file = journal.is_none().then(|| {
        let file = Arc::new(LogFile::new(state_dir));
        let writer = move || VisibleLine(LogWriter(file.clone()));
        tracing_subscriber::fmt::layer()
            // A failed write (full disk) must not be reported on standard error: that may be
            // closed, and then the report would end the process.
            .log_internal_errors(false)
            .with_ansi(false)
            .with_target(false)
            .with_timer(LinePrefix(program, std::process::id()))
            .with_writer(writer)
    });
    let stderr = to_stderr.then(|| {
        tracing_subscriber::fmt::layer()
            .log_internal_errors(false)
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .with_writer((|| VisibleLine(io::stderr())).with_max_level(Level::WARN))
    });
    let subscriber = Spanless.with(level).with(journal).with(file).with(stderr);
    // Fails only if called twice, a bug that tests would show. It is not worth a panic.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Writes each record as one line. Text that comes from elsewhere (paths of a container,
/// annotations, strings of a device) can neither forge a line nor move the cursor. The formatter
/// passes a whole record at once.
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

/// Escapes such text in every field before it passes a record on: the journal stores texts
/// unchanged.
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
        // A value set has a fixed length; the subscriber skips fields without a value.
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
pub(crate) fn has_journal() -> bool {
    Path::new(JOURNAL).exists()
}

/// The start of a line in the log file: time, program and pid.
struct LinePrefix(&'static str, u32);

impl FormatTime for LinePrefix {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        SystemTime.format_time(writer)?;
        write!(writer, " {}[{}]", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::counters::Counters;
    use std::fs::{self, OpenOptions};
    use std::sync::Mutex;

    const HOSTILE: &str = "x\n2026-11-21T14:13:38Z oci-hotplug-watcher[1] INFO forged\u{1b}[2J\u{202e}\u{9b}";

    /// A layer that stores the fields of each record.
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
    fn untrusted_text_cannot_forge_a_line_in_the_journal() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let layer = Spanless.with(VisibleFields(Kept(kept.clone())));
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
    fn untrusted_text_cannot_forge_a_line_in_the_log_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = path.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || {
                VisibleLine(OpenOptions::new().append(true).create(true).open(&file).unwrap())
            });
        tracing::subscriber::with_default(Spanless.with(layer), || {
            // The log has no spans.
            let _entered = tracing::info_span!("span", inside = 1).entered();
            tracing::warn!(container = %HOSTILE, node = HOSTILE, "{HOSTILE}");
            tracing::warn!("second");
        });
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains("inside"), "{text}");
        assert!(
            !text.contains(|letter: char| letter != '\n' && letter.is_control()),
            "{text}"
        );
        assert!(!text.contains('\u{202e}'), "{text}");
    }

    #[test]
    fn every_event_has_a_counter() {
        for event in event::ALL {
            let mut counters = Counters::default();
            counters.count(event);
            assert_ne!(counters, Counters::default(), "{event}");
        }
    }
}
