//! The user's containers.conf of podman: adds our hooks directory to `hooks_dir`, and takes it out
//! again. All other content stays byte by byte.
//!
//! The text is edited, not written again from its values, because comments and order are the
//! user's. Each edit is checked by parsing its result: it must mean what was there before and the
//! one directory.

use std::ops::Range;

use serde::Deserialize;
use toml::{Spanned, Table, Value};

use crate::cli::drop_in::quoted;

/// At the end of each line that we write, so that we can remove it.
const MARK: &str = "# written by oci-hotplug install --user";

/// Why the file stays as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EditError {
    #[error("it is not valid: {0}")]
    Malformed(String),
    #[error(
        "hooks_dir of [engine] is written in a way that cannot be edited (change it yourself: the list must {verb} {directory:?})"
    )]
    Unusual {
        /// `have`, or `not have`.
        verb: &'static str,
        directory: String,
    },
}

#[derive(Deserialize)]
struct Text {
    #[serde(default)]
    engine: EngineText,
}

#[derive(Default, Deserialize)]
struct EngineText {
    hooks_dir: Option<HooksDir>,
}

/// The list; an element of another type is an attribute, such as `{append=true}`.
type HooksDir = Spanned<Vec<Spanned<Value>>>;

/// The text with `directory` in the list of hooks directories, the last of them: its files win over
/// files with the same names. A list that did not exist begins with `defaults`, which podman reads
/// if there is no list.
///
/// # Errors
/// When the text is not TOML, or the list cannot be edited.
pub(super) fn with_directory(text: &str, directory: &str, defaults: &[&str]) -> Result<String, EditError> {
    let (mut expected, list) = parse(text)?;
    let edited = match &list {
        Some(list) if position(list, directory).is_some() => return Ok(text.to_owned()),
        Some(list) => inserted(text, list, directory),
        None => with_list(text, &[defaults, &[directory]].concat()),
    };
    let elements = hooks_dir(&mut expected);
    if list.is_none() {
        elements.extend(defaults.iter().map(|default| Value::from(*default)));
    }
    let last = elements.iter().rposition(Value::is_str);
    elements.insert(last.map_or(0, |last| last + 1), Value::from(directory));
    checked(edited, &expected).ok_or_else(|| EditError::Unusual {
        verb: "have",
        directory: directory.to_owned(),
    })
}

/// The text without `directory`, and without the lines that [`with_directory`] wrote if the list
/// has nothing else but `defaults`.
///
/// # Errors
/// As [`with_directory`].
pub(super) fn without_directory(text: &str, directory: &str, defaults: &[&str]) -> Result<String, EditError> {
    let (table, list) = parse(text)?;
    let found = list.and_then(|list| Some((position(&list, directory)?, list)));
    let Some((index, list)) = found else {
        return Ok(text.to_owned());
    };
    let mut without_list = table.clone();
    remove_list(&mut without_list);
    let mut without_element = table;
    hooks_dir(&mut without_element).remove(index);
    let is_ours = list
        .get_ref()
        .iter()
        .filter_map(|element| element.get_ref().as_str())
        .all(|element| element == directory || defaults.contains(&element));
    let lines = match is_ours {
        true => without_lines(text, &list),
        false => Vec::new(),
    };
    lines
        .into_iter()
        .find_map(|edited| checked(edited, &without_list))
        .or_else(|| checked(without_element_at(text, &list, index), &without_element))
        .ok_or_else(|| EditError::Unusual {
            verb: "not have",
            directory: directory.to_owned(),
        })
}

fn parse(text: &str) -> Result<(Table, Option<HooksDir>), EditError> {
    let malformed = |error: toml::de::Error| EditError::Malformed(error.message().replace('\n', ", "));
    let table = toml::from_str(text).map_err(malformed)?;
    let typed: Text = toml::from_str(text).map_err(malformed)?;
    Ok((table, typed.engine.hooks_dir))
}

/// The edited text, if it means what is expected.
fn checked(edited: String, expected: &Table) -> Option<String> {
    let mut meant = toml::from_str::<Table>(&edited).ok()?;
    let mut expected = expected.clone();
    for table in [&mut meant, &mut expected] {
        let is_empty = |engine: &Value| engine.as_table().is_some_and(Table::is_empty);
        if table.get("engine").is_some_and(is_empty) {
            table.remove("engine");
        }
    }
    (meant == expected).then_some(edited)
}

fn hooks_dir(table: &mut Table) -> &mut Vec<Value> {
    let engine = table
        .entry("engine")
        .or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(engine) = engine else {
        unreachable!("the text was parsed with [engine] as a table");
    };
    let list = engine
        .entry("hooks_dir")
        .or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(list) = list else {
        unreachable!("the text was parsed with hooks_dir as a list");
    };
    list
}

