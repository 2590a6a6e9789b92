//! `oci-hotplug metrics`: what it counts for a real container, device and watcher, and that
//! Prometheus can parse it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::framework::tool::{failed, json_of, output_of};
use crate::framework::{Bundle, Disk, Machine, RuncContainer, eventually};

/// Samples by name and labels, as written.
type Samples = BTreeMap<String, f64>;

/// Parses the text format, version 0.0.4, more strictly than Prometheus: each metric has one HELP
/// and one TYPE before its samples, its samples are consecutive, and no sample occurs twice.
fn read(text: &str) -> Samples {
    assert!(text.ends_with('\n'), "the last line has no end: {text:?}");
    let (mut samples, mut families) = (Samples::new(), BTreeSet::new());
    let mut family: Option<(&str, Option<&str>)> = None;
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a help text");
            assert!(is_name(name) && !help.trim().is_empty(), "{line}");
            assert!(families.insert(name), "a second time: {line}");
            family = Some((name, None));
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(["counter", "gauge", "summary"].contains(&kind), "{line}");
            assert_eq!(family, Some((name, None)), "a type without its help: {line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            family = Some((name, Some(kind)));
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert!(is_name(name), "{line}");
            let Some((of, Some(kind))) = family else {
                panic!("a sample without type: {line}")
            };
            let suffixes: &[&str] = if kind == "summary" {
                &["_sum", "_count"]
            } else {
                &[""]
            };
            assert!(
                suffixes.iter().any(|suffix| name == format!("{of}{suffix}")),
                "a sample of another metric than {of}: {line}"
            );
            if labels != "}" {
                read_labels(labels);
            }
            let value: f64 = value.parse().expect("a number");
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(
                samples.insert(series.to_owned(), value).is_none(),
                "a second time: {line}"
            );
        }
    }
    samples
}

fn is_name(name: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphabetic() || letter == '_';
    name.starts_with(is_letter)
        && name
            .chars()
            .all(|letter| is_letter(letter) || letter.is_ascii_digit())
}

/// `a="b",c="d"}`
fn read_labels(mut rest: &str) {
    let mut seen = BTreeSet::new();
    loop {
        let (name, value) = rest.split_once("=\"").expect("a label");
        assert!(is_name(name) && seen.insert(name), "label {name}");
        let mut end = None;
        let mut letters = value.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => {
                    let (_, escaped) = letters.next().expect("what is escaped");
                    assert!("\\\"n".contains(escaped), "escape \\{escaped}");
                }
                '"' => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let after = &value[end.expect("the value's end") + 1..];
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => return assert_eq!(after, "}"),
        }
    }
}

/// The metrics, parsed strictly, without the container's id: `events_total{event="attached"}`.
fn metrics(machine: &Machine, container: &RuncContainer<'_>) -> Samples {
    let id = format!("container=\"{}\"", container.id);
    let shorten = |(series, value): (String, f64)| {
        let series = series
            .replace(&format!("{id},"), "")
            .replace(&id, "")
            .replace("{}", "");
        (series.trim_start_matches("oci_hotplug_").to_owned(), value)
    };
    read(&output_of(machine, &["metrics"]))
        .into_iter()
        .map(shorten)
        .collect()
}

