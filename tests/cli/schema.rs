//! What every verb prints with `--json` is described by docs/schema/cli-v1.json.

use serde_json::Value;

use super::hostile::hostile_watcher;
use super::json_schema::check;
use super::scene::{Configured, out, record};

/// A host with a container whose watcher answers, one that is gone, an event and a CDI device.
struct Host {
    configured: Configured,
    cdi: String,
}

impl Host {
    fn new() -> Self {
        let configured = Configured::new("");
        hostile_watcher(&record(&configured.state_dir(), "alpha", 1));
        record(&configured.state_dir(), "gone", 1);
        let event = "2026-11-21T14:13:38.939211Z oci-hotplug-watcher[77]  WARN no container=\"alpha\" event=\"denied\" device=\"\" node=\"/dev/x\"\n";
        std::fs::write(configured.state_dir().join("oci-hotplug.log"), event).expect("write the log");
        let cdi = configured.scratch.path().join("cdi");
        std::fs::create_dir(&cdi).expect("a directory for CDI specs");
        let spec = r#"{"cdiVersion":"0.6.0","kind":"v.com/c","devices":[{"name":"d","containerEdits":{"env":["A=b"]}}]}"#;
        std::fs::write(cdi.join("v.json"), spec).expect("write a CDI spec");
        std::fs::write(cdi.join("broken.json"), "{").expect("write a CDI spec");
        Self {
            configured,
            cdi: cdi.to_str().expect("scratch paths are text").to_owned(),
        }
    }

    /// The documents that a command prints.
    fn documents(&self, words: &[&str]) -> Vec<Value> {
        let words: Vec<&str> = words
            .iter()
            .map(|word| if *word == "CDI" { &self.cdi } else { *word })
            .chain(["--json"])
            .collect();
        let printed = out(&self.configured.tool(&words));
        let documents = serde_json::Deserializer::from_str(&printed).into_iter();
        documents.map(|document| document.expect(&printed)).collect()
    }
}

#[test]
fn what_each_verb_prints_with_json_is_described_by_the_schema() {
    let host = Host::new();
    let generate = [
        "cdi", "generate", "board", "--device", "usb:0403", "--output", "CDI",
    ];
    for (definition, words) in [
        ("list", &["list"][..]),
        ("inspect", &["inspect", "alpha"]),
        ("inspect", &["inspect", "gone"]),
        ("match", &["match", "/dev/null"]),
        ("match", &["match", "usb:ffff:ffff;link=/dev/x"]),
        ("tree", &["tree", "--all"]),
        ("explain", &["explain", "alpha", "/dev/null"]),
        ("allow", &["allow", "usb:0403", "--dry-run"]),
        ("allow", &["allow", "usb:0403", "--reason", "lab"]),
        ("allow --list", &["allow", "--list"]),
        ("allow --remove", &["allow", "--remove", "usb:0403"]),
        ("class add", &["class", "add", "lab", "usb:0403"]),
        ("class list", &["class", "list"]),
        ("class add", &["class", "remove", "lab"]),
        ("reload", &["reload"]),
        ("events", &["events"]),
        ("check", &["check"]),
        ("metrics", &["metrics"]),
        ("cdi generate", &generate),
        ("cdi list", &["cdi", "list", "--cdi-dir", "CDI"]),
        ("cdi validate", &["cdi", "validate", "--cdi-dir", "CDI"]),
        (
            "cdi resolve",
            &["cdi", "resolve", "v.com/c=d", "--cdi-dir", "CDI"],
        ),
        ("cdi generate", &["cdi", "remove", "board", "--cdi-dir", "CDI"]),
        ("recover", &["recover"]),
    ] {
        let documents = host.documents(words);
        assert!(!documents.is_empty(), "{words:?} prints no document");
        for document in documents {
            check(definition, &document);
        }
    }
}

#[test]
#[should_panic(expected = "list.containers[0].colour is not described")]
fn a_field_that_the_schema_does_not_describe_is_noticed() {
    let mut document = Host::new().documents(&["list"]).remove(0);
    document["containers"][0]["colour"] = "red".into();
    check("list", &document);
}

#[test]
#[should_panic(expected = "list.schema_version: const is not met")]
fn another_version_is_noticed() {
    let mut document = Host::new().documents(&["list"]).remove(0);
    document["schema_version"] = 2.into();
    check("list", &document);
}