fn remove_list(table: &mut Table) {
    if let Some(Value::Table(engine)) = table.get_mut("engine") {
        engine.remove("hooks_dir");
    }
}

fn position(list: &HooksDir, directory: &str) -> Option<usize> {
    let mut elements = list.get_ref().iter();
    elements.position(|element| element.get_ref().as_str() == Some(directory))
}

fn replaced(text: &str, range: Range<usize>, by: &str) -> String {
    let (before, after) = (text.get(..range.start), text.get(range.end..));
    format!("{}{by}{}", before.unwrap_or_default(), after.unwrap_or_default())
}

fn inserted(text: &str, list: &HooksDir, directory: &str) -> String {
    let elements = list.get_ref();
    let last = elements.iter().rfind(|element| element.get_ref().is_str());
    let (at, inserted) = match last {
        Some(last) => (last.span().end, format!(", {}", quoted(directory))),
        None if elements.is_empty() => (list.span().start + 1, quoted(directory)),
        None => (list.span().start + 1, format!("{}, ", quoted(directory))),
    };
    replaced(text, at..at, &inserted)
}

/// The text with a new list: below the heading `[engine]`, or with that at the end.
fn with_list(text: &str, directories: &[&str]) -> String {
    let directories: Vec<String> = directories.iter().map(|directory| quoted(directory)).collect();
    let line = format!("hooks_dir = [{}] {MARK}\n", directories.join(", "));
    let mut edited = String::new();
    let mut has_heading = false;
    for written in text.split_inclusive('\n') {
        edited += written;
        let heading = written.split('#').next().unwrap_or_default().trim();
        if heading == "[engine]" && !has_heading {
            has_heading = true;
            end_line(&mut edited);
            edited += &line;
        }
    }
    if !has_heading {
        end_line(&mut edited);
        if !edited.is_empty() {
            edited.push('\n');
        }
        edited += &format!("[engine] {MARK}\n{line}");
    }
    edited
}

fn end_line(text: &mut String) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
}

/// The text without the lines that [`with_list`] has written: with the heading and the empty line
/// above it, and, for a heading that has other keys now, only the list. Empty if the line of the
/// list is not ours.
fn without_lines(text: &str, list: &HooksDir) -> Vec<String> {
    let start = |at: usize| text[..at].rfind('\n').map_or(0, |end| end + 1);
    let line_start = start(list.span().start);
    let line_end = text[line_start..]
        .find('\n')
        .map_or(text.len(), |end| line_start + end + 1);
    if !text[line_start..line_end].trim_end().ends_with(MARK) {
        return Vec::new();
    }
    let mut all = Vec::new();
    let heading = start(line_start.saturating_sub(1));
    if text[heading..line_start].trim_end() == format!("[engine] {MARK}") {
        let above = match text[..heading].ends_with("\n\n") {
            true => heading - 1,
            false => heading,
        };
        all.push(replaced(text, above..line_end, ""));
    }
    all.push(replaced(text, line_start..line_end, ""));
    all
}

