//! Enrolled containers as the verbs show them: the record, and the status of the watcher.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::engine_name::{engine_of, name_of};
use super::{client, not_enrolled};
use crate::host::state::control::{Problem, Status, first_of};
use crate::host::state::record::Record;
use crate::host::state::registry::Registry;
use crate::model::oci::ContainerId;
use crate::model::oci::engine::{self, Engine};

/// One enrolled container: its record, and its watcher's status if the watcher answers.
pub(super) struct Enrolled {
    pub(super) id: ContainerId,
    pub(super) record: Option<Record>,
    /// Why the record cannot be read.
    pub(super) record_fault: Option<String>,
    pub(super) status: Option<Status>,
    /// The process of a watcher that runs and does not answer.
    pub(super) silent: Option<i32>,
}

/// How long a watcher may take to report its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

impl Enrolled {
    fn read(registry: &Registry, id: ContainerId) -> Self {
        let status = client::status(registry, &id, STATUS_TIMEOUT);
        let (record, record_fault) = match registry.record(&id) {
            Ok(record) => (record, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let is_silent = status.is_none() && registry.is_watched(&id);
        let silent = registry.watcher(&id).filter(|_| is_silent);
        Self {
            silent: silent.map(|watcher| watcher.pid),
            id,
            record,
            record_fault,
            status,
        }
    }

    /// All containers, sorted by what they are called, then by id.
    pub(super) fn all(registry: &Registry) -> Result<Vec<Self>> {
        check_access(registry)?;
        let ids = registry.ids()?.into_iter();
        let mut all: Vec<Self> = ids.map(|id| Self::read(registry, id)).collect();
        all.sort_by_cached_key(Self::display_name);
        Ok(all)
    }

    /// The one container whose id is, or begins with, `id`, or whose name or pod it is.
    pub(super) fn find(registry: &Registry, id: &str) -> Result<Self> {
        check_access(registry)?;
        match Self::search(registry, id)? {
            Some(found) => Ok(found),
            None => match not_enrolled::explanation(registry, id) {
                Some(explanation) => bail!("{explanation}"),
                None => bail!("no container {id:?} is known here (`oci-hotplug list` shows those that are)"),
            },
        }
    }

    /// As [`Enrolled::find`]; `None` when there is none.
    pub(super) fn search(registry: &Registry, id: &str) -> Result<Option<Self>> {
        let names: Vec<(ContainerId, Option<String>)> = registry
            .ids()?
            .into_iter()
            .map(|known| {
                let record = registry.record(&known).ok().flatten();
                (known, record.and_then(|record| name_of(&record)))
            })
            .collect();
        Ok(find_id(&names, id)?.map(|id| Self::read(registry, id)))
    }

    /// The engine that started it, as far as its bundle tells.
    pub(super) fn engine(&self) -> Option<Engine> {
        self.record.as_ref().and_then(engine_of)
    }

    /// The name that its engine gives it; `None` when it has no name.
    pub(super) fn name(&self) -> Option<String> {
        self.record.as_ref().and_then(name_of)
    }

    /// Its id as engines print it: the first twelve of 64 digits.
    pub(super) fn short_id(&self) -> &str {
        engine::short_id(self.id.as_str())
    }

    /// Its name; where it has none, its id.
    pub(super) fn display_name(&self) -> String {
        self.name().unwrap_or_else(|| self.short_id().to_owned())
    }

    /// Its state, in one or two words.
    pub(super) fn health(&self) -> &'static str {
        match &self.status {
            Some(status) if status.problems.is_empty() => "ok",
            Some(status) if status.problems.iter().all(|problem| problem.waiting) => "waiting",
            Some(_) => "problems",
            None if self.silent.is_some() => "no answer",
            None if self.record_fault.is_some() => "unreadable",
            None => "no watcher",
        }
    }

    /// Why [`Enrolled::health`] is not `ok`, and what to do: one text for each reason.
    pub(super) fn reasons(&self) -> Vec<String> {
        if let Some(status) = &self.status {
            let grouped = Problem::grouped(&status.problems).into_iter();
            return grouped
                .map(|(paths, reason)| format!("{}: {reason}", first_of(&paths)))
                .collect();
        }
        let reason = match (self.silent, &self.record_fault) {
            (Some(pid), _) => format!(
                "process {pid} of its watcher does not answer: it may be stopped (`kill -CONT {pid}` continues it) or overloaded"
            ),
            (None, Some(fault)) => fault.clone(),
            (None, None) => {
                "the container is starting or has ended, or its watcher crashed (`oci-hotplug recover` starts it again)".into()
            }
        };
        vec![reason]
    }
}

/// The id that equals `text`, that has the name or the pod `text`, or that begins with `text`;
/// `None` when no id does.
///
/// # Errors
/// When several containers have the name `text` (podman and Docker may each have one) or are in the
/// pod, or several ids begin with it.
pub(super) fn find_id(all: &[(ContainerId, Option<String>)], text: &str) -> Result<Option<ContainerId>> {
    if let Some((id, _)) = all.iter().find(|(id, _)| id.as_str() == text) {
        return Ok(Some(id.clone()));
    }
    let named = |is_meant: &dyn Fn(&str) -> bool| -> Vec<&ContainerId> {
        all.iter()
            .filter(|(_, name)| name.as_deref().is_some_and(is_meant))
            .map(|(id, _)| id)
            .collect()
    };
    let short = |ids: &[&ContainerId]| -> String {
        let ids: Vec<&str> = ids.iter().map(|id| engine::short_id(id.as_str())).collect();
        ids.join(", ")
    };
    match named(&|name| name == text)[..] {
        [] => {}
        [id] => return Ok(Some(id.clone())),
        ref ids => bail!(
            "several containers are named {text:?}: {} (use the id)",
            short(ids)
        ),
    }
    match named(&|name| engine::is_in_pod(name, text))[..] {
        [] => {}
        [id] => return Ok(Some(id.clone())),
        ref ids => bail!(
            "pod {text:?} has several containers, or there are several pods of this name: {} (use the id)",
            short(ids)
        ),
    }
    let starting: Vec<&str> = all
        .iter()
        .map(|(id, _)| id.as_str())
        .filter(|id| !text.is_empty() && id.starts_with(text))
        .collect();
    let shown = || -> Vec<&str> { starting.iter().map(|id| distinct(id, text)).collect() };
    match starting[..] {
        [] => Ok(None),
        [id] => Ok(Some(id.parse()?)),
        _ => bail!(
            "the ids of several containers begin with {text:?}: {} (give more characters)",
            shown().join(", ")
        ),
    }
}

/// The short form of an id; longer where `text`, which several ids begin with, is as long.
fn distinct<'i>(id: &'i str, text: &str) -> &'i str {
    let short = engine::short_id(id);
    id.get(..text.len() + 4)
        .filter(|longer| longer.len() > short.len())
        .unwrap_or(short)
}

