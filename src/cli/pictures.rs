//! Pictures of the terminal for documents: the text that a verb draws, with its colours, as SVG.
//!
//! Tests draw real output and call [`check`]. With OCI_HOTPLUG_GOLDEN=write they write the
//! pictures.

use std::fmt::Write;
use std::fs;
use std::path::Path;

/// The columns of the pictured terminal, and the size of a letter in pixels.
pub(super) const COLUMNS: usize = 80;
const LETTER: (f64, f64) = (8.4, 19.0);
const MARGIN: f64 = 16.0;

/// Letters of one style, and the column that they begin at.
struct Run {
    column: usize,
    class: String,
    text: String,
}

/// Panics unless docs/pictures/NAME.svg shows this command with this output.
#[track_caller]
pub(super) fn check(name: &str, command: &str, output: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/pictures/{name}.svg"));
    let picture = svg(command, output);
    if std::env::var_os("OCI_HOTPLUG_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("make docs/pictures");
        fs::write(&path, &picture).expect("write a picture");
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        current == picture,
        "{} shows another output; OCI_HOTPLUG_GOLDEN=write renews it",
        path.display()
    );
}

fn svg(command: &str, output: &str) -> String {
    let prompt = format!("\u{1b}[2m$\u{1b}[0m \u{1b}[1m{command}\u{1b}[0m\n");
    let lines: Vec<Vec<Run>> = (prompt + output).lines().flat_map(rows).collect();
    let (width, height) = (
        COLUMNS as f64 * LETTER.0 + 2.0 * MARGIN,
        lines.len() as f64 * LETTER.1 + 2.0 * MARGIN,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" aria-label=\"{label}\">\n\
         <style>\n\
         text {{ font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #d8dee9; }}\n\
         .bold {{ font-weight: bold; fill: #ffffff; }} .dim {{ fill: #7b8394; }}\n\
         .red {{ fill: #ff7b72; }} .green {{ fill: #7ee787; }} .yellow {{ fill: #e3b341; }}\n\
         </style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#161b22\"/>\n",
        label = escaped(command),
    );
    for (row, runs) in lines.iter().enumerate() {
        let y = MARGIN + (row as f64 + 0.75) * LETTER.1;
        for (run, (column, text)) in runs
            .iter()
            .flat_map(|run| words(run).map(move |words| (run, words)))
        {
            let x = MARGIN + column as f64 * LETTER.0;
            // The length keeps columns below one another in every font.
            let length = text.chars().count() as f64 * LETTER.0;
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" textLength=\"{length:.1}\"{}>{}</text>",
                run.class,
                escaped(text)
            );
        }
    }
    svg + "</svg>\n"
}

/// The words of a run, each with its column. SVG shows several spaces as one.
fn words(run: &Run) -> impl Iterator<Item = (usize, &str)> {
    let mut column = run.column;
    run.text.split(' ').filter_map(move |word| {
        let begin = column;
        column += word.chars().count() + 1;
        (!word.is_empty()).then_some((begin, word))
    })
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

/// One line as a terminal shows it: in rows of its columns, in runs of one style.
fn rows(line: &str) -> Vec<Vec<Run>> {
    let mut rows = vec![Vec::new()];
    let (mut column, mut classes) = (0, Vec::new());
    for part in line.split('\u{1b}') {
        let text = match part.strip_prefix('[').and_then(|part| part.split_once('m')) {
            Some((codes, text)) if line.contains('\u{1b}') => {
                restyle(codes, &mut classes);
                text
            }
            _ => part,
        };
        let mut rest: Vec<char> = text.chars().collect();
        while !rest.is_empty() {
            if column == COLUMNS {
                rows.push(Vec::new());
                column = 0;
            }
            let taken: String = rest.drain(..rest.len().min(COLUMNS - column)).collect();
            let length = taken.chars().count();
            let run = Run {
                column,
                class: match classes.is_empty() {
                    true => String::new(),
                    false => format!(" class=\"{}\"", classes.join(" ")),
                },
                text: taken,
            };
            rows.last_mut().expect("a row").push(run);
            column += length;
        }
    }
    rows
}

/// Select Graphic Rendition of ECMA-48, as far as the verbs use it.
fn restyle(codes: &str, classes: &mut Vec<&'static str>) {
    for code in codes.split(';') {
        match code {
            "0" => classes.clear(),
            "1" => classes.push("bold"),
            "2" => classes.push("dim"),
            "31" => classes.push("red"),
            "32" => classes.push("green"),
            "33" => classes.push("yellow"),
            other => panic!("no picture knows the style {other}"),
        }
    }
}

#[test]
fn colours_become_classes_and_long_lines_go_on_in_the_next_row() {
    let long = "x".repeat(COLUMNS + 3);
    let drawn = svg("list", &format!("a \u{1b}[32mok\u{1b}[0m <b>\n{long}\n"));
    assert!(drawn.contains("class=\"green\">ok</text>"), "{drawn}");
    assert!(drawn.contains(">&lt;b></text>"), "{drawn}");
    assert!(drawn.contains(">xxx</text>"), "{drawn}");
}
