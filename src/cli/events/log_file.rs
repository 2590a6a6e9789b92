//! Events in the log file of a host without journal: lines of
//! `TIME PROGRAM[PID] LEVEL MESSAGE container="…" event="…" device="…" node="…"`.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::logged_event::{LoggedEvent, Show};
use super::timestamp::Timestamp;
use crate::host::file_system::file_id;
use crate::host::log::{LOG_FILE, PRESTART, WATCHER, event};
use crate::host::regular_file;

/// How often a followed file is read.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Shows the events of the file and of the rotated file before it, by time; with `follow` also new
/// ones.
pub(super) fn read(state_dir: &Path, with_past: bool, follow: bool, show: Show<'_>) -> Result<()> {
    let path = state_dir.join(LOG_FILE);
    // A running watcher keeps writing to the file that it opened, also after rotation, so read all
    // of them.
    let mut readers = Vec::new();
    readers.extend(Reader::open(&state_dir.join(format!("{LOG_FILE}.old")))?);
    readers.extend(Reader::open(&path)?);
    let mut past = Vec::new();
    for reader in &mut readers {
        past.extend(reader.read_new()?);
    }
    if with_past {
        past.sort_by_key(|event| event.time);
        past.into_iter().try_for_each(&mut *show)?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        if readers.last().is_none_or(|reader| reader.was_rotated(&path)) {
            readers.extend(Reader::open(&path)?);
        }
        for reader in &mut readers {
            reader.read_new()?.into_iter().try_for_each(&mut *show)?;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// An open log file, and the beginning of its last line, which is not complete yet.
struct Reader {
    path: PathBuf,
    file: File,
    incomplete: Vec<u8>,
}

impl Reader {
    fn open(path: &Path) -> Result<Option<Self>> {
        match regular_file::open_to_read(path) {
            Ok(file) => Ok(Some(Self {
                path: path.to_owned(),
                file,
                incomplete: Vec::new(),
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
        }
    }

    fn read_new(&mut self) -> Result<Vec<LoggedEvent>> {
        let read = self.file.read_to_end(&mut self.incomplete);
        read.with_context(|| format!("cannot read {}", self.path.display()))?;
        let end = self
            .incomplete
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.incomplete.drain(..end).collect();
        Ok(String::from_utf8_lossy(&lines)
            .lines()
            .filter_map(event_of)
            .collect())
    }

    /// Whether there is another file at the path now.
    fn was_rotated(&self, path: &Path) -> bool {
        let (Ok(own), Ok(there)) = (self.file.metadata(), std::fs::metadata(path)) else {
            return false;
        };
        file_id(&own) != file_id(&there)
    }
}

/// The event of a line, if it has one. The fields are at the end, and a quotation mark in a value
/// has a `\` in front, so text in the message cannot pass for a field.
fn event_of(line: &str) -> Option<LoggedEvent> {
    let (time, rest) = line.split_once(' ')?;
    let of_hook = rest.strip_prefix(PRESTART);
    let (_, rest) = of_hook
        .or_else(|| rest.strip_prefix(WATCHER))?
        .strip_prefix('[')?
        .split_once("] ")?;
    let (_, rest) = rest.trim_start().split_once(' ')?;
    let (rest, node) = last_field(rest, "node")?;
    let (rest, device) = last_field(rest, "device")?;
    let (rest, word) = last_field(rest, "event")?;
    let (message, container) = last_field(rest, "container")?;
    if of_hook.is_some() && word != event::REFUSED_START {
        return None;
    }
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Some(LoggedEvent {
        time: Timestamp::parse(time)?,
        container,
        event: word,
        device: some(device),
        node: some(node),
        message: message.to_owned(),
    })
}

/// The text before the last field, and the field's value.
fn last_field<'l>(line: &'l str, name: &str) -> Option<(&'l str, String)> {
    let (before, value) = line.strip_suffix('"')?.rsplit_once(&format!(" {name}=\""))?;
    Some((before, unquoted(value)?))
}

/// A text without the escapes of Rust's `{:?}`.
fn unquoted(text: &str) -> Option<String> {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '"' => return None,
            '\\' => match letters.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '0' => '\0',
                'u' => {
                    let code: String = letters
                        .by_ref()
                        .skip(1)
                        .take_while(|letter| *letter != '}')
                        .collect();
                    char::from_u32(u32::from_str_radix(&code, 16).ok()?)?
                }
                other => other,
            },
            letter => letter,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(message: &str, [container, event, device, node]: [&str; 4]) -> String {
        format!(
            "2026-11-21T14:13:38.939211Z oci-hotplug-watcher[77]  INFO {message} container={container:?} event={event:?} device={device:?} node={node:?}"
        )
    }

    #[test]
    fn a_line_is_read_back() {
        let fields = ["c1", "attached", "/devices/virtual/vc/vcs20", "/dev/vcs20"];
        let read = event_of(&line("attached /dev/vcs20 (c 7:20 rwm)", fields)).unwrap();
        assert_eq!(read.time.to_string(), "2026-11-21T14:13:38Z");
        assert_eq!(read.message, "attached /dev/vcs20 (c 7:20 rwm)");
        assert_eq!(read.node.as_deref(), Some("/dev/vcs20"));
    }

    #[test]
    fn a_line_of_a_hook_is_an_event_only_if_it_reports_a_refused_start() {
        let line = |event: &str| {
            format!(
                "2026-11-21T14:13:38.939211Z oci-hotplug-prestart[77] ERROR container lab was not started: no container=\"c1\" event=\"{event}\" device=\"\" node=\"\""
            )
        };
        let read = event_of(&line("refused-start")).unwrap();
        assert_eq!(
            (read.container.as_str(), read.event.as_str()),
            ("c1", "refused-start")
        );
        assert_eq!(
            (read.device, read.message.as_str()),
            (None, "container lab was not started: no")
        );
        assert_eq!(event_of(&line("attached")), None);
    }

    #[test]
    fn lines_without_an_event_are_skipped() {
        for other in [
            "",
            "2026-11-21T14:13:38.939211Z oci-hotplug-watcher[77]  WARN device events were lost container=c1",
            "2026-11-21T14:13:38.939211Z oci-hotplug-prestart[77]  INFO x container=\"a\" event=\"b\" device=\"\" node=\"\"",
            "torn oci-hotplug-watcher[77]  INFO x container=\"a\" event=\"b\" device=\"\" node=\"\"",
        ] {
            assert_eq!(event_of(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn untrusted_text_cannot_pass_for_a_field(
            message in "[a-z =\"\\\\]{0,40}( container=\"x\" event=\"attached\" device=\"\" node=\"y\")?",
            node in "[ -~\u{7f}\n\t]{0,30}( container=\"x\")?",
        ) {
            let read = event_of(&line(&message, ["c1", "denied", "/devices/d", &node])).unwrap();
            prop_assert_eq!((read.container.as_str(), read.event.as_str()), ("c1", "denied"));
            prop_assert_eq!(read.node.unwrap_or_default(), node);
            prop_assert_eq!(read.message, message);
        }
    }
}
