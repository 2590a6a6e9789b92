//! Events in the log file of a host without journal: lines of
//! `TIME PROGRAM[PID] LEVEL MESSAGE container="…" event="…" device="…" node="…"`.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::moment::Moment;
use super::{Happening, Show};
use crate::host::log::{LOG_FILE, PRESTART, WATCHER, event};

/// How often a file that is followed is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Shows the file's events and those of the one before it, by time; with `follow` also what comes from now on.
pub(super) fn read(state_dir: &Path, with_past: bool, follow: bool, show: Show<'_>) -> Result<()> {
    let path = state_dir.join(LOG_FILE);
    // A watcher that runs goes on with the file that it has opened, also when that was put aside: all are read.
    let mut readers = Vec::new();
    readers.extend(Reader::open(&state_dir.join(format!("{LOG_FILE}.old")))?);
    readers.extend(Reader::open(&path)?);
    let mut past = Vec::new();
    for reader in &mut readers {
        past.extend(reader.read_new()?);
    }
    if with_past {
        past.sort_by_key(|happening| happening.time);
        past.into_iter().try_for_each(&mut *show)?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        if readers.last().is_none_or(|reader| reader.was_put_aside(&path)) {
            readers.extend(Reader::open(&path)?);
        }
        for reader in &mut readers {
            reader.read_new()?.into_iter().try_for_each(&mut *show)?;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// An open log file, and the beginning of a line that is not whole yet.
struct Reader {
    path: PathBuf,
    file: File,
    begun: Vec<u8>,
}

impl Reader {
    fn open(path: &Path) -> Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self {
                path: path.to_owned(),
                file,
                begun: Vec::new(),
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("opening {}", path.display())),
        }
    }

    fn read_new(&mut self) -> Result<Vec<Happening>> {
        let read = self.file.read_to_end(&mut self.begun);
        read.with_context(|| format!("reading {}", self.path.display()))?;
        let whole = self
            .begun
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.begun.drain(..whole).collect();
        Ok(String::from_utf8_lossy(&lines)
            .lines()
            .filter_map(happening)
            .collect())
    }

    /// Whether the file at its path is another one by now.
    fn was_put_aside(&self, path: &Path) -> bool {
        let (Ok(own), Ok(there)) = (self.file.metadata(), std::fs::metadata(path)) else {
            return false;
        };
        (own.dev(), own.ino()) != (there.dev(), there.ino())
    }
}

/// One line, if it tells of an event. Fields stand at the end, and a quotation mark in a value has a `\` in front: no
/// text in the message can pass for a field.
fn happening(line: &str) -> Option<Happening> {
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
    if of_hook.is_some() && word != event::NOT_STARTED {
        return None;
    }
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Some(Happening {
        time: Moment::parse(time)?,
        container,
        event: word,
        device: some(device),
        node: some(node),
        message: message.to_owned(),
    })
}

/// What stands before the last field, and its value.
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
        let read = happening(&line("attached /dev/vcs20 (c 7:20 rwm)", fields)).unwrap();
        assert_eq!(read.time.to_string(), "2026-11-21T14:13:38Z");
        assert_eq!(read.message, "attached /dev/vcs20 (c 7:20 rwm)");
        assert_eq!(read.node.as_deref(), Some("/dev/vcs20"));
    }

    #[test]
    fn a_hook_s_line_tells_of_a_refused_start_alone() {
        let line = |event: &str| {
            format!(
                "2026-11-21T14:13:38.939211Z oci-hotplug-prestart[77] ERROR container lab was not started: no container=\"c1\" event=\"{event}\" device=\"\" node=\"\""
            )
        };
        let read = happening(&line("no-start")).unwrap();
        assert_eq!((read.container.as_str(), read.event.as_str()), ("c1", "no-start"));
        assert_eq!(
            (read.device, read.message.as_str()),
            (None, "container lab was not started: no")
        );
        assert_eq!(happening(&line("attached")), None);
    }

    #[test]
    fn lines_that_tell_of_no_event_are_passed_over() {
        for other in [
            "",
            "2026-11-21T14:13:38.939211Z oci-hotplug-watcher[77]  WARN device events were lost container=c1",
            "2026-11-21T14:13:38.939211Z oci-hotplug-prestart[77]  INFO x container=\"a\" event=\"b\" device=\"\" node=\"\"",
            "torn oci-hotplug-watcher[77]  INFO x container=\"a\" event=\"b\" device=\"\" node=\"\"",
        ] {
            assert_eq!(happening(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_strangers_text_can_t_pass_for_a_field(
            message in "[a-z =\"\\\\]{0,40}( container=\"x\" event=\"attached\" device=\"\" node=\"y\")?",
            node in "[ -~\u{7f}\n\t]{0,30}( container=\"x\")?",
        ) {
            let read = happening(&line(&message, ["c1", "refused", "/devices/d", &node])).unwrap();
            prop_assert_eq!((read.container.as_str(), read.event.as_str()), ("c1", "refused"));
            prop_assert_eq!(read.node.unwrap_or_default(), node);
            prop_assert_eq!(read.message, message);
        }
    }
}
