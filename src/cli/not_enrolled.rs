//! Containers without a watcher: those that run with our annotation although their engine did not
//! run our hooks, and those that a hook did not let start.
//!
//! Reads files of runtimes and engines only, no socket.

use crate::host::engine_names;
use crate::host::runtime_state::{self, RunningContainer};
use crate::host::state::refused_starts::{self, RefusedStart};
use crate::host::state::registry::Registry;
use crate::model::oci::engine::{self, Engine};
use crate::model::quoting::{shell_quoted, shown};
use crate::model::request::annotations;

use super::render::time::{ago, since};

/// The longest request that is shown, in characters.
const MAX_REQUEST: usize = 200;

/// A container that runs and has no watcher.
pub(super) struct NotEnrolled {
    id: String,
    name: Option<String>,
    engine: Option<Engine>,
    /// What it requests by annotation.
    requests: Option<String>,
}

impl NotEnrolled {
    fn of(running: RunningContainer) -> Self {
        let annotations = &running.traits.annotations;
        let engine = engine::engine(&running.facts.bundle, annotations);
        let requests = annotations.get(annotations::DEVICES).cloned();
        let is_ours = || annotations.keys().any(|key| annotations::is_ours(key));
        Self {
            name: engine::name(annotations).or_else(|| engine_names::name(engine?, &running.facts)),
            engine,
            requests: requests.or_else(|| is_ours().then(String::new)),
            id: running.facts.id,
        }
    }

    /// Its name; where it has none, its id as people know it.
    pub(super) fn display_name(&self) -> &str {
        match &self.name {
            Some(name) => name,
            None => engine::short_id(&self.id),
        }
    }

    /// How a command names it. Containers of different engines may have the same name.
    fn argument(&self) -> String {
        shell_quoted(engine::short_id(&self.id))
    }

    fn is_called(&self, word: &str) -> bool {
        engine::is_meant(&self.id, self.name.as_deref(), word)
    }

    /// How to start it so that it gets a watcher.
    pub(super) fn how_to_start(&self) -> &'static str {
        match self.engine {
            Some(Engine::Docker) => "start it with `--device oci-hotplug.dev/device=annotated`",
            Some(Engine::Containerd) => "start it with the CDI device oci-hotplug.dev/device=annotated",
            Some(Engine::Podman | Engine::CriO) => {
                "`oci-hotplug check` shows whether its engine reads our hooks"
            }
            None => "its config.json needs our hooks",
        }
    }

    /// Why it has no watcher, and what to do.
    pub(super) fn explanation(&self) -> String {
        let name = self.display_name();
        match &self.requests {
            Some(requests) if !requests.is_empty() => {
                let shown = shown(requests, MAX_REQUEST);
                // A text that is cut off or escaped is a different request.
                let word = match shown == *requests {
                    true => shell_quoted(requests),
                    false => "REQUEST".to_owned(),
                };
                format!(
                    "container {name} requests {shown} by annotation but has no watcher, because its engine did not run our hooks ({}; or attach now, as a trusted request: `oci-hotplug attach {} {word}`)",
                    self.how_to_start(),
                    self.argument(),
                )
            }
            Some(_) => format!(
                "container {name} has an annotation of ours but no watcher, because its engine did not run our hooks ({})",
                self.how_to_start()
            ),
            None => format!(
                "container {name} runs without oci-hotplug: it requests no devices (`oci-hotplug attach {} REQUEST` gives it some)",
                self.argument()
            ),
        }
    }
}

/// Those that run, with or without our annotation, and that no hook and no `attach` has enrolled.
fn running(registry: &Registry) -> Vec<NotEnrolled> {
    let ids = registry.ids().unwrap_or_default();
    let is_enrolled = |running: &RunningContainer| ids.iter().any(|id| id.as_str() == running.facts.id);
    runtime_state::running(&runtime_state::roots(&[]))
        .into_iter()
        .filter(|running| !is_enrolled(running))
        .map(NotEnrolled::of)
        .collect()
}

