//! docs/development.md shows how to add a test by tests of this repository: each example is one, word for word.

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
        "tests/hook_contract.rs",
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