/// Only root can read the state directory: reports that instead of printing an empty list.
pub(super) fn check_access(registry: &Registry) -> Result<()> {
    match std::fs::read_dir(registry.root()) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(error)
            .with_context(|| format!("cannot read {} (run this as root)", registry.root().display())),
        _ => Ok(registry.check()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Result<Option<String>> {
        let containers = [
            ("a".repeat(64), Some("board")),
            (format!("ab{}", "0".repeat(62)), Some("board")),
            ("c".repeat(64), Some("zigbee")),
            ("board".to_owned(), None),
            ("lab".to_owned(), Some("lab")),
            ("d".repeat(64), Some("default/bench/main")),
            ("e".repeat(64), Some("default/zigbee/main")),
            ("f0".repeat(32), Some("default/two/one")),
            ("f1".repeat(32), Some("default/two/other")),
        ];
        let all = containers.map(|(id, name)| (id.parse().unwrap(), name.map(str::to_owned)));
        Ok(find_id(&all, text)?.map(|id| id.as_str().to_owned()))
    }

    #[test]
    fn a_container_is_found_by_id_name_pod_or_the_beginning_of_its_id() {
        assert_eq!(found("zigbee").unwrap(), Some("c".repeat(64)));
        assert_eq!(found("cc").unwrap(), Some("c".repeat(64)));
        assert_eq!(found("lab").unwrap(), Some("lab".into()));
        // An id wins over names.
        assert_eq!(found("board").unwrap(), Some("board".into()));
        assert_eq!(found("nobody").unwrap(), None);
        assert_eq!(found("bench").unwrap(), Some("d".repeat(64)));
        // A name wins over a pod.
        assert_eq!(found("zigbee").unwrap(), Some("c".repeat(64)));
        assert_eq!(found("default/zigbee").unwrap(), Some("e".repeat(64)));
        assert_eq!(
            found("two").unwrap_err().to_string(),
            "pod \"two\" has several containers, or there are several pods of this name: f0f0f0f0f0f0, f1f1f1f1f1f1 (use the id)"
        );
        let error = found("a").unwrap_err().to_string();
        assert!(
            error.contains("the ids of several containers begin with"),
            "{error}"
        );
    }

    /// podman and Docker may each have a container of the same name.
    #[test]
    fn a_name_of_several_containers_is_refused_with_their_ids() {
        let all = ["1", "2"].map(|digit| {
            let id: ContainerId = digit.repeat(64).parse().unwrap();
            (id, Some("board".to_owned()))
        });
        let error = find_id(&all, "board").unwrap_err().to_string();
        assert_eq!(
            error,
            "several containers are named \"board\": 111111111111, 222222222222 (use the id)"
        );
    }
}
