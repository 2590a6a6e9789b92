//! The requests that the arguments of `attach` and `detach` stand for: requests, classes, CDI
//! devices.

use anyhow::{Result, bail};

use crate::cdi::directories::{Definition, Specs};
use crate::cdi::document::{Device, Edits};
use crate::cdi::generate;
use crate::cdi::names::QualifiedName;
use crate::cdi::node_requests::node_requests;
use crate::cli::cdi::show;
use crate::cli::list::request_texts;
use crate::model::request::annotations::{RequestListError, read_list};
use crate::model::request::class::Classes;
use crate::model::request::entry::{Origin, RequestEntry, Requests};
use crate::model::request::symlink::parse_symlinks;
use crate::model::request::{ListItem, parse_request_list};

/// The requests that the arguments stand for.
#[derive(Debug, Default)]
pub(super) struct ResolvedRequests {
    /// Trusted requests, and the rules for links of classes.
    pub requests: Requests,
    /// The edits of CDI devices that a running container can't have.
    pub not_applied: Vec<NotApplied>,
}

/// An edit of a CDI device that only an engine can make, before the container starts.
#[derive(Debug, serde::Serialize)]
pub(super) struct NotApplied {
    /// The name of the CDI device.
    pub device: String,
    /// The edit.
    pub edit: String,
}

impl ResolvedRequests {
    /// Reads the arguments. `specs` is called only when one names a CDI device.
    pub(super) fn read(words: &[String], classes: &Classes, specs: impl Fn() -> Specs) -> Result<Self> {
        let mut resolved = Self::default();
        for word in words {
            if is_cdi(word) {
                resolved.add_device(word, &specs(), classes)?;
            } else {
                let requests = read_list(Origin::Root, word, classes)?;
                resolved.requests.extend(requests);
            }
        }
        Ok(resolved)
    }

    fn add_device(&mut self, name: &str, specs: &Specs, classes: &Classes) -> Result<()> {
        let edits = match specs.resolve(&[name.to_owned()]) {
            Ok(edits) => edits,
            Err(unresolved) => {
                let all: Vec<String> = unresolved.iter().map(ToString::to_string).collect();
                bail!("cannot attach CDI device {}", all.concat());
            }
        };
        // A CDI device of ours has no nodes, but our hooks: take the requests in their arguments.
        match specs.devices().get(name) {
            Some(Definition::By { device, .. }) if generate::is_our_device(device) => {
                self.add_hook_arguments(name, device, classes)?;
            }
            _ => self.add_edits(name, edits),
        }
        if self.requests.entries.iter().any(|entry| is_of(entry, name)) {
            return Ok(());
        }
        let others = self.not_applied.iter();
        let others = others.filter(|not_applied| not_applied.device == name);
        let others: Vec<&str> = others.map(|not_applied| not_applied.edit.as_str()).collect();
        bail!(
            "cannot attach CDI device {name}: it has nothing that a running container can still get{} (start the container with it: --device {name})",
            if others.is_empty() {
                String::new()
            } else {
                format!(", only {}", others.join(", "))
            }
        )
    }

    fn add_hook_arguments(&mut self, name: &str, device: &Device, classes: &Classes) -> Result<()> {
        for text in generate::requests(device) {
            for entry in read_list(Origin::Root, text, classes)?.entries {
                self.add_entry(name, entry);
            }
        }
        for text in generate::symlinks(device) {
            let rules = parse_symlinks(text).map_err(RequestListError::from)?;
            self.requests.symlinks.extend(rules);
        }
        Ok(())
    }

    fn add_edits(&mut self, name: &str, edits: Edits) {
        let nodes = node_requests(&edits);
        for request in nodes.requests {
            self.add_entry(name, RequestEntry::new(Origin::Root, request));
        }
        let others = Edits {
            device_nodes: Vec::new(),
            ..edits
        };
        let not_applied = nodes.not_applied.into_iter().chain(show::lines(&others));
        self.not_applied.extend(not_applied.map(|edit| NotApplied {
            device: name.to_owned(),
            edit,
        }));
    }

    fn add_entry(&mut self, device: &str, entry: RequestEntry) {
        self.requests.entries.push(RequestEntry {
            cdi: Some(device.to_owned()),
            ..entry
        });
    }
}

/// Whether a request is one of a CDI device.
fn is_of(entry: &RequestEntry, device: &str) -> bool {
    entry.cdi.as_deref() == Some(device)
}

/// `vendor/class=name`: a request has a colon before any slash.
fn is_cdi(word: &str) -> bool {
    word.parse::<QualifiedName>().is_ok()
}

