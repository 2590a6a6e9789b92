//! Every numbered case of a real input or attack that once broke the product has a test that names
//! its number: a doc comment `/// Case README 5.` or `/// Case security 3.` above the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// How many cases each list has.
const LISTS: [(&str, usize); 2] = [("README", 27), ("security", 12)];

fn sources(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("cases.rs") {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
}

/// The numbers that tests name: `/// Case README 5.`, also several in one line: `/// Case README 5.
/// Case README 25.`
fn named(list: &str, sources: &[String]) -> BTreeSet<usize> {
    let mark = format!("Case {list} ");
    let comments = sources.iter().flat_map(|source| source.lines()).filter(|line| {
        let line = line.trim_start();
        line.starts_with("///") || line.starts_with("//")
    });
    comments
        .flat_map(|line| line.split(&mark).skip(1))
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .collect()
}

#[test]
fn every_case_has_a_test_that_names_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    sources(&root.join("src"), &mut all);
    sources(&root.join("tests"), &mut all);
    for (list, count) in LISTS {
        let named = named(list, &all);
        let missing: Vec<usize> = (1..=count).filter(|number| !named.contains(number)).collect();
        assert!(missing.is_empty(), "cases of {list} without a test: {missing:?}");
        let unknown: Vec<&usize> = named
            .iter()
            .filter(|number| **number == 0 || **number > count)
            .collect();
        assert!(unknown.is_empty(), "cases that {list} does not have: {unknown:?}");
    }
}
