//! Events in systemd's journal, through journalctl(1), which knows its files.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::logged_event::{LoggedEvent, Show};
use super::timestamp::Timestamp;
use crate::host::log::{PRESTART, WATCHER, event};

/// A journalctl process; ended when this is dropped.
struct Journalctl(Child);

impl Drop for Journalctl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Shows the journal's events: with `follow` also new ones, and then without `since` only new ones.
pub(super) fn read(since: Option<Timestamp>, follow: bool, show: Show<'_>) -> Result<()> {
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--all", "--no-pager", "--output=json"]);
    match since {
        Some(since) => {
            command
                .arg(format!("--since=@{}", since.seconds()))
                .arg("--no-tail");
        }
        None if follow => {
            command.arg("--lines=0");
        }
        None => {}
    }
    if follow {
        command.arg("--follow");
    }
    // Several values of one field are alternatives.
    command.args([WATCHER, PRESTART].map(|program| format!("SYSLOG_IDENTIFIER={program}")));
    command.arg(format!("OCI_HOTPLUG_EVENT={}", event::REFUSED_START));
    command.args(event::ALL.map(|event| format!("OCI_HOTPLUG_EVENT={event}")));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut journalctl =
        Journalctl(child.context("cannot start journalctl (of package systemd), which reads the journal")?);
    let output = journalctl.0.stdout.take().context("journalctl has no output")?;
    for line in BufReader::new(output).lines() {
        if let Some(event) = event_of(&line.context("cannot read the output of journalctl")?) {
            show(event)?;
        }
    }
    let status = journalctl.0.wait().context("cannot wait for journalctl")?;
    // 1 means that no entry matches.
    match status.code() {
        Some(0 | 1) => Ok(()),
        _ => bail!("journalctl: {status} (see its message above)"),
    }
}

/// One entry as `journalctl -o json` writes it (systemd.journal-fields(7), "Journal JSON Format").
fn event_of(line: &str) -> Option<LoggedEvent> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let some = |field: &str| text(&entry[field]).filter(|text| !text.is_empty());
    Some(LoggedEvent {
        time: Timestamp::from_micros(some("__REALTIME_TIMESTAMP")?.parse().ok()?)?,
        container: some("OCI_HOTPLUG_CONTAINER")?,
        event: some("OCI_HOTPLUG_EVENT")?,
        device: some("OCI_HOTPLUG_DEVICE"),
        node: some("OCI_HOTPLUG_NODE"),
        message: some("MESSAGE")?,
    })
}

/// A text, or the bytes of one that is not printable.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(bytes) => {
            let bytes: Option<Vec<u8>> = bytes
                .iter()
                .map(|byte| u8::try_from(byte.as_u64()?).ok())
                .collect();
            Some(String::from_utf8_lossy(&bytes?).into_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_with_texts_and_with_bytes() {
        let line = r#"{"__REALTIME_TIMESTAMP":"1795270418939211","MESSAGE":[97,27],"OCI_HOTPLUG_CONTAINER":"c1","OCI_HOTPLUG_EVENT":"failed","OCI_HOTPLUG_DEVICE":"","OCI_HOTPLUG_NODE":"/dev/x","_UID":"0"}"#;
        let read = event_of(line).unwrap();
        assert_eq!(read.time.to_string(), "2026-11-21T14:13:38Z");
        assert_eq!(
            (
                read.container.as_str(),
                read.event.as_str(),
                read.message.as_str()
            ),
            ("c1", "failed", "a\u{1b}")
        );
        assert_eq!((read.device, read.node.as_deref()), (None, Some("/dev/x")));
        assert_eq!(event_of(r#"{"MESSAGE":"other"}"#), None);
        assert_eq!(event_of("no json"), None);
    }
}
