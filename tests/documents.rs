//! README and the pages of `docs`: their order and length, and that every link leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const README_LINES: usize = 180;

/// What a newcomer wants to know, in this order.
const README_SECTIONS: [&str; 12] = [
    "Works with",
    "What it does not do",
    "What a container gets by default",
    "Try it",
    "Install",
    "First container",
    "Six requests",
    "Troubleshooting",
    "Security",
    "Tests",
    "Documents",
    "Licence",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// The Markdown files whose links are checked: at the top level, in `.github` and in `docs`.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["", ".github", "docs"] {
        for entry in fs::read_dir(root().join(folder)).expect(folder) {
            let name = entry.expect(folder).file_name().into_string().expect("UTF-8");
            if name.ends_with(".md") {
                found.push(Path::new(folder).join(name).display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// The lines that are not in a code block.
fn prose(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push(line);
        }
    }
    lines
}

fn headings(text: &str) -> Vec<&str> {
    let lines = prose(text).into_iter();
    let headings = lines.filter(|line| line.starts_with('#'));
    headings.map(|line| line.trim_start_matches('#').trim()).collect()
}

/// The anchors of a text's headings, as GitHub makes them: of equal ones the second ends in `-1`.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for heading in headings(text) {
        let is_kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
        let kept: String = heading.chars().filter(is_kept).collect();
        let anchor = kept.to_lowercase().replace(' ', "-");
        let count = seen.entry(anchor.clone()).or_default();
        anchors.insert(if *count == 0 {
            anchor
        } else {
            format!("{anchor}-{count}")
        });
        *count += 1;
    }
    anchors
}

/// The targets of a text's links, those to other sites left out.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        // Links in backquotes are text.
        let plain: String = line.split('`').step_by(2).collect();
        for rest in plain.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// What is wrong with a link of a document.
fn fault(document: &str, link: &str) -> Option<String> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        root().join(document)
    } else {
        root().join(document).parent()?.join(path)
    };
    if !target.exists() {
        return Some(format!("{document}: {link}: no such file"));
    }
    if anchor.is_empty() {
        return None;
    }
    let text = fs::read_to_string(&target).ok()?;
    (!anchors(&text).contains(anchor)).then(|| format!("{document}: {link}: no such heading"))
}

#[test]
fn the_readme_is_short_and_in_the_order_that_a_newcomer_needs() {
    let readme = read("README.md");
    let lines = readme.lines().count();
    assert!(
        lines <= README_LINES,
        "README.md has {lines} lines, and at most {README_LINES}"
    );
    assert_eq!(headings(&readme)[1..], README_SECTIONS);
    assert!(
        readme.contains("tests/run.sh"),
        "README.md does not say how to test"
    );
}

#[test]
fn the_readme_names_every_executable() {
    let readme = read("README.md");
    let programs = fs::read_dir(root().join("src/bin")).expect("src/bin");
    for program in programs {
        let path = program.expect("src/bin").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("UTF-8");
        assert!(readme.contains(name), "README.md does not name {name}");
    }
}

