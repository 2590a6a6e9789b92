//! The metrics, and the counters that they show.

use super::container::Counted;
use crate::cli::render::prometheus::{Family, Sample};

pub(super) fn families(all: &[Counted]) -> Vec<Family> {
    let of_each = |value: fn(&Counted) -> f64| -> Vec<Sample> {
        let sample = |counted| sample("", labels(counted), value(counted));
        all.iter().map(sample).collect()
    };
    let up = all.iter().filter(|counted| counted.up).count();
    vec![
        family(
            "build_info",
            "gauge",
            "The version of oci-hotplug.",
            vec![sample(
                "",
                vec![("version", env!("CARGO_PKG_VERSION").to_owned())],
                1.0,
            )],
        ),
        family(
            "containers",
            "gauge",
            "Containers that request devices.",
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
            "Device nodes that are attached.",
            of_each(|counted| counted.recorded.attachments.iter().count() as f64),
        ),
        family(
            "grants",
            "gauge",
            "Device numbers that the container has access to.",
            of_each(|counted| counted.recorded.attachments.grants().len() as f64),
        ),
        family(
            "problems",
            "gauge",
            "Devices, nodes and links that should be attached and are not.",
            of_each(|counted| counted.problems as f64),
        ),
        family(
            "events_total",
            "counter",
            "What happened to a container's devices: attached, detached, denied, waiting, shared (a disk that another container also has), inaccessible (nobody in a rootless container may open the node), failed, restored (an engine had replaced the device filter), overrun (events were lost at the socket).",
            all.iter().flat_map(events).collect(),
        ),
        family(
            "event_seconds",
            "summary",
            "Time from a wake by device events until the container is up to date.",
            all.iter().flat_map(wakes).collect(),
        ),
        family(
            "event_longest_seconds",
            "gauge",
            "The longest event_seconds since the watcher started.",
            of_each(|counted| seconds(counted.recorded.counters.longest_us)),
        ),
        family(
            "watcher_starts_total",
            "counter",
            "Watchers that started. A new watcher takes over after an update, and when systemd starts the watcher's unit.",
            of_each(|counted| counted.recorded.counters.started as f64),
        ),
        family(
            "watcher_crashes_total",
            "counter",
            "Watchers that crashed and were started again.",
            of_each(|counted| counted.recorded.counters.crashed as f64),
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
    let counters = &counted.recorded.counters;
    let sample = |(event, count): (&str, u64)| {
        let mut labels = labels(counted);
        labels.push(("event", event.to_owned()));
        sample("", labels, count as f64)
    };
    [
        ("attached", counters.attached),
        ("detached", counters.detached),
        ("failed", counters.failed),
        ("overrun", counters.overrun),
        ("denied", counters.denied),
        ("inaccessible", counters.inaccessible),
        ("restored", counters.restored),
        ("shared", counters.shared),
        ("waiting", counters.waiting),
    ]
    .map(sample)
    .into()
}

fn wakes(counted: &Counted) -> [Sample; 2] {
    let counters = &counted.recorded.counters;
    [
        sample("_sum", labels(counted), seconds(counters.busy_us)),
        sample("_count", labels(counted), counters.wakes as f64),
    ]
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