/// Those that run with an annotation of ours and have no watcher.
pub(super) fn all(registry: &Registry) -> Vec<NotEnrolled> {
    let mut all = running(registry);
    all.retain(|container| container.requests.is_some());
    all
}

/// What is known of a container that is not enrolled.
pub(super) fn explanation(registry: &Registry, word: &str) -> Option<String> {
    let refused = refused_starts::read(registry.root());
    if let Some(refused) = refused.iter().rfind(|refused| refused.matches(word)) {
        return Some(sentence(refused));
    }
    let running = running(registry);
    let found = running.iter().find(|container| container.is_called(word))?;
    Some(found.explanation())
}

/// When and why a container was not started.
pub(super) fn sentence(refused: &RefusedStart) -> String {
    format!(
        "container {} was not started, {} ago: {}",
        refused.display_name(),
        ago(since(refused.time)),
        refused.reason
    )
}

/// The refused starts of containers that have not started since, the last one first: the last of
/// each container and of each name.
pub(super) fn refused(registry: &Registry) -> Vec<RefusedStart> {
    last_of_each(refused_starts::read(registry.root()))
}

/// The same of these, the oldest first.
fn last_of_each(refused: Vec<RefusedStart>) -> Vec<RefusedStart> {
    let mut last: Vec<RefusedStart> = Vec::new();
    for entry in refused.into_iter().rev() {
        let is_known = last
            .iter()
            .any(|other| other.id == entry.id || (entry.name.is_some() && other.name == entry.name));
        if !is_known {
            last.push(entry);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(engine: Option<Engine>, requests: Option<&str>) -> NotEnrolled {
        NotEnrolled {
            id: "0".repeat(64),
            name: Some("lab".into()),
            engine,
            requests: requests.map(String::from),
        }
    }

    /// Case newcomer: Docker without `--device oci-hotplug.dev/device=annotated`.
    #[test]
    fn a_container_without_a_watcher_is_explained_with_the_option_of_its_engine() {
        let text = container(Some(Engine::Docker), Some("usb:0403:6001;link=/dev/b")).explanation();
        assert!(
            text.contains("--device oci-hotplug.dev/device=annotated"),
            "{text}"
        );
        assert!(
            text.contains("`oci-hotplug attach '000000000000' 'usb:0403:6001;link=/dev/b'`"),
            "{text}"
        );
        // What cannot be shown whole would be another request when pasted.
        for requests in ["usb:0403,".repeat(40), "usb:0403\nusb:1050".to_owned()] {
            let text = container(Some(Engine::Docker), Some(&requests)).explanation();
            assert!(
                text.contains("`oci-hotplug attach '000000000000' REQUEST`"),
                "{text}"
            );
        }
        let text = container(Some(Engine::Podman), Some("usb:0403")).explanation();
        assert!(text.contains("oci-hotplug check"), "{text}");
        let text = container(None, None).explanation();
        assert!(text.contains("requests no devices"), "{text}");
        let lab = container(None, None);
        assert!(lab.is_called("lab") && lab.is_called("000") && !lab.is_called("l") && !lab.is_called(""));
    }

    #[test]
    fn the_last_refused_start_of_each_container_and_name_is_shown() {
        let entry = |time, id: &str, name: Option<&str>, reason: &str| RefusedStart {
            time,
            id: id.into(),
            name: name.map(String::from),
            reason: reason.into(),
        };
        let refused = vec![
            entry(1, "c1", Some("lab"), "keyboard"),
            entry(2, "c2", Some("lab"), "disk"),
            entry(3, "c3", None, "disk"),
            entry(4, "c3", None, "keyboard"),
        ];
        let shown = last_of_each(refused).into_iter();
        assert_eq!(shown.map(|entry| entry.time).collect::<Vec<_>>(), [4, 2]);
    }
}
