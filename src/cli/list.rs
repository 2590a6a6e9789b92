//! `oci-hotplug list`

mod draw;

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Result;
use serde_json::json;

use self::draw::{Listed, draw};
use super::enrolled::Enrolled;
use super::not_enrolled::{self, NotEnrolled};
use super::render::json::write_json_list;
use super::render::table::screen_width;
use super::render::time::{ago, since};
use crate::host::state::record::Record;
use crate::host::state::registry::Registry;
use crate::model::request::entry::RequestEntry;

/// Prints one line for each container, and below the table what needs attention.
pub(super) fn run(registry: &Registry, as_json: bool) -> Result<()> {
    let mut containers = Enrolled::all(registry)?;
    // All requests were taken back by `detach`: such a watcher has nothing to do.
    containers.retain(|container| {
        let requests_nothing = |record: &Record| record.requests.is_empty();
        container.health() != "ok" || !container.record.as_ref().is_some_and(requests_nothing)
    });
    let mut out = anstream::stdout().lock();
    if as_json {
        let list: Vec<_> = containers.iter().map(to_json).collect();
        return write_json_list(&mut out, "containers", &list);
    }
    let listed: Vec<Listed> = containers.iter().map(listed).collect();
    let drawn = draw(&listed, &others(registry), screen_width());
    out.write_all(drawn.as_bytes())?;
    Ok(())
}

/// The most lines of each kind.
const MAX_OTHERS: usize = 5;

/// The containers that need a watcher and have none, and those that a hook did not let start.
fn others(registry: &Registry) -> Vec<String> {
    let not_enrolled = not_enrolled::all(registry);
    let refused = not_enrolled::refused(registry);
    let explained = not_enrolled.iter().map(NotEnrolled::explanation).take(MAX_OTHERS);
    let sentences = refused.iter().map(not_enrolled::sentence).take(MAX_OTHERS);
    let mut all: Vec<String> = explained.chain(sentences).collect();
    if refused.len() > MAX_OTHERS {
        all.push("`oci-hotplug events` shows all containers that were not started".into());
    }
    all
}

fn listed(container: &Enrolled) -> Listed {
    let record = container.record.as_ref();
    let status = container.status.as_ref();
    Listed {
        id: container.short_id().to_owned(),
        name: container.name(),
        engine: container.engine(),
        age: record.map(|record| ago(since(record.enrolled))),
        health: container.health(),
        attached: status.map(|status| status.attached.iter().map(|(path, _)| path.to_owned()).collect()),
        requests: record.map_or_else(Vec::new, |record| request_texts(&record.requests)),
        reasons: reasons(container),
    }
}

/// Why the container's health is not `ok`.
fn reasons(container: &Enrolled) -> Vec<String> {
    match container.health() {
        "ok" => Vec::new(),
        _ => container.reasons(),
    }
}

fn to_json(container: &Enrolled) -> serde_json::Value {
    json!({
        "id": container.id,
        "name": container.name(),
        "engine": container.engine(),
        "health": container.health(),
        "reasons": reasons(container),
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
    let mut texts: Vec<String> = entries.iter().map(RequestEntry::display_name).collect();
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
