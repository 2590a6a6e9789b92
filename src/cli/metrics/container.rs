//! The counters of one container.

use crate::cli::enrolled::Enrolled;
use crate::host::state::notes::Notes;
use crate::host::state::registry::Registry;
use crate::model::counters::Counters;
use crate::model::plan::attachment::Attachments;

/// The attachments and counters that a watcher has recorded. They are known also while no watcher
/// answers.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub(super) attachments: Attachments,
    pub(super) counters: Counters,
}

impl From<Notes> for Recorded {
    fn from(notes: Notes) -> Self {
        Self {
            attachments: notes.attachments,
            counters: notes.counters,
        }
    }
}

/// One container and its counters.
pub(super) struct Counted {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) engine: String,
    pub(super) up: bool,
    pub(super) problems: usize,
    pub(super) recorded: Recorded,
}

impl Counted {
    pub(super) fn of(registry: &Registry, container: Enrolled) -> Self {
        let (name, engine) = (container.name(), container.engine());
        let problems = container
            .status
            .as_ref()
            .map_or(0, |status| status.problems.len());
        let recorded = match &container.status {
            Some(status) => Recorded {
                attachments: status.attached.clone(),
                counters: status.counters,
            },
            None => {
                let notes: Option<Notes> = registry.attached(&container.id).ok().flatten();
                notes.map(Recorded::from).unwrap_or_default()
            }
        };
        Self {
            id: container.id.to_string(),
            name: name.unwrap_or_default(),
            engine: engine.map(|engine| engine.to_string()).unwrap_or_default(),
            up: container.status.is_some(),
            problems,
            recorded,
        }
    }
}
