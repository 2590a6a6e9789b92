//! Every request, selector and rule that a document shows is read, and selects on a recorded host
//! what `examples.txt` says.
//!
//! A line of that file is `EXAMPLE => NODE …` (the nodes that a container gets, in the order of
//! their paths), or `EXAMPLE -- REASON` for what selects nothing there; the reason of what cannot
//! be read begins with `form:`.

mod recipes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::model::device::inventory::Inventory;
use crate::model::device::recorded::documented_host;
use crate::model::oci::ProcessUser;
use crate::model::plan::Planner;
use crate::model::plan::named_node::can_be_named_by_rule;
use crate::model::request::annotations::read_list;
use crate::model::request::class::{Classes, Definition};
use crate::model::request::entry::{Origin, Requests};
use crate::model::request::selector::{DeviceSelector, kinds};
use crate::model::request::symlink::{SymlinkRule, parse_symlinks};
use crate::model::yaml;

/// The documents outside `docs`, all of whose pages count, too. `recipes` evaluates
/// docs/recipes.md.
const DOCUMENTS: [&str; 10] = [
    "README.md",
    "packaging/config.toml",
    "packaging/install.sh",
    "packaging/kubernetes/base/configmap.yaml",
    "packaging/kubernetes/chart/values.yaml",
    "packaging/man/oci-hotplug-poststop.8",
    "packaging/man/oci-hotplug-prestart.8",
    "packaging/man/oci-hotplug-requests.7",
    "packaging/man/oci-hotplug-watcher.8",
    "packaging/man/oci-hotplug.toml.5",
];

/// The prestart hook's help is a constant of a module that this one must not import.
const HOOK_HELP: &str = include_str!("../hook/command.rs");

/// All documents, and what each verb's `--help` prints.
fn documents() -> Vec<(String, String)> {
    fn helps(command: &mut clap::Command, into: &mut Vec<(String, String)>) {
        let name = format!("{} --help", command.get_name());
        into.push((name, command.render_long_help().to_string()));
        for verb in command.get_subcommands_mut() {
            helps(verb, into);
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = DOCUMENTS.map(PathBuf::from).to_vec();
    let pages = fs::read_dir(root.join("docs")).expect("docs");
    let pages = pages.map(|entry| Path::new("docs").join(entry.expect("a page").file_name()));
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    paths.extend(pages.filter(|path| is_page(path) && !path.ends_with("recipes.md")));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root.join(&path));
        let text = text.unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        (path.display().to_string(), text)
    };
    let mut all: Vec<(String, String)> = paths.into_iter().map(read).collect();
    all.push(("oci-hotplug-prestart --help".into(), HOOK_HELP.into()));
    helps(&mut super::args::Command::command(), &mut all);
    // roff writes a hyphen as `\-`, a backslash as `\e`, and changes the font by `\fB`.
    for (name, text) in &mut all {
        if name.ends_with(['5', '7', '8']) {
            *text = text
                .replace("\\-", "-")
                .replace("\\(aq", "'")
                .replace("\\(dq", "\"");
            *text = text.replace("\\e", "\\");
            for font in ["\\fB", "\\fI", "\\fR", "\\fP"] {
                *text = text.replace(font, "");
            }
        }
    }
    all
}

/// What looks like a request, selector or rule in a text: it begins with a kind and a colon, and
/// ends with the word or the quotes around it.
fn examples(text: &str) -> BTreeSet<String> {
    let mut beginnings: Vec<String> = kinds().iter().map(|kind| format!("{kind}:")).collect();
    beginnings.extend(["parent-of:".to_owned(), "class:".to_owned()]);
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let mut at = 0;
        while at < line.len() {
            let rest = &line[at..];
            let is_inside_a_word = line[..at]
                .chars()
                .next_back()
                .is_some_and(|before| before.is_alphanumeric() || "-_./:".contains(before));
            let begins = beginnings.iter().any(|kind| rest.starts_with(kind.as_str()));
            if is_inside_a_word || !begins {
                at += rest.chars().next().map_or(1, char::len_utf8);
                continue;
            }
            // In quotes that begin right before it, or before the key of an annotation, blanks
            // belong to it.
            let key = line[..at]
                .trim_end_matches(|letter: char| letter.is_alphanumeric() || ".-=".contains(letter));
            let quote = key.chars().next_back().filter(|quote| "\"'`".contains(*quote));
            let end = match quote {
                Some(quote) => rest.find(quote),
                None => rest.find(|letter: char| letter.is_whitespace() || "\"'`|".contains(letter)),
            };
            let end = end.unwrap_or(rest.len());
            let mut example = rest[..end].trim_end_matches(['.', ';', ':', ',']);
            for (open, close) in [('(', ')'), ('[', ']'), ('{', '}')] {
                while example.ends_with(close)
                    && example.matches(close).count() > example.matches(open).count()
                {
                    example = example[..example.len() - 1].trim_end_matches(['.', ';', ':', ',']);
                }
            }
            if !beginnings
                .iter()
                .any(|kind| kind.trim_end_matches(':') == example)
            {
                found.insert(example.to_owned());
            }
            at += end.max(1);
        }
    }
    found
}

