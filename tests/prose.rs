//! Documents, messages and comments use plain words: none of the phrases below, which readers have
//! to read twice, or which stand for a term of the glossary.

use std::fs;
use std::path::{Path, PathBuf};

use regex_lite::Regex;

/// Phrases in lower case, with their forms, and what to write instead. A phrase begins and ends
/// with a whole word.
const PHRASES: &[(&str, &str)] = &[
    // Words that hide who does what.
    ("all the same", "anyway"),
    ("amiss", "wrong"),
    ("anew", "again"),
    ("at work", "running"),
    ("of another's", "of another container"),
    ("of old", "earlier"),
    ("of its own|of their own", "separate, or name what is special"),
    (
        "is told|are told|was told|were told|be told|been told",
        "name who logs, prints or reports it",
    ),
    ("give up its word|gives up its word", "name what it does"),
    ("has to say", "name what it reports"),
    ("wants it too|wants it, too", "requests it as well"),
    ("whoever|whomever|whosoever", "everyone who"),
    // Terms of the glossary (docs/glossary.md).
    ("ask for|asks for|asked for|asking for", "request"),
    ("wish|wishes|wished", "request"),
    ("stranger|strangers", "untrusted request, another user"),
    ("has spoken|owe|owes|owed", "pending: udevd has not processed it"),
    (
        "withheld|not for it",
        "not attached: denied, waiting, reserved, conflict",
    ),
    ("setback|setbacks", "retry"),
    ("succession|relieved", "handover"),
    ("tally|tallies", "counters"),
    ("cure|cures", "hint"),
    ("catalogue|catalogues", "resources"),
];

/// Sentences without a noun as their subject, in documents. A question may begin so.
const RIDDLES: &str = r"[.:;] (Who|What) [^.:;?!|]*\.";

/// `it is no device` instead of `it is not a device`; `there is no device` is right.
const NEGATION: &str = "is no|are no|was no|were no";

/// What is checked: files, and folders with all that is in them.
const CHECKED: &[&str] = &[
    ".github",
    "CHANGELOG.md",
    "README.md",
    "docs",
    "hooks.d",
    "justfile",
    "packaging",
    "src",
    "tests",
];

/// Inputs of tests, which may have any words and lines, and what fuzzing leaves in its directory.
const INPUTS: &[&str] = &[
    "tests/corpus",
    "tests/fixtures",
    "tests/fuzz/artifacts",
    "tests/fuzz/corpus",
    "tests/fuzz/target",
];

/// Files whose words are not checked: this one has the phrases.
const LEFT_OUT: &[&str] = &["tests/prose.rs"];

/// Files of which only the columns of comments are checked.
const COMMENTS_ONLY: &[&str] = &[".ci", "Cargo.toml", "deny.toml", "rustfmt.toml"];

/// Phrases that must stay: the file, the phrase and the reason.
const ALLOWED: &[(&str, &str, &str)] = &[];

/// The columns of a comment, which no formatter wraps.
const COLUMNS: usize = 100;

/// The text of a file in one line, so that a phrase may be broken between two, without the marks of
/// comments; and where each of its lines begins in that.
struct Text {
    text: String,
    /// The same in lower case: ASCII letters only, so that places are the same.
    lower: String,
    begins: Vec<usize>,
}

impl Text {
    fn new(source: &str) -> Self {
        let mut text = String::new();
        let mut begins = Vec::new();
        for line in source.lines() {
            begins.push(text.len());
            let line = line.trim();
            let marks = ["//!", "///", "//", "#", ".\\\"", "* ", "- "];
            let line = marks
                .iter()
                .find_map(|mark| line.strip_prefix(mark))
                .unwrap_or(line);
            // An empty line ends a sentence, as a heading or an item of a list does.
            text.push_str(if line.trim().is_empty() { "\n" } else { line.trim() });
            text.push(' ');
        }
        let lower = text.to_ascii_lowercase();
        Self { text, lower, begins }
    }

    fn line(&self, position: usize) -> usize {
        self.begins.partition_point(|begin| *begin <= position)
    }
}

/// Where these words are in a text of lower case, as whole words.
fn places<'a>(text: &'a str, forms: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let is_letter = |letter: char| letter.is_alphanumeric() || letter == '_';
    let all = forms.split('|').flat_map(move |form| text.match_indices(form));
    all.filter(move |(begin, words)| {
        let is_word = |neighbour: Option<char>| !neighbour.is_some_and(is_letter);
        let after = &text[begin + words.len()..];
        is_word(text[..*begin].chars().next_back()) && is_word(after.chars().next())
    })
}

