//! `oci-hotplug metrics`: what the watchers have counted, in Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! A container has the same few series whatever it asks for: their number grows with the containers that run, not with
//! devices or requests.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::enrolled::Enrolled;
use super::error::Usage;
use crate::host::state::atomic_file::replace;
use crate::host::state::registry::Registry;
use crate::model::counters::Counters;
use crate::model::plan::attachment::Attachments;
use crate::model::quoting::visible_lines;

/// The options.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Write the file by rename, for node_exporter's textfile collector; its name must end in .prom.
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
}

/// One metric with its samples.
#[derive(Debug, Serialize)]
struct Family {
    name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    help: &'static str,
    samples: Vec<Sample>,
}

#[derive(Debug, Serialize)]
struct Sample {
    /// What stands behind the metric's name: a summary's `_sum`, `_count`.
    suffix: &'static str,
    labels: Vec<(&'static str, String)>,
    value: f64,
}

/// What a watcher has noted, as far as it is of interest here: it may have none to ask.
#[derive(Debug, Default, Deserialize)]
struct Noted {
    attachments: Attachments,
    #[serde(default)]
    tally: Counters,
}

/// One container's numbers.
struct Counted {
    id: String,
    name: String,
    engine: String,
    up: bool,
    problems: usize,
    noted: Noted,
}

/// Prints the metrics of all containers, or writes them into a file.
pub fn run(registry: &Registry, options: &Options, as_json: bool) -> Result<()> {
    if let Some(path) = &options.textfile {
        check_name(path)?;
    }
    let counted: Vec<Counted> = Enrolled::all(registry)?
        .into_iter()
        .map(|container| Counted::of(registry, container))
        .collect();
    let families = families(&counted);
    let text = match as_json {
        true => format!("{}\n", serde_json::to_string_pretty(&families)?),
        false => exposition(&families),
    };
    match &options.textfile {
        // Readable to all, as the collector runs as nobody special.
        Some(path) => {
            replace(path, text.as_bytes(), 0o644).with_context(|| format!("writing {}", path.display()))
        }
        None => Ok(io::stdout().lock().write_all(text.as_bytes())?),
    }
}

/// What the collector passes over in silence.
fn check_name(path: &Path) -> Result<()> {
    if path.extension().is_some_and(|extension| extension == "prom") && path.file_stem().is_some() {
        return Ok(());
    }
    Err(Usage(format!(
        "--textfile {}: the name must end in .prom, because node_exporter reads no others",
        path.display()
    ))
    .into())
}

impl Counted {
    fn of(registry: &Registry, container: Enrolled) -> Self {
        let (name, engine) = (container.name(), container.engine());
        let problems = container
            .status
            .as_ref()
            .map_or(0, |status| status.problems.len());
        let noted = match &container.status {
            Some(status) => Noted {
                attachments: status.attached.clone(),
                tally: status.tally,
            },
            None => registry
                .attached(&container.id)
                .ok()
                .flatten()
                .unwrap_or_default(),
        };
        Self {
            id: container.id.to_string(),
            name: name.unwrap_or_default(),
            engine: engine.map(|engine| engine.to_string()).unwrap_or_default(),
            up: container.status.is_some(),
            problems,
            noted,
        }
    }
}

fn families(all: &[Counted]) -> Vec<Family> {
    let of_each = |value: fn(&Counted) -> f64| -> Vec<Sample> {
        let sample = |counted| sample("", labels(counted), value(counted));
        all.iter().map(sample).collect()
    };
    let up = all.iter().filter(|counted| counted.up).count();
    vec![
        family(
            "build_info",
            "gauge",
            "The version that tells this.",
            vec![sample(
                "",
                vec![("version", env!("CARGO_PKG_VERSION").to_owned())],
                1.0,
            )],
        ),
        family(
            "containers",
            "gauge",
            "Containers that have asked for devices.",
            vec![sample("", Vec::new(), all.len() as f64)],
        ),
        family(
            "watchers",
            "gauge",
            "Watchers that answer.",
            vec![sample("", Vec::new(), up as f64)],
        ),
        family(
            "container_info",
            "gauge",
            "A container's name and engine.",
            all.iter().map(info).collect(),
        ),
        family(
            "watcher_up",
            "gauge",
            "Whether the container's watcher answers.",
            of_each(|counted| f64::from(u8::from(counted.up))),
        ),
        family(
            "attachments",
            "gauge",
            "Device nodes that are inside.",
            of_each(|counted| counted.noted.attachments.iter().count() as f64),
        ),
        family(
            "grants",
            "gauge",
            "Device numbers that access is granted to.",
            of_each(|counted| counted.noted.attachments.grants().len() as f64),
        ),
        family(
            "problems",
            "gauge",
            "Devices, nodes and links that should be inside and are not.",
            of_each(|counted| counted.problems as f64),
        ),
        family(
            "events_total",
            "counter",
            "What happened to a container's devices: attached, detached, refused, waiting, shared (a disk that another container has, too), failed, restored (an engine had replaced the device filter), overrun (events were lost at the socket).",
            all.iter().flat_map(events).collect(),
        ),
        family(
            "event_seconds",
            "summary",
            "From a wake by device events until all that follows is in place.",
            all.iter().flat_map(wakes).collect(),
        ),
        family(
            "event_longest_seconds",
            "gauge",
            "The longest of event_seconds since the watcher began.",
            of_each(|counted| seconds(counted.noted.tally.longest_us)),
        ),
        family(
            "watcher_starts_total",
            "counter",
            "Watchers that began: one takes the place of another after an update, and where systemd comes to look after it.",
            of_each(|counted| counted.noted.tally.began as f64),
        ),
        family(
            "watcher_deaths_total",
            "counter",
            "Watchers that ended without a word and were started again.",
            of_each(|counted| counted.noted.tally.died as f64),
        ),
    ]
}

fn family(name: &'static str, kind: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family {
        name,
        kind,
        help,
        samples,
    }
}

