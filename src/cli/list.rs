//! `oci-hotplug list`

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Result;
use serde_json::json;

use super::enrolled::Enrolled;
use super::not_enrolled::{self, NotEnrolled};
use super::render::json::write_json;
use super::render::table::{self, print_line};
use super::render::time::{ago, since};
use crate::host::state::record::Record;
use crate::host::state::registry::Registry;
use crate::model::request::entry::RequestEntry;

/// Prints one line for each container.
pub fn run(registry: &Registry, as_json: bool) -> Result<()> {
    let mut containers = Enrolled::all(registry)?;
    // All requests were taken back by `detach`: such a watcher has nothing to do.
    containers.retain(|container| {
        let requests_nothing = |record: &Record| record.requests.is_empty();
        container.health() != "ok" || !container.record.as_ref().is_some_and(requests_nothing)
    });
    let mut out = std::io::stdout().lock();
    if as_json {
        let list: Vec<_> = containers.iter().map(to_json).collect();
        write_json(&mut out, &list)?;
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
            "ATTACHED",
            "REQUESTS",
        ],
        &rows,
    )?;
    write_others(&mut out, registry)
}

/// The most lines of each kind.
const MAX_OTHERS: usize = 5;

/// Writes the containers that need a watcher and have none, and those that a hook did not let
/// start.
fn write_others(out: &mut impl Write, registry: &Registry) -> Result<()> {
    let not_enrolled = not_enrolled::all(registry);
    let refused = not_enrolled::refused(registry);
    let explained = not_enrolled.iter().map(NotEnrolled::explanation).take(MAX_OTHERS);
    let sentences = refused.iter().map(not_enrolled::sentence).take(MAX_OTHERS);
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
    let attached = container.status.as_ref().map_or_else(String::new, |status| {
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
        .map_or_else(String::new, |record| request_texts(&record.requests).join(", "));
    [
        container.short_id().to_owned(),
        container.name().unwrap_or_else(|| "-".into()),
        container
            .engine()
            .map_or_else(|| "-".into(), |engine| engine.to_string()),
        since,
        container.health().into(),
        attached,
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
            request_texts(&record.requests)
        }),
        "attached": container.status.as_ref().map(|status| {
            status.attached.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>()
        }),
    })
}

/// The requests as they were written: a class by its name, once.
pub(super) fn request_texts(entries: &[RequestEntry]) -> Vec<String> {
    let mut texts: Vec<String> = entries.iter().map(RequestEntry::called).collect();
    let mut seen = BTreeSet::new();
    texts.retain(|text| seen.insert(text.clone()));
    texts
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
        assert_eq!(request_texts(&all), ["usb:0403", "class:lab"]);
    }
}