/// The requests of a container that a word of `detach` names.
pub(super) fn named(word: &str, entries: &[RequestEntry]) -> Result<Vec<RequestEntry>> {
    let mut found = Vec::new();
    if is_cdi(word) {
        found.extend(entries.iter().filter(|entry| is_of(entry, word)));
    } else {
        for item in parse_request_list(word).map_err(RequestListError::from)? {
            let before = found.len();
            found.extend(entries.iter().filter(|entry| is_named(entry, &item)));
            if found.len() == before {
                found.extend(by_selector(&item, entries)?);
            }
            if found.len() == before {
                return Err(unknown(word, entries));
            }
        }
    }
    if found.is_empty() {
        return Err(unknown(word, entries));
    }
    Ok(found.into_iter().map(RequestEntry::without_roots).collect())
}

/// The one request that has this selector, whatever its options are.
///
/// # Errors
/// When several have it.
fn by_selector<'a>(item: &ListItem, entries: &'a [RequestEntry]) -> Result<Option<&'a RequestEntry>> {
    let ListItem::Request(request) = item else {
        return Ok(None);
    };
    if request.options != Default::default() {
        return Ok(None);
    }
    let has_it = |entry: &&RequestEntry| {
        entry.class.is_none() && entry.cdi.is_none() && entry.request.selector == request.selector
    };
    let found: Vec<&RequestEntry> = entries.iter().filter(has_it).collect();
    if found.len() > 1 {
        let all: Vec<String> = found.iter().map(|entry| entry.request.to_string()).collect();
        bail!(
            "several requests of the container have the selector {}: {} (give the whole request)",
            request.selector,
            all.join(", ")
        );
    }
    Ok(found.first().copied())
}

fn is_named(entry: &RequestEntry, item: &ListItem) -> bool {
    match item {
        ListItem::Request(request) => {
            entry.class.is_none() && entry.cdi.is_none() && entry.request == *request
        }
        ListItem::Class(class) => entry.class.as_deref() == Some(class.name.as_str()),
    }
}

fn unknown(word: &str, entries: &[RequestEntry]) -> anyhow::Error {
    let has = match &request_texts(entries)[..] {
        [] => "it has no requests".to_owned(),
        all => format!("its requests are {}", all.join(", ")),
    };
    anyhow::anyhow!("the container does not request {word:?}: {has}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> RequestEntry {
        RequestEntry::new(Origin::Annotation, text.parse().unwrap())
    }

    #[test]
    fn a_word_of_detach_names_a_request_in_any_spelling_a_class_or_a_cdi_device() {
        let all = [
            entry("usb:0403:6001;access=rw"),
            entry("usb:1050").of_class("lab"),
            RequestEntry {
                cdi: Some("v.com/c=d".into()),
                ..entry("devnode:/dev/x")
            },
        ];
        for (word, index) in [("usb:0403:6001;access=wr", 0), ("class:lab", 1), ("v.com/c=d", 2)] {
            assert_eq!(named(word, &all).unwrap(), [all[index].clone()], "{word}");
        }
        assert_eq!(
            named("class:lab, usb:0403:6001;access=rw", &all).unwrap().len(),
            2
        );
    }

    /// Case newcomer: detach requires the exact text of the request.
    #[test]
    fn a_selector_names_the_one_request_that_has_it() {
        let all = [
            entry("usb:0403:6001;access=rw"),
            entry("usb:1050;access=r"),
            entry("usb:1050;access=w"),
        ];
        assert_eq!(named("usb:0403:6001", &all).unwrap(), [all[0].clone()]);
        assert!(named("usb:0403:6001;access=r", &all).is_err());
        assert_eq!(
            named("usb:1050", &all).unwrap_err().to_string(),
            "several requests of the container have the selector usb:1050: usb:1050;access=r, usb:1050;access=w (give the \
             whole request)"
        );
    }

    #[test]
    fn a_word_that_names_nothing_lists_what_the_container_requests() {
        let all = [entry("usb:0403:6001"), entry("usb:1050").of_class("lab")];
        for word in ["usb:0403", "usb:1050", "class:other", "v.com/c=d"] {
            assert_eq!(
                named(word, &all).unwrap_err().to_string(),
                format!("the container does not request {word:?}: its requests are usb:0403:6001, class:lab")
            );
        }
        assert!(
            named("usb:1", &[]).unwrap_err().is::<RequestListError>(),
            "a word that is not a request is malformed"
        );
    }
}