fn sample(suffix: &'static str, labels: Vec<(&'static str, String)>, value: f64) -> Sample {
    Sample {
        suffix,
        labels,
        value,
    }
}

fn labels(counted: &Counted) -> Vec<(&'static str, String)> {
    vec![("container", counted.id.clone())]
}

fn info(counted: &Counted) -> Sample {
    let mut labels = labels(counted);
    labels.extend([("name", counted.name.clone()), ("engine", counted.engine.clone())]);
    sample("", labels, 1.0)
}

fn events(counted: &Counted) -> Vec<Sample> {
    let tally = &counted.noted.tally;
    let sample = |(event, count): (&str, u64)| {
        let mut labels = labels(counted);
        labels.push(("event", event.to_owned()));
        sample("", labels, count as f64)
    };
    [
        ("attached", tally.attached),
        ("detached", tally.detached),
        ("failed", tally.failed),
        ("overrun", tally.overrun),
        ("refused", tally.refused),
        ("restored", tally.restored),
        ("shared", tally.shared),
        ("waiting", tally.waiting),
    ]
    .map(sample)
    .into()
}

fn wakes(counted: &Counted) -> [Sample; 2] {
    let tally = &counted.noted.tally;
    [
        sample("_sum", labels(counted), seconds(tally.busy_us)),
        sample("_count", labels(counted), tally.wakes as f64),
    ]
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// All of them in the text format. Each line ends in a newline, the last one, too.
fn exposition(families: &[Family]) -> String {
    let mut text = String::new();
    for Family {
        name,
        kind,
        help,
        samples,
    } in families
    {
        text += &format!("# HELP oci_hotplug_{name} {help}\n# TYPE oci_hotplug_{name} {kind}\n");
        for sample in samples {
            let labels: Vec<String> = sample
                .labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(&visible_lines(value))))
                .collect();
            let labels = match labels[..] {
                [] => String::new(),
                _ => format!("{{{}}}", labels.join(",")),
            };
            text += &format!("oci_hotplug_{name}{}{labels} {}\n", sample.suffix, sample.value);
        }
    }
    text
}

/// A label's value: the format has these three escapes.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_calls_a_container_cannot_leave_its_quotes() {
        let counted = Counted {
            id: "c".into(),
            name: "a\"} 1\n# TYPE \\x".into(),
            engine: String::new(),
            up: false,
            problems: 0,
            noted: Noted::default(),
        };
        let text = exposition(&families(&[counted]));
        let info = text
            .lines()
            .find(|line| line.starts_with("oci_hotplug_container_info"));
        assert_eq!(
            info,
            Some(r#"oci_hotplug_container_info{container="c",name="a\"} 1\n# TYPE \\x",engine=""} 1"#)
        );
    }
}
