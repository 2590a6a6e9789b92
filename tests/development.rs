//! The documents describe this repository: the examples of the developers' document are its tests,
//! and the tests that the page of pitfalls names exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The examples: the file that the text before each names, and the example's lines.
fn examples(document: &str) -> Vec<(String, String)> {
    let mut examples = Vec::new();
    let mut file = String::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some((_, name)) = line.split_once("From `") {
            name.split('`').next().unwrap_or_default().clone_into(&mut file);
        }
        if line == "```rust" {
            let example: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            examples.push((file.clone(), example.join("\n")));
        }
    }
    examples
}

#[test]
fn each_example_of_the_development_document_is_a_test_of_the_file_that_it_names() {
    let document = fs::read_to_string(here("docs/development.md")).expect("read docs/development.md");
    let examples = examples(&document);
    for kind in [
        "src/model/",
        "tests/hook_contract/",
        "tests/privileged/",
        "tests/vm/",
    ] {
        assert!(
            examples.iter().any(|(file, _)| file.starts_with(kind)),
            "no example of {kind}"
        );
    }
    for (file, example) in examples {
        let source = fs::read_to_string(here(&file)).unwrap_or_else(|error| panic!("read {file}: {error}"));
        assert!(source.contains(&example), "this is not in {file}:\n{example}");
        assert!(
            example.lines().count() <= 20,
            "longer than 20 lines: {file}:\n{example}"
        );
    }
}

/// The names of all functions in the Rust files below a directory.
fn functions(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).expect("a source file");
            let names = source.lines().filter_map(|line| {
                let (name, _) = line.split_once("fn ")?.1.split_once(['(', '<'])?;
                Some(name.to_owned())
            });
            found.extend(names);
        }
    }
}

/// Whether a name matches a pattern in which `…` and `*` stand for any characters.
fn is_like(name: &str, pattern: &str) -> bool {
    match pattern.split_once(['…', '*']) {
        None => name == pattern,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            let mut ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            ends.any(|at| is_like(&rest[at..], after))
        }),
    }
}

#[test]
fn every_test_that_the_page_of_pitfalls_names_exists() {
    let mut all = BTreeSet::new();
    functions(&here("src"), &mut all);
    functions(&here("tests"), &mut all);
    let page = fs::read_to_string(here("tests/pitfalls.md")).expect("read tests/pitfalls.md");
    let quoted = page.split('`').skip(1).step_by(2);
    let tests = quoted.filter(|word| word.contains("::") || word.starts_with('…'));
    let names = tests.filter_map(|word| word.rsplit("::").next());
    let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    assert!(names.len() > 50, "only {} names were found", names.len());
    let missing: Vec<_> = names
        .iter()
        .filter(|pattern| !all.iter().any(|name| is_like(name, pattern)))
        .collect();
    assert!(missing.is_empty(), "tests/pitfalls.md names {missing:?}");
}

#[test]
fn patterns_of_names_match_as_written() {
    assert!(is_like("a_test_that_ends", "a_…_ends") && is_like("a_test", "…test") && is_like("a_test", "*"));
    assert!(!is_like("a_test_that_ends", "a_…_end") && !is_like("a_test", "test"));
}
