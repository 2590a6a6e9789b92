//! The metrics, and the counters that they show.

use super::container::Counted;
use crate::cli::render::prometheus::{Family, Sample};

pub(super) fn families(all: &[Counted]) -> Vec<Family> {
    let mut families = of_host(all);
    families.extend(of_containers(all));
    families.extend(of_counters(all));
    families
}

fn of_host(all: &[Counted]) -> Vec<Family> {
    let up = all.iter().filter(|counted| counted.up).count();
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    let total = |value| vec![sample("", Vec::new(), value)];
    vec![
        gauge(
            "build_info",
            "The version of oci-hotplug.",
            vec![sample("", version, 1.0)],
        ),
        gauge(
            "containers",
            "Containers that request devices.",
            total(all.len() as f64),
        ),
        gauge("watchers", "Watchers that answer.", total(up as f64)),
    ]
}

/// What each container has now.
fn of_containers(all: &[Counted]) -> Vec<Family> {
    vec![
        gauge(
            "container_info",
            "A container's name and engine.",
            all.iter().map(info).collect(),
        ),
        gauge(
            "watcher_up",
            "Whether the container's watcher answers.",
            of_each(all, |counted| f64::from(u8::from(counted.up))),
        ),
        gauge(
            "attachments",
            "Device nodes that are attached.",
            of_each(all, |counted| counted.recorded.attachments.iter().count() as f64),
        ),
        gauge(
            "grants",
            "Device numbers that the container has access to.",
            of_each(all, |counted| counted.recorded.attachments.grants().len() as f64),
        ),
        gauge(
            "problems",
            "Devices, nodes and links that should be attached and are not.",
            of_each(all, |counted| counted.problems as f64),
        ),
    ]
}

/// What the watchers have done so far.
fn of_counters(all: &[Counted]) -> Vec<Family> {
    vec![
        counter(
            "events_total",
            "What happened to a container's devices: attached, detached, denied, waiting, shared (a disk that another container also has), inaccessible (nobody in a rootless container may open the node), failed, restored (an engine had replaced the device filter), overrun (events were lost at the socket).",
            all.iter().flat_map(events).collect(),
        ),
        Family {
            name: "event_seconds",
            kind: "summary",
            help: "Time from a wake by device events until the container is up to date.",
            samples: all.iter().flat_map(wakes).collect(),
        },
        gauge(
            "event_longest_seconds",
            "The longest event_seconds since the watcher started.",
            of_each(all, |counted| seconds(counted.recorded.counters.longest_us)),
        ),
        counter(
            "watcher_starts_total",
            "Watchers that started. A new watcher takes over after an update, and when systemd starts the watcher's unit.",
            of_each(all, |counted| counted.recorded.counters.started as f64),
        ),
        counter(
            "watcher_crashes_total",
            "Watchers that crashed and were started again.",
            of_each(all, |counted| counted.recorded.counters.crashed as f64),
        ),
    ]
}

fn gauge(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family {
        name,
        kind: "gauge",
        help,
        samples,
    }
}

fn counter(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family {
        name,
        kind: "counter",
        help,
        samples,
    }
}

/// One sample for each container.
fn of_each(all: &[Counted], value: fn(&Counted) -> f64) -> Vec<Sample> {
    let sample = |counted| sample("", labels(counted), value(counted));
    all.iter().map(sample).collect()
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
