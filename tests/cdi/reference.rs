//! Our rules and the CNCF's own library, about the same specs.

use std::io::{Seek, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use oci_hotplug::cdi::document::Document;
use oci_hotplug::cdi::rules;
use oci_hotplug::model::yaml;
use serde_json::Value;

use crate::bench::{Bench, done};

/// The errors of the CNCF's own library about these specs, one JSON document each; empty for a
/// valid one.
fn library_errors(specs: &[String]) -> Vec<String> {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cdi_reference/build.sh");
    let built = Command::new(&build)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", build.display()));
    assert!(built.status.success(), "{}: {}", build.display(), built.status);
    let program = String::from_utf8(built.stdout).unwrap();
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(specs.join("\n").as_bytes()).unwrap();
    input.rewind().unwrap();
    let output = Command::new(program.trim())
        .stdin(input)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    assert!(output.status.success(), "{program}: {}", output.status);
    let lines = String::from_utf8(output.stdout).unwrap();
    let errors: Vec<String> = lines.lines().map(str::to_owned).collect();
    assert_eq!(errors.len(), specs.len(), "one answer for each spec");
    errors
}

/// All combinations of valid and invalid parts, with the versions that exist: the library panics on
/// any other.
fn combined_specs() -> Vec<String> {
    let versions = ["0.3.0", "v0.5.0", "0.7.0", "1.0.0", "1.1.0"];
    let kinds = ["a.b/c", "a/b.c", "_a/b", "a", "a/b/c"];
    let names = ["x", "0", "x:y", "x y", "", "-x"];
    let edits = [
        r#"{"env":["A=1"]}"#,
        r#"{"env":["A"]}"#,
        "{}",
        r#"{"hooks":[{"hookName":"createRuntime","path":"/bin/true"}]}"#,
        r#"{"hooks":[{"hookName":"creatRuntime","path":"/bin/true"}]}"#,
        r#"{"deviceNodes":[{"path":"/dev/x","hostPath":"/dev/y","permissions":"rw"}]}"#,
        r#"{"deviceNodes":[{"path":"/dev/x","permissions":"rwx"}]}"#,
        r#"{"mounts":[{"hostPath":"/a","containerPath":"/b","type":"bind"}]}"#,
        r#"{"additionalGids":[5]}"#,
        r#"{"netDevices":[{"hostInterfaceName":"eth1","name":"eth0"}]}"#,
    ];
    let mut specs = Vec::new();
    for version in versions {
        for kind in kinds {
            for name in names {
                specs.extend(edits.iter().map(|edits| {
                    format!(
                        r#"{{"cdiVersion":"{version}","kind":"{kind}","devices":[{{"name":"{name}","containerEdits":{edits}}}]}}"#
                    )
                }));
            }
        }
    }
    specs
}

#[test]
#[ignore = "builds the CNCF's library: tests/run.sh --unit"]
fn our_rules_and_the_cncf_library_agree_about_every_spec() {
    let specs = combined_specs();
    let errors = library_errors(&specs);
    let mut valid = 0;
    for (spec, error) in specs.iter().zip(&errors) {
        let root = yaml::parse(spec).unwrap();
        let document = Document::decode(&root).unwrap();
        let faults = rules::faults(&document, &root);
        assert_eq!(
            faults.is_empty(),
            error.is_empty(),
            "{spec}: our rules say {faults:?}, the library says {error:?}"
        );
        valid += usize::from(error.is_empty());
    }
    // A library that accepted or refused everything would be a broken comparison.
    assert!(
        valid > 20 && valid < specs.len() / 2,
        "{valid} of {} are valid",
        specs.len()
    );
}

#[test]
#[ignore = "builds the CNCF's library: tests/run.sh --unit"]
fn the_cncf_library_accepts_what_is_generated() {
    let bench = Bench::new();
    done(bench.generate(&[
        "board",
        "--device",
        "usb:0403:6001",
        "--symlink",
        "usb:0403:6001:0=/dev/x",
    ]));
    done(bench.generate(&["annotated"]));
    let specs: Vec<String> = bench
        .files("low")
        .iter()
        .map(|name| {
            let spec: Value = serde_json::from_str(&bench.read(&format!("low/{name}"))).unwrap();
            spec.to_string()
        })
        .collect();
    assert_eq!(specs.len(), 2, "{specs:?}");
    assert_eq!(library_errors(&specs), ["", ""], "{specs:?}");
}