fn without_element_at(text: &str, list: &HooksDir, index: usize) -> String {
    let span = |index: usize| list.get_ref().get(index).map(Spanned::span);
    let own = span(index).unwrap_or_default();
    let before = index.checked_sub(1).and_then(span);
    let range = match (before, span(index + 1)) {
        (Some(before), _) => before.end..own.end,
        (None, Some(after)) => own.start..after.start,
        (None, None) => own,
    };
    replaced(text, range, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::any_text::any_text;

    const OURS: &str = "/home/alice/.local/share/oci-hotplug/hooks.d";
    const DEFAULT: &str = "/usr/share/containers/oci/hooks.d";

    fn with(text: &str) -> String {
        with_directory(text, OURS, &[DEFAULT]).unwrap()
    }

    fn without(text: &str) -> String {
        without_directory(text, OURS, &[DEFAULT]).unwrap()
    }

    fn directories(text: &str) -> Vec<String> {
        let table: Table = toml::from_str(text).unwrap();
        let list = table["engine"]["hooks_dir"].as_array().unwrap();
        let list = list.iter().filter_map(Value::as_str);
        list.map(str::to_owned).collect()
    }

    #[test]
    fn a_list_is_written_below_the_heading_or_at_the_end_with_podmans_default() {
        let line = format!("hooks_dir = [\"{DEFAULT}\", \"{OURS}\"] {MARK}\n");
        assert_eq!(with(""), format!("[engine] {MARK}\n{line}"));
        let other = "[containers]\nlog_driver = \"journald\"";
        assert_eq!(with(other), format!("{other}\n\n[engine] {MARK}\n{line}"));
        let headed = "[engine] # mine\ncgroup_manager = \"cgroupfs\"\n[network]\n";
        assert_eq!(
            with(headed),
            format!("[engine] # mine\n{line}cgroup_manager = \"cgroupfs\"\n[network]\n")
        );
    }

    #[test]
    fn the_directory_is_added_once_behind_those_of_the_user() {
        for text in [
            "[engine]\nhooks_dir = [\"/a\", \"/b\"] # mine\n",
            "[engine]\nhooks_dir = [\n  \"/a\", # first\n  '/b',\n]\n",
            "engine.hooks_dir = [\"/a\", \"/b\", {append=true}]\n",
            "engine = { hooks_dir = [\"/a\", \"/b\"] }\n",
        ] {
            let edited = with(text);
            assert_eq!(directories(&edited), ["/a", "/b", OURS], "{edited}");
            assert_eq!(with(&edited), edited);
            assert_eq!(without(&edited), text);
        }
        for text in [
            "[engine]\nhooks_dir = []\n",
            "[engine]\nhooks_dir = [{append=true}]\n",
        ] {
            assert_eq!(directories(&with(text)), [OURS]);
            assert_eq!(without(&with(text)), text);
        }
    }

    #[test]
    fn a_heading_of_ours_with_keys_of_the_user_stays() {
        let edited = format!("{}runtime = \"crun\"\n", with(""));
        assert_eq!(without(&edited), format!("[engine] {MARK}\nruntime = \"crun\"\n"));
        // The user has added a directory to our list: it stays, and so does the default.
        let edited = with("").replace(&format!("\"{OURS}\""), &format!("\"{OURS}\", \"/mine\""));
        assert_eq!(directories(&without(&edited)), [DEFAULT, "/mine"]);
        // A first element is removed with its comma.
        let first = format!("[engine]\nhooks_dir = [\"{OURS}\", \"/mine\"]\n");
        assert_eq!(without(&first), "[engine]\nhooks_dir = [\"/mine\"]\n");
        assert_eq!(without("[engine]\n"), "[engine]\n");
    }

    #[test]
    fn a_file_that_cannot_be_edited_safely_is_an_error() {
        for text in [
            "engine.runtime = \"crun\"\n",
            "engine = {}\n",
            "a = '''\n[engine]\n'''\n[engine]\nruntime = \"crun\"\n",
        ] {
            let error = with_directory(text, OURS, &[]).unwrap_err();
            assert!(matches!(error, EditError::Unusual { .. }), "{text}");
            assert!(error.to_string().contains(OURS), "{error}");
        }
        for text in ["[engine", "engine = 1", "[engine]\nhooks_dir = \"/a\""] {
            let error = with_directory(text, OURS, &[]).unwrap_err();
            assert!(matches!(error, EditError::Malformed(_)), "{text}");
        }
    }

    /// Lines of a containers.conf, each valid behind the others.
    fn any_file() -> impl Strategy<Value = String> {
        let parts = vec![
            "# a comment",
            "",
            "[containers]\nlog_driver = \"k8s-file\" # mine",
            "[network]\nnote = '''\nhooks_dir = [\n'''",
            "[engine]\nruntime = \"crun\"",
            "[engine]",
            "[engine]\nhooks_dir = [\"/a\", \"/b\"]\nruntime = \"runc\"",
            "[engine.runtimes]\ncrun = [\"/usr/bin/crun\"]",
        ];
        prop::collection::vec(prop::sample::select(parts), 0..6).prop_map(|parts| {
            let mut text = String::new();
            for part in parts {
                let more = format!("{text}{part}\n");
                if toml::from_str::<Table>(&more).is_ok() {
                    text = more;
                }
            }
            text
        })
    }

    proptest! {
        #[test]
        fn removing_what_was_added_gives_the_same_file(text in any_file()) {
            if let Ok(edited) = with_directory(&text, OURS, &[DEFAULT]) {
                let last = directories(&edited).pop();
                prop_assert_eq!(last.as_deref(), Some(OURS));
                prop_assert_eq!(without(&edited), text);
            }
        }

        #[test]
        fn any_text_is_edited_or_refused(text in any_text(), directory in any_text()) {
            if let Ok(edited) = with_directory(&text, &directory, &[]) {
                prop_assert!(directories(&edited).contains(&directory));
                prop_assert!(without_directory(&edited, &directory, &[]).is_ok());
            }
        }
    }
}
