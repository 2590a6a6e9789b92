//! docs/names.md has every name that users see.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory;

use super::args::Command;
use super::metrics;
use crate::exit;
use crate::host::log::event;
use crate::model::request::{annotations, option_names, selector};

type Names = BTreeSet<String>;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the first group of this expression matches in a text.
fn found(expression: &str, text: &str) -> Names {
    let expression = regex_lite::Regex::new(expression).unwrap();
    let all = expression.captures_iter(text);
    all.map(|found| found[1].to_owned()).collect()
}

/// The names in the first column of the table below this heading.
fn documented(heading: &str) -> Names {
    let text = read("docs/names.md");
    let section = text
        .split("\n## ")
        .find(|section| section.lines().next() == Some(heading))
        .unwrap_or_else(|| panic!("docs/names.md has no section {heading:?}"));
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| found("`([^`]+)`", row[1..].split('|').next().unwrap_or_default()))
        .collect()
}

#[track_caller]
fn check(heading: &str, names: Names) {
    let documented = documented(heading);
    let missing: Vec<_> = names.difference(&documented).collect();
    let extra: Vec<_> = documented.difference(&names).collect();
    assert!(
        missing.is_empty() && extra.is_empty() && !names.is_empty(),
        "docs/names.md, {heading}: missing {missing:?}, not in the sources {extra:?}"
    );
}

/// The keys of a configuration, without the names of classes and annotations.
fn keys(table: &toml::Table, into: &mut Names) {
    for (key, value) in table {
        into.insert(key.clone());
        let tables: Vec<&toml::Table> = match (key.as_str(), value) {
            ("class", toml::Value::Table(classes)) => {
                classes.values().filter_map(toml::Value::as_table).collect()
            }
            ("annotations", _) => Vec::new(),
            (_, toml::Value::Table(table)) => vec![table],
            (_, toml::Value::Array(all)) => all.iter().filter_map(toml::Value::as_table).collect(),
            _ => Vec::new(),
        };
        for table in tables {
            keys(table, into);
        }
    }
}

#[test]
fn every_key_of_the_configuration_is_named() {
    let commented = read("packaging/config.toml");
    let lines = commented.lines().filter_map(|line| line.strip_prefix('#'));
    let text: Vec<&str> = lines.filter(|line| !line.starts_with(' ')).collect();
    let mut names = Names::new();
    keys(&toml::from_str(&text.join("\n")).unwrap(), &mut names);
    check("Configuration", names);
}

#[test]
fn every_annotation_is_named() {
    let of_others = [
        annotations::LOWRISC_DEVICES,
        annotations::LOWRISC_DEVICE,
        annotations::LOWRISC_SYMLINKS,
    ];
    let names = annotations::OWN.iter().chain(&of_others);
    check("Annotations", names.map(|name| (*name).to_owned()).collect());
}

#[test]
fn every_word_of_a_request_is_named() {
    let kinds = selector::kinds();
    let kinds = kinds.iter().chain(&["class", "parent-of"]);
    let mut names: Names = kinds.map(|kind| format!("{kind}:")).collect();
    names.extend(option_names().into_iter().map(str::to_owned));
    check("Requests", names);
}

#[test]
fn every_field_of_json_is_named() {
    fn fields(schema: &serde_json::Value, into: &mut Names) {
        match schema {
            serde_json::Value::Object(object) => {
                for (key, value) in object {
                    if let ("properties", Some(properties)) = (key.as_str(), value.as_object()) {
                        into.extend(properties.keys().cloned());
                    }
                    fields(value, into);
                }
            }
            serde_json::Value::Array(all) => all.iter().for_each(|value| fields(value, into)),
            _ => {}
        }
    }
    let mut names = Names::new();
    fields(
        &serde_json::from_str(&read("docs/schema/cli-v1.json")).unwrap(),
        &mut names,
    );
    check("JSON", names);
}