/// What is wrong in a text: the line, the words, and what to write instead.
fn faults(source: &str, is_document: bool) -> Vec<(usize, String, &'static str)> {
    let text = Text::new(source);
    let mut faults = Vec::new();
    for (forms, instead) in PHRASES {
        for (place, words) in places(&text.lower, forms) {
            // Telling two things apart is right.
            if text.lower[place..].starts_with(&format!("{words} apart")) {
                continue;
            }
            faults.push((text.line(place), words.to_owned(), *instead));
        }
    }
    for (place, words) in places(&text.lower, NEGATION) {
        let is_mark = |letter: char| !letter.is_alphanumeric();
        let mut before = text.lower[..place].trim_end().rsplit(is_mark);
        let mut after = text.lower[place + words.len()..].trim_start().split(is_mark);
        let (before, after) = (before.next(), after.next());
        if before != Some("there") && after != Some("longer") {
            let words = [before, Some(words), after].map(Option::unwrap_or_default);
            faults.push((text.line(place), words.join(" "), "not a"));
        }
    }
    if is_document {
        let riddle = Regex::new(RIDDLES).expect(RIDDLES);
        for found in riddle.find_iter(&text.text) {
            faults.push((
                text.line(found.start()),
                found.as_str().to_owned(),
                "name the subject",
            ));
        }
    }
    faults.sort();
    faults
}

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display())) {
            files(&entry.expect("an entry").path(), found);
        }
    } else {
        found.push(path.to_owned());
    }
}

#[test]
fn documents_and_comments_use_plain_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for checked in CHECKED {
        files(&root.join(checked), &mut all);
    }
    all.retain(|path| {
        !INPUTS
            .iter()
            .chain(LEFT_OUT)
            .any(|left_out| path.starts_with(root.join(left_out)))
    });
    let mut report = Vec::new();
    for path in &all {
        // Pictures and other files that are not text.
        let Ok(source) = fs::read_to_string(path) else {
            continue;
        };
        let name = path
            .strip_prefix(root)
            .expect("below the root")
            .display()
            .to_string();
        let is_source = name.ends_with(".rs") || name.ends_with(".sh");
        for (line, words, instead) in faults(&source, !is_source) {
            let is_allowed = |entry: &&(&str, &str, &str)| entry.0 == name && entry.1 == words;
            if !ALLOWED.iter().any(|entry| is_allowed(&entry)) {
                report.push(format!("{name}:{line}: {words:?}: {instead}"));
            }
        }
    }
    assert!(
        report.is_empty(),
        "{} phrases:\n{}",
        report.len(),
        report.join("\n")
    );
}

/// What a comment begins with in a file, unless the file has none or is not ours to wrap.
fn comment_mark(path: &Path, source: &str) -> Option<&'static str> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("rs") => Some("//"),
        Some("bash" | "py" | "service" | "sh" | "timer" | "toml" | "yaml" | "yml") => Some("#"),
        _ if source.starts_with("#!") || path.ends_with("justfile") => Some("#"),
        _ => None,
    }
}

/// The lines of a file that are comments with this mark and too long, by their numbers.
fn long_comments(source: &str, mark: &str) -> impl Iterator<Item = usize> {
    source
        .lines()
        .enumerate()
        .filter(move |(_, line)| line.trim_start().starts_with(mark) && line.chars().count() > COLUMNS)
        .map(|(index, _)| index + 1)
}

#[test]
fn comments_have_at_most_100_columns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for checked in CHECKED.iter().chain(COMMENTS_ONLY) {
        files(&root.join(checked), &mut all);
    }
    all.retain(|path| !INPUTS.iter().any(|inputs| path.starts_with(root.join(inputs))));
    let mut report = Vec::new();
    let mut checked = 0;
    for path in &all {
        let Ok(source) = fs::read_to_string(path) else {
            continue;
        };
        let Some(mark) = comment_mark(path, &source) else {
            continue;
        };
        checked += 1;
        report.extend(long_comments(&source, mark).map(|line| format!("{}:{line}", path.display())));
    }
    assert!(checked > 500, "only {checked} files were found");
    assert!(report.is_empty(), "{}", report.join("\n"));
}

#[test]
fn a_long_comment_is_found_and_long_code_is_not() {
    for mark in ["//", "#"] {
        let long = "─".repeat(COLUMNS - mark.len() - 1);
        let source = format!("    {mark} {long}\n{mark} {long}\n{mark}! {long}\nlet x = \"{long}\";\n");
        let found: Vec<usize> = long_comments(&source, mark).collect();
        assert_eq!(found, [1, 3], "{mark}");
    }
    let of = |path: &str, source: &str| comment_mark(Path::new(path), source);
    assert_eq!(of("src/lib.rs", ""), Some("//"));
    assert_eq!(of("packaging/config.toml", ""), Some("#"));
    assert_eq!(of(".ci/run", "#!/bin/sh\n"), Some("#"));
    assert_eq!(of("README.md", "# Title"), None);
}

#[test]
fn phrases_are_found_across_lines_and_only_as_words() {
    let words = |source: &str| {
        let faults = faults(source, true);
        faults
            .into_iter()
            .map(|(line, words, _)| (line, words))
            .collect::<Vec<_>>()
    };
    let found = |line, words: &str| vec![(line, words.to_owned())];
    assert_eq!(
        words("one\n// that is all the\n// same here"),
        found(2, "all the same")
    );
    assert_eq!(words("It asks for nodes."), found(1, "asks for"));
    assert_eq!(words("it is no keyboard"), found(1, "it is no keyboard"));
    assert_eq!(
        words("First. What is gone is gone."),
        found(1, ". What is gone is gone.")
    );
    let plain = "There is no device, it is no longer here. What is it? Who asks? A task for tasks: whatever, renew, network of older hosts, which are told apart. (There are no nodes.)\n";
    assert_eq!(words(plain), []);
}
