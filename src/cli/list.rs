//! `oci-hotplug list`

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::json;

use super::table::print_line;
use super::{Enrolled, table, unwatched};
use crate::host::state::registry::{Record, Registry};
use crate::model::request::entry::RequestEntry;

/// Prints one line for each container.
pub fn run(registry: &Registry, as_json: bool) -> Result<()> {
    let mut containers = Enrolled::all(registry)?;
    // What `attach` gave was taken back: the watcher has nothing to do.
    containers.retain(|container| {
        let requests_nothing = |record: &Record| record.requests.is_empty();
        container.health() != "ok" || !container.record.as_ref().is_some_and(requests_nothing)
    });
    let mut out = std::io::stdout().lock();
    if as_json {
        let list: Vec<_> = containers.iter().map(to_json).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&list)?)?;
        return Ok(());
    }
    if containers.is_empty() {
        print_line!(
            out,
            "No container has a watcher: either none requests devices by the annotation io.oci-hotplug.devices, or its engine \
             did not run our hooks (`oci-hotplug check`; Docker needs --device oci-hotplug.dev/device=annotated)."
        )?;
        return write_others(&mut out, registry);
    }

    let rows: Vec<[String; 7]> = containers.iter().map(row).collect();
    table::write(
        &mut out,
        [
            "CONTAINER",
            "NAME",
            "ENGINE",
            "SINCE",
            "HEALTH",
            "INSIDE",
            "REQUESTS",
        ],
        &rows,
    )?;
    write_others(&mut out, registry)
}

/// How many of each kind are shown.
const MAX_OTHERS: usize = 5;

/// Containers that need a watcher and have none, and those that were not started.
fn write_others(out: &mut impl Write, registry: &Registry) -> Result<()> {
    let unwatched = unwatched::all(registry);
    let refused = unwatched::refused(registry);
    let explained = unwatched
        .iter()
        .map(unwatched::Unwatched::explanation)
        .take(MAX_OTHERS);
    let sentences = refused.iter().map(unwatched::sentence).take(MAX_OTHERS);
    for line in explained.chain(sentences) {
        let mut letters = line.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        print_line!(
            out,
            "{}{}",
            first.map(String::from).unwrap_or_default(),
            letters.as_str()
        )?;
    }
    if refused.len() > MAX_OTHERS {
        print_line!(
            out,
            "`oci-hotplug events` shows all containers that were not started."
        )?;
    }
    Ok(())
}

fn row(container: &Enrolled) -> [String; 7] {
    let since = container
        .record
        .as_ref()
        .map_or_else(String::new, |record| ago(since(record.enrolled)));
    let inside = container.status.as_ref().map_or_else(String::new, |status| {
        let paths: Vec<String> = status
            .attached
            .iter()
            .map(|(path, _)| path.display().to_string())
            .collect();
        if paths.is_empty() {
            "-".into()
        } else {
            paths.join(" ")
        }
    });
    let requests = container
        .record
        .as_ref()
        .map_or_else(String::new, |record| asked_for(&record.requests).join(", "));
    [
        container.short_id().to_owned(),
        container.name().unwrap_or_else(|| "-".into()),
        container
            .engine()
            .map_or_else(|| "-".into(), |engine| engine.to_string()),
        since,
        container.health().into(),
        inside,
        requests,
    ]
}

fn to_json(container: &Enrolled) -> serde_json::Value {
    json!({
        "id": container.id,
        "name": container.name(),
        "engine": container.engine(),
        "health": container.health(),
        "enrolled": container.record.as_ref().map(|record| record.enrolled),
        "requests": container.record.as_ref().map(|record| {
            asked_for(&record.requests)
        }),
        "inside": container.status.as_ref().map(|status| {
            status.attached.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>()
        }),
    })
}

/// What was asked for in the words that asked for it: a class by its name, once.
pub(super) fn asked_for(entries: &[RequestEntry]) -> Vec<String> {
    let mut texts: Vec<String> = entries.iter().map(RequestEntry::called).collect();
    let mut seen = BTreeSet::new();
    texts.retain(|text| seen.insert(text.clone()));
    texts
}

/// How long ago a time was, in seconds since 1970. A time that is yet to come (the clock was set back) is now.
pub(super) fn since(time: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_secs(time))
}

/// How long ago, in the one unit that says most.
pub(super) fn ago(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::entry::Origin;

    #[test]
    fn a_class_is_listed_by_its_name() {
        let entry = |text: &str| RequestEntry::new(Origin::Annotation, text.parse().unwrap());
        let all = [
            entry("usb:0403"),
            entry("usb:1050").of_class("lab"),
            entry("usb:1366").of_class("lab"),
        ];
        assert_eq!(asked_for(&all), ["usb:0403", "class:lab"]);
    }

    #[test]
    fn an_age_is_told_in_the_unit_that_says_most() {
        let told =
            [0, 59, 60, 3599, 3600, 86399, 86400, 864000].map(|seconds| ago(Duration::from_secs(seconds)));
        assert_eq!(told, ["0s", "59s", "1m", "59m", "1h", "23h", "1d", "10d"]);
    }
}
