//! What the tool prints, in files: `golden/help.txt` has the help of every verb,
//! `golden/output.txt` what verbs print, errors included. A change of a text is reviewed there.
//! With OCI_HOTPLUG_GOLDEN=write the files are written.

use std::path::Path;
use std::process::Command;

use super::fake_watcher::watcher;
use super::scene::{Configured, err, out, record};

#[track_caller]
fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cli/golden")
        .join(name);
    if std::env::var_os("OCI_HOTPLUG_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("write a golden file");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, expected) in text.lines().zip(golden.lines()) {
        assert_eq!(line, expected, "in {name}; OCI_HOTPLUG_GOLDEN=write writes it");
    }
    assert_eq!(text, golden);
}

fn help(words: &[&str], into: &mut String) {
    let output = Command::new(env!("CARGO_BIN_EXE_oci-hotplug"))
        .args(words)
        .arg("--help")
        .output()
        .expect("start oci-hotplug");
    let help = out(&output);
    into.push_str(&format!(
        "$ oci-hotplug {}\n{help}\n",
        [words, &["--help"]].concat().join(" ")
    ));
    // The verbs are listed between "Commands:" and "Options:" or "Arguments:".
    let commands = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = commands.lines().take_while(|line| !line.is_empty());
    // Their explanations go on in lines that are indented further.
    let verbs = lines.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    for verb in verbs.filter_map(|line| line.split_whitespace().next()) {
        if verb != "help" {
            help_of(words, verb, into);
        }
    }
}

fn help_of(words: &[&str], verb: &str, into: &mut String) {
    help(&[words, &[verb]].concat(), into);
}

#[test]
fn the_help_of_every_verb_is_known() {
    let mut text = String::new();
    help(&[], &mut text);
    assert!(text.contains("\n$ oci-hotplug cdi generate --help\n"), "{text}");
    compare("help.txt", &text);
}

/// Replaces what differs from run to run.
fn normal(text: &str, scratch: &Path) -> String {
    let mut text = text.replace(scratch.to_str().expect("UTF-8"), "SCRATCH");
    for (pattern, word) in [
        (r"\b\d{5,}d\b", "AGE"),
        (r"process \d+", "process N"),
        (r#"version="[^"]*""#, r#"version="N""#),
        // Runtimes of other users of this host.
        (
            r"\((looked in|no directory of a runtime) [^;]*;",
            "(looked in /run/runc;",
        ),
        (r"(?m)^Container .* has no watcher.*\n", ""),
        (r"(?m) +$", ""),
    ] {
        let pattern = regex_lite::Regex::new(pattern).expect("a pattern");
        text = pattern.replace_all(&text, word).into_owned();
    }
    text
}

#[test]
fn the_output_of_verbs_and_their_errors_are_known() {
    let configured = Configured::new("[class.lab]\ndevices = [\"usb:0403\"]\n");
    let scratch = configured.scratch.path().to_owned();
    watcher(&record(&configured.state_dir(), "robot", 1), "board");
    record(&configured.state_dir(), "gone", 1);
    let event = |second: u32, event: &str, message: &str| {
        format!(
            "2026-11-21T14:13:{second}.0Z oci-hotplug-watcher[77]  WARN {message} container=\"robot\" event=\"{event}\" device=\"\" node=\"/dev/x\"\n"
        )
    };
    let log = [
        event(10, "denied", "/dev/x: denied by the policy"),
        event(20, "attached", "attached /dev/board"),
        event(30, "denied", "/dev/x: denied by the policy"),
    ];
    std::fs::write(configured.state_dir().join("oci-hotplug.log"), log.concat()).expect("write the log");
    let cdi = scratch.join("cdi");
    std::fs::create_dir(&cdi).expect("a directory for CDI specs");
    let spec = r#"{"cdiVersion":"0.6.0","kind":"v.com/c","devices":[{"name":"d","containerEdits":{"env":["A=b"]}}]}"#;
    std::fs::write(cdi.join("v.json"), spec).expect("write a CDI spec");
    std::fs::write(cdi.join("broken.json"), "{\n").expect("write a CDI spec");
    let cdi = format!("--cdi-dir={}", cdi.display());
    let mut text = String::new();
    for words in [
        "list",
        "inspect robot",
        "inspect gone",
        "inspect nobody",
        "match /dev/null",
        "match usb:ffff:ffff",
        "match usb:12345",
        "match usb:0403;acess=r",
        "match class:nosuch",
        "explain robot /dev/null",
        "explain robot /dev/nosuch",
        "explain gone /dev/null",
        "attach nobody usb:0403",
        "attach robot usb:0403;mode=9",
        "detach robot usb:0403",
        "detach nobody usb:0403",
        "allow usb:0403 --reason lab",
        "allow --list",
        "allow usb:0403;access=r",
        "allow devnode:/dev/mem",
        "allow --remove usb:0404",
        "allow --remove usb:0403",
        "class add probe usb:1366 --symlink usb:1366:0101:0=/dev/probe",
        "class add lab usb:0404",
        "class add x usb:12345",
        "class list",
        "class remove probe",
        "class remove lab",
        "events",
        "events --container nosuch",
        "events --since yesterday",
        "metrics",
        "metrics --textfile /tmp/metrics",
        "recover",
        "cdi list CDI",
        "cdi validate CDI",
        "cdi resolve v.com/c=d CDI",
        "cdi resolve v.com/c=nosuch CDI",
        "cdi remove nosuch CDI",
        "cdi generate board --device usb:12345",
        "cdi generate bad/name --device usb:0403",
        "usbip attach lab",
        "nosuch",
    ] {
        let all: Vec<&str> = words
            .split(' ')
            .map(|word| if word == "CDI" { &cdi } else { word })
            .collect();
        let output = configured.tool(&all);
        text += &format!(
            "$ oci-hotplug {}\n{}{}",
            words.replace(" CDI", ""),
            out(&output),
            err(&output)
        );
        match output.status.code() {
            Some(0) => {}
            code => text += &format!("[exit {}]\n", code.unwrap_or(-1)),
        }
        text.push('\n');
    }
    compare("output.txt", &normal(&text, &scratch));
}