/// The class that docs/requests.md and config.toml define.
fn classes() -> Classes {
    let definition = Definition {
        devices: vec!["usb:0403:6001".into(), "usb:1366;mode=0666".into()],
        symlinks: vec!["usb:0403:6001:0=/dev/ttyBOARD".into()],
    };
    let names = ["lab-board", "probes"].map(|name| (name.to_owned(), definition.clone()));
    Classes::parse("config.toml".as_ref(), &BTreeMap::from(names)).unwrap()
}

/// The paths of the nodes that an example selects.
///
/// # Errors
/// When it is neither a list of requests, nor a selector as in rules, nor a list of rules
/// for links.
fn selected(example: &str, inventory: &Inventory) -> Result<Vec<String>, String> {
    let mut nodes: Vec<String> = Vec::new();
    if let Ok(rules) = parse_symlinks(example) {
        let leads = |rule: &SymlinkRule| {
            let matching = inventory
                .iter()
                .filter(|device| rule.matches(device, inventory.ancestors(&device.syspath)))
                .filter(|device| can_be_named_by_rule(device, inventory));
            let nodes = matching.filter_map(|device| device.node.as_ref());
            nodes
                .map(|node| node.path.display().to_string())
                .collect::<Vec<_>>()
        };
        nodes.extend(rules.iter().flat_map(leads));
    } else {
        let entries = match read_list(Origin::Root, example, &classes()) {
            Ok(Requests { entries, .. }) => entries,
            // All devices of another host may be meant by a rule only.
            Err(_) if example.parse::<DeviceSelector>().is_ok() => return Ok(nodes),
            Err(error) => return Err(error.to_string()),
        };
        let mut planner = Planner::new(entries, Vec::new(), ProcessUser::default());
        planner.find_roots(inventory);
        let candidates = planner.candidates(inventory);
        let given = candidates
            .iter()
            .filter(|candidate| candidate.undecided.is_none());
        let given = given.filter_map(|candidate| candidate.device.node.as_ref());
        nodes.extend(given.map(|node| node.path.display().to_string()));
    }
    nodes.sort();
    nodes.dedup();
    Ok(nodes)
}

/// Case README 5.
#[test]
fn every_example_of_a_document_is_read_and_selects_what_it_should() {
    let inventory = Inventory::new(documented_host());
    let expected: BTreeMap<&str, (&str, &str)> = include_str!("examples.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| match (line.split_once(" => "), line.split_once(" -- ")) {
            (Some((example, nodes)), _) if !nodes.is_empty() => (example, (nodes, "")),
            (_, Some((example, reason))) if !reason.is_empty() => (example, ("", reason)),
            _ => panic!("neither => nor -- in {line:?}"),
        })
        .collect();
    let mut shown = BTreeSet::new();
    let mut faults = Vec::new();
    for (document, text) in documents() {
        for example in examples(&text) {
            let outcome = selected(&example, &inventory);
            let is_form = outcome.is_err();
            let found = outcome.unwrap_or_else(|error| vec![error]).join(" ");
            match expected.get(example.as_str()) {
                None => faults.push(format!("{document}: not in examples.txt: {example} => {found}")),
                Some((_, reason)) if is_form != reason.starts_with("form:") => {
                    faults.push(format!("{document}: {example}: {found}, but {reason:?}"));
                }
                Some((nodes, _)) if !is_form && *nodes != found => {
                    faults.push(format!("{document}: {example} => {found}, and not {nodes}"));
                }
                Some(_) => {}
            }
            shown.insert(example);
        }
    }
    let unused = expected.keys().filter(|example| !shown.contains(**example));
    faults.extend(unused.map(|example| format!("no document shows {example}")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Case newcomer: quoting.
#[test]
fn a_block_of_yaml_has_one_request_a_line() {
    let all = documents();
    let blocks = all.iter().flat_map(|(name, text)| {
        let (begin, end) = if name.ends_with(".md") {
            ("```yaml\n", "```")
        } else {
            (".nf\n", ".fi")
        };
        let blocks = text.split(begin).skip(1);
        blocks.filter_map(move |rest| rest.split(end).next())
    });
    let mut count = 0;
    for block in blocks.filter(|block| block.contains("io.oci-hotplug.devices: |")) {
        let whole: serde_json::Value = yaml::from_str(block, yaml::Dialect::Core).unwrap();
        let annotations = whole
            .get("annotations")
            .or_else(|| whole.get("services")?.get("lab")?.get("annotations"));
        let text = annotations.and_then(|annotations| annotations.get("io.oci-hotplug.devices")?.as_str());
        let requests = crate::model::request::parse_requests(text.expect(block)).unwrap();
        let texts: Vec<String> = requests.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["usb:0403:6001;link=/dev/board", "usb:1366"]);
        count += 1;
    }
    assert_eq!(count, 3, "docs/requests.md, docs/engines.md and requests(7)");
}