#[test]
fn every_metric_is_named() {
    let mut names: Names = metrics::names().into_iter().collect();
    let plugin = read("src/kubernetes/metrics.rs");
    for (variable, prefix) in [
        ("ours", "oci_hotplug_device_plugin"),
        ("generic", "generic_device_plugin"),
        ("usbip", "usbip_device_plugin"),
    ] {
        for (function, suffix) in [("gauges", ""), ("counters", "_total")] {
            let mut found = found(&format!(r#"{function}\(\s*{variable},\s*"(\w+)""#), &plugin);
            if variable != "ours" {
                let shared = format!(r#"{function}\(registry,\s*"(\w+)""#);
                found.extend(self::found(&shared, &plugin));
            }
            names.extend(found.iter().map(|name| format!("{prefix}_{name}{suffix}")));
        }
    }
    check("Metrics", names);
}

#[test]
fn every_event_is_named() {
    let names = event::ALL.iter().chain([&event::REFUSED_START]);
    check("Events", names.map(|name| (*name).to_owned()).collect());
}

#[test]
fn every_verb_and_option_is_named() {
    fn collect(command: &clap::Command, path: &str, into: &mut Names) {
        let options = command.get_arguments().filter(|option| !option.is_hide_set());
        into.extend(options.filter_map(|option| Some(format!("--{}", option.get_long()?))));
        let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        for verb in shown.filter(|verb| verb.get_name() != "help") {
            let path = format!("{path} {}", verb.get_name());
            into.insert(path.trim_start().to_owned());
            collect(verb, &path, into);
        }
    }
    let mut names = Names::new();
    collect(&Command::command(), "", &mut names);
    check("Command line", names);
}

/// docs/json.md names the verbs that print the document of another one, and the one that prints
/// only text.
#[test]
fn every_verb_has_a_document_in_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(&read("docs/schema/cli-v1.json")).unwrap();
    let command = Command::command();
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let mut count = 0;
    for verb in verbs.filter(|verb| verb.get_name() != "demo") {
        let name = verb.get_name();
        let words: Vec<String> = match verb.has_subcommands() {
            true => {
                let below = verb.get_subcommands();
                below
                    .map(|below| format!("{name} {}", below.get_name()))
                    .collect()
            }
            false => vec![name.to_owned()],
        };
        for words in words {
            let definition = match words.as_str() {
                "class remove" => "class add",
                "cdi remove" => "cdi generate",
                own => own,
            };
            assert!(schema["$defs"][definition].is_object(), "no document of {words}");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} verbs were found");
}

#[test]
fn every_option_of_the_other_programs_is_named() {
    let mut names = Names::new();
    for help in [
        crate::hook::command::PRESTART_PROGRAM.help,
        crate::hook::command::POSTSTOP_PROGRAM.help,
        crate::watcher::command::PROGRAM.help,
        crate::usbip::command::PROGRAM.help,
    ] {
        names.extend(found(r"(--[a-z][a-z-]*)", help));
    }
    let plugin = read("src/kubernetes/arguments.rs");
    let arguments = plugin.split("struct Arguments {").nth(1).unwrap();
    let arguments = arguments.split("\n}\n").next().unwrap();
    let options = found(r"    pub(?:\(crate\))? (\w+):", arguments).into_iter();
    let hidden = "generate_docs";
    let options = options.filter(|name| name != hidden);
    names.extend(options.map(|name| format!("--{}", name.replace('_', "-"))));
    check("Other programs", names);
}

#[test]
fn every_exit_code_is_named() {
    let codes = [exit::DONE, exit::FAILED, exit::USAGE, exit::DENIED];
    check("Exit codes", codes.map(|code| code.to_string()).into());
}

#[test]
fn every_variable_of_the_environment_is_named() {
    fn read_all(dir: &Path, into: &mut String) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read_all(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                *into += &fs::read_to_string(&path).unwrap();
            }
        }
    }
    let mut sources = String::new();
    read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    let mut names = found(r#""(OCI_HOTPLUG_[A-Z_]*[A-Z])"#, &sources);
    // Those of the device plugin are its options in upper case.
    names.retain(|name| !name.starts_with("OCI_HOTPLUG_PLUGIN"));
    check("Environment and journal", names);
}

#[test]
fn every_file_of_the_state_directory_is_named() {
    let layout = read("src/host/state/registry.rs");
    check("State directory", found(r"(?m)^//! {2,20}(\S+)  ", &layout));
}
