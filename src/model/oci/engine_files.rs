//! The files that runtimes and engines have for each container. A user can change those of
//! rootless engines. Parsing is lenient: only the few relevant keys are read.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::engine::printable;

/// What a runtime's state file says about a container.
///
/// ```text
/// runc   ROOT/ID/state.json   init_process_pid, init_process_start, config.labels "bundle=…"
///                             (libcontainer/state)
/// crun   ROOT/ID/status       pid, process-start-time, bundle (libcrun/status.c)
/// youki  ROOT/ID/state.json   pid, bundle (libcontainer/state.rs)
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeState {
    /// The process id of the container's init; never 0, which would mean another process.
    pub pid: i32,
    /// When init was started, in clock ticks after the boot (proc_pid_stat(5), field 22); `None` if
    /// the runtime does not write it, as youki.
    pub started: Option<u64>,
    pub bundle: PathBuf,
}

impl RuntimeState {
    /// Parses a state file of any of the runtimes; `None` if it is not one.
    pub fn parse(file: &[u8]) -> Option<Self> {
        let state: Value = serde_json::from_slice(file).ok()?;
        let number = |keys: [&str; 2]| keys.iter().find_map(|key| state[*key].as_u64());
        let pid = i32::try_from(number(["init_process_pid", "pid"])?).ok();
        Some(Self {
            pid: pid.filter(|pid| *pid > 0)?,
            started: number(["init_process_start", "process-start-time"]),
            bundle: bundle_of(&state)?,
        })
    }
}

fn bundle_of(state: &Value) -> Option<PathBuf> {
    let labels = state["config"]["labels"].as_array().into_iter().flatten();
    let label = labels
        .filter_map(Value::as_str)
        .find_map(|label| label.strip_prefix("bundle="));
    label.or_else(|| state["bundle"].as_str()).map(PathBuf::from)
}

/// The name of a container in an index of containers/storage (containers.json, containers.go);
/// `None` if it has none there.
pub fn name_in_storage(index: &[u8], id: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        #[serde(default)]
        names: Vec<String>,
    }
    let entries: Vec<Entry> = serde_json::from_slice(index).ok()?;
    let entry = entries.into_iter().find(|entry| entry.id == id)?;
    displayed(entry.names.first()?)
}

/// The name in Docker's containers/ID/config.v2.json (moby, daemon/container).
pub fn name_in_docker(config: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "Name")]
        name: String,
    }
    let config: Config = serde_json::from_slice(config).ok()?;
    displayed(config.name.trim_start_matches('/'))
}

fn displayed(name: &str) -> Option<String> {
    Some(printable(name)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_each_runtime_has_init_and_bundle() {
        for (file, started) in [
            (
                r#"{"id":"c1","init_process_pid":71,"init_process_start":55,"config":{"labels":["x=y","bundle=/run/b"]}}"#,
                Some(55),
            ),
            (
                r#"{"pid":71,"process-start-time":55,"bundle":"/run/b"}"#,
                Some(55),
            ),
            (
                r#"{"id":"c1","status":"running","pid":71,"bundle":"/run/b"}"#,
                None,
            ),
        ] {
            let expected = RuntimeState {
                pid: 71,
                started,
                bundle: "/run/b".into(),
            };
            assert_eq!(RuntimeState::parse(file.as_bytes()), Some(expected), "{file}");
        }
    }

    #[test]
    fn a_file_without_init_or_bundle_is_no_state() {
        for file in [
            "",
            "[]",
            r#"{"pid":71}"#,
            r#"{"bundle":"/run/b"}"#,
            r#"{"pid":0,"bundle":"/run/b"}"#,
            r#"{"pid":-1,"bundle":"/run/b"}"#,
            r#"{"pid":4294967367,"bundle":"/run/b"}"#,
            r#"{"pid":71,"config":{"labels":["x=y"]}}"#,
        ] {
            assert_eq!(RuntimeState::parse(file.as_bytes()), None, "{file}");
        }
    }

    #[test]
    fn a_name_is_that_of_the_container_and_harmless_on_a_terminal() {
        let index = r#"[{"id":"ffff","names":["other"]},{"id":"0a1b","names":["lab","x"]},{"id":"eeee"}]"#;
        let of = |id: &str| name_in_storage(index.as_bytes(), id);
        assert_eq!(of("0a1b").as_deref(), Some("lab"));
        assert_eq!(of("eeee"), None);
        assert_eq!(of("dddd"), None);
        let config = r#"{"Name":"/ro\u001bbot","ID":"0a1b"}"#;
        assert_eq!(name_in_docker(config.as_bytes()).as_deref(), Some("robot"));
        assert_eq!(name_in_docker(br#"{"Name":"/"}"#), None);
    }
}