/// A fork changes it in one place.
#[test]
fn the_maintainers_address_is_in_one_place() {
    let mut all = documents();
    all.extend(
        [
            "Cargo.toml",
            "packaging/debian/control",
            "packaging/rpm/oci-hotplug.spec",
        ]
        .map(str::to_owned),
    );
    let elsewhere: Vec<_> = all
        .iter()
        .filter(|path| read(path).contains("maintainers@"))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert_eq!(read("packaging/package.sh").matches("maintainers@").count(), 1);
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let mut count = 0;
    let mut faults = Vec::new();
    for document in documents() {
        for link in links(&read(&document)) {
            count += 1;
            faults.extend(fault(&document, &link));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 50, "only {count} links were found");
}

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn alternatives(word: &str) -> Vec<String> {
    let Some((before, rest)) = word.split_once('{') else {
        return vec![word.to_owned()];
    };
    let (names, after) = rest.split_once('}').expect(word);
    let alternatives = names.split(',').map(|name| format!("{before}{name}{after}"));
    alternatives.collect()
}

/// Whether the tree has what a document calls `src/model/plan.rs` or `model::plan`.
fn is_in_the_tree(name: &str) -> bool {
    let path = match name.contains("::") {
        true => format!("src/{}", name.replace("::", "/")),
        false => name.to_owned(),
    };
    root().join(&path).exists() || root().join(path + ".rs").exists()
}

/// What a document says of the tree: words in backquotes that name a path or a module.
fn names_of_the_tree(text: &str) -> Vec<String> {
    const FOLDERS: [&str; 5] = ["src/", "tests/", "docs/", "packaging/", "hooks.d/"];
    const LAYERS: [&str; 8] = [
        "model",
        "sys",
        "host",
        "cdi",
        "usbip",
        "hook",
        "watcher",
        "kubernetes",
    ];
    let words = text.split('`').skip(1).step_by(2);
    let is_module = |word: &&str| {
        let layer = word.split_once("::").map(|(layer, _)| layer);
        let is_plain = word.chars().all(|letter| matches!(letter, 'a'..='z' | '_' | ':'));
        layer.is_some_and(|layer| LAYERS.contains(&layer)) && is_plain
    };
    let is_path = |word: &&str| {
        FOLDERS.iter().any(|folder| word.starts_with(folder))
            && !word.contains(|character: char| character.is_whitespace() || "<*".contains(character))
    };
    let named = words.filter(|word| is_path(word) || is_module(word));
    named.flat_map(alternatives).collect()
}

#[test]
fn documents_name_files_and_modules_that_exist() {
    let mut count = 0;
    for document in documents() {
        if !document.starts_with("docs/") && document != "README.md" {
            continue;
        }
        let names = names_of_the_tree(&read(&document));
        count += names.len();
        let missing: Vec<&String> = names.iter().filter(|name| !is_in_the_tree(name)).collect();
        assert!(missing.is_empty(), "{document} names {missing:?}");
    }
    assert!(count > 50, "only {count} names were found");
}

#[test]
fn paths_and_modules_are_found_in_a_text() {
    let text =
        "see `src/a/{b,c}.rs`, `src/d` and `host::filter`, not `cargo test src/x`, `src/<name>` or `std::fs`";
    let expected = ["src/a/b.rs", "src/a/c.rs", "src/d", "host::filter"];
    assert_eq!(names_of_the_tree(text), expected);
}

/// What a newcomer may want to add: the architecture has a row for each that names where.
#[test]
fn the_architecture_names_the_files_for_every_addition() {
    let text = read("docs/architecture.md");
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| a") || line.starts_with("| which"));
    let rows: Vec<&str> = rows.filter(|row| !names_of_the_tree(row).is_empty()).collect();
    for addition in [
        "a selector",
        "an option",
        "a reason why",
        "a reason for which the policy denies",
        "another cgroup version",
        "a field in the state directory",
        "a field of CDI specs",
        "a metric",
        "a verb",
        "a kind of Kubernetes resource",
    ] {
        let begin = format!("| {addition}");
        assert!(
            rows.iter().any(|row| row.starts_with(&begin)),
            "no row for {addition}"
        );
    }
}

#[test]
fn the_site_and_the_readme_have_every_page_of_docs() {
    let in_summary: BTreeSet<PathBuf> = links(&read("docs/SUMMARY.md"))
        .iter()
        .map(PathBuf::from)
        .collect();
    let in_readme: BTreeSet<PathBuf> = links(&read("README.md"))
        .iter()
        .filter_map(|link| Some(PathBuf::from(link.split('#').next()?.strip_prefix("docs/")?)))
        .collect();
    let pages = documents();
    let pages = pages.iter().filter_map(|path| path.strip_prefix("docs/"));
    let pages: BTreeSet<PathBuf> = pages
        .filter(|page| *page != "SUMMARY.md")
        .map(PathBuf::from)
        .collect();
    assert_eq!(in_summary, pages, "docs/SUMMARY.md");
    let missing: Vec<_> = pages.difference(&in_readme).collect();
    assert!(missing.is_empty(), "README.md does not link {missing:?}");
}

#[test]
fn the_page_of_programs_names_exactly_those_that_a_machine_tests() {
    let witnesses = read("tests/vm/programs/witnesses.rs");
    let tested = witnesses.lines().filter_map(|line| {
        let name = line.trim().strip_prefix("program: \"")?.strip_suffix("\",")?;
        Some(name.to_owned())
    });
    let page = read("docs/programs.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented = rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned()));
    let [tested, documented]: [BTreeSet<String>; 2] = [tested.collect(), documented.collect()];
    assert!(!tested.is_empty());
    assert_eq!(documented, tested);
}

#[test]
fn every_page_of_docs_begins_with_its_one_title() {
    for page in documents()
        .iter()
        .filter(|path| path.starts_with("docs/") && !path.ends_with("SUMMARY.md"))
    {
        let text = read(page);
        let titles = prose(&text).iter().filter(|line| line.starts_with("# ")).count();
        assert_eq!(titles, 1, "titles of {page}");
        assert!(
            text.starts_with("# "),
            "{page} begins with another line than its title"
        );
    }
}

#[test]
fn anchors_and_links_are_those_of_github() {
    let text = "# A `b`: C-d (e)\n## Twice\n```\n# no heading [x](y)\n```\n## Twice\n[a](b.md#c) `[d](e)` [f](https://g) [h](#i)\n";
    assert_eq!(
        Vec::from_iter(anchors(text)),
        ["a-b-c-d-e", "twice", "twice-1"],
        "anchors"
    );
    assert_eq!(links(text), ["b.md#c", "#i"]);
    assert!(fault("README.md", "docs/absent.md").is_some_and(|text| text.ends_with("no such file")));
    assert!(
        fault("README.md", "docs/policy.md#absent").is_some_and(|text| text.ends_with("no such heading"))
    );
    assert_eq!(
        fault("docs/policy.md", "#devices-that-expose-the-same-data"),
        None
    );
}