#[apply(on_both_hierarchies)]
fn the_counters_of_a_container_are_in_prometheus_format(machine: &Machine) {
    let disk = Disk::new(machine);
    let (given, kept) = (disk.plug(1), disk.partition(2));
    machine.configure(&format!(
        "[policy]\ndefault = \"anything\"\n[[policy.deny]]\ndevices = [\"devnode:{kept}\"]\n"
    ));
    let container = Bundle::requesting(machine, &format!("devnode:{given},glob:{}p*", disk.node)).start();
    container.reads(&given, &disk.content(1));
    disk.unplug(1);
    container.eventually_lacks(&given);
    disk.plug(1);
    container.eventually_reads(&given, &disk.content(1));
    disk.plug(2);
    eventually("the refusal is counted", || {
        metrics(machine, &container)["events_total{event=\"denied\"}"] == 1.0
    });
    // Values that differ between machines and runs are replaced by a star.
    let text: String = output_of(machine, &["metrics"])
        .lines()
        .map(|line| {
            let line = line.replace(&container.id, "ID");
            let is_any = ["event_seconds_", "event_longest_seconds{"]
                .iter()
                .any(|name| line.starts_with(&format!("oci_hotplug_{name}")));
            match line.rsplit_once(' ') {
                Some((series, value)) if is_any => {
                    assert!(value.parse::<f64>().is_ok_and(|value| value > 0.0), "{line}");
                    format!("{series} *\n")
                }
                _ => format!("{line}\n"),
            }
        })
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    let golden = include_str!("metrics/golden.prom").replace("@VERSION@", version);
    assert_eq!(text, golden, "{text}");
    let json = json_of(machine, &["metrics"]);
    assert_eq!(json["metrics"][1]["name"], "containers");
    assert_eq!(json["metrics"][1]["samples"][0]["value"], 1.0);
    container.delete();
    assert_eq!(
        read(&output_of(machine, &["metrics"]))["oci_hotplug_containers"],
        0.0
    );
}

#[apply(on_both_hierarchies)]
fn a_crashed_watcher_is_counted_and_its_counters_stay(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}")).start();
    disk.unplug(1);
    container.eventually_lacks(&node);
    let notes = machine
        .state_dir()
        .join("containers")
        .join(&container.id)
        .join("attached.jsonl");
    eventually("it is noted that the device went", || {
        fs::read_to_string(&notes).is_ok_and(|text| text.contains(r#""detached":1"#))
    });
    container.expect_watcher().kill();
    let dead = metrics(machine, &container);
    assert_eq!(
        (dead["watcher_up"], dead["watchers"], dead["containers"]),
        (0.0, 0.0, 1.0)
    );
    assert_eq!(dead["events_total{event=\"attached\"}"], 1.0);
    output_of(machine, &["recover"]);
    let alive = metrics(machine, &container);
    assert_eq!((alive["watcher_up"], alive["watchers"]), (1.0, 1.0));
    assert_eq!(
        (alive["watcher_starts_total"], alive["watcher_crashes_total"]),
        (2.0, 1.0)
    );
    assert_eq!(alive["events_total{event=\"detached\"}"], 1.0);
    // A watcher that hands over to the next one has not died.
    output_of(machine, &["recover", "--restart-watchers"]);
    let replaced = metrics(machine, &container);
    assert_eq!(
        (
            replaced["watcher_starts_total"],
            replaced["watcher_crashes_total"]
        ),
        (3.0, 1.0)
    );
    assert_eq!(replaced["events_total{event=\"detached\"}"], 1.0);
}

#[apply(on_both_hierarchies)]
fn the_textfile_is_replaced_atomically_and_readable_by_all(machine: &Machine) {
    let container = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing").start();
    let directory = machine.scratch("collector");
    fs::create_dir(&directory).expect("make the collector's directory");
    let path = directory.join("oci-hotplug.prom");
    fs::write(&path, "old").expect("write an old file");
    let reader = fs::File::open(&path).expect("open the old file");
    let text = path.to_str().expect("scratch paths are text");
    assert_eq!(output_of(machine, &["metrics", "--textfile", text]), "");
    assert_eq!(std::io::read_to_string(reader).expect("read the old file"), "old");
    let samples = read(&fs::read_to_string(&path).expect("read the new file"));
    assert!(samples.keys().any(|series| series.contains(&container.id)));
    let mode = fs::metadata(&path)
        .expect("look at the file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o644);
    let left: Vec<_> = fs::read_dir(&directory).expect("list").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let wrong = failed(machine, &["metrics", "--textfile", "/nowhere/oci-hotplug.txt"], 2);
    assert!(wrong.contains("must end in .prom"), "{wrong}");
    let nowhere = failed(
        machine,
        &["metrics", "--textfile", "/nowhere/oci-hotplug.prom"],
        1,
    );
    assert!(
        nowhere.starts_with("oci-hotplug: cannot write /nowhere/oci-hotplug.prom: "),
        "{nowhere}"
    );
}
