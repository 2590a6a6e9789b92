//! Plain tables: columns as wide as their widest cell; on a terminal the widest ones are cut.

use std::io::{IsTerminal, Write};

use anstyle::Style;

use super::color::PLAIN;
use crate::model::quoting::visible;

/// How many columns a text takes. Letters of double width count once: few names have any.
pub(in crate::cli) fn width(text: &str) -> usize {
    text.chars().count()
}

/// The text, cut with `…` where it would take more columns than these.
pub(in crate::cli) fn clipped(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let kept = text.chars().take(columns.saturating_sub(1));
    kept.chain((columns > 0).then_some('…')).collect()
}

/// The terminal's columns; `None` where our output does not go to one.
pub(in crate::cli) fn screen_width() -> Option<usize> {
    let (columns, _) = terminal_size::terminal_size()?;
    std::io::stdout().is_terminal().then_some(usize::from(columns.0))
}

/// Writes one line, as `writeln!` does, with nothing in it that moves a terminal's cursor: file
/// names, annotations and strings of devices are foreign text. A line feed at the beginning of the
/// format stands for an empty line before.
macro_rules! print_line {
    ($out:expr, $($format:tt)+) => {
        $crate::cli::render::table::write_line($out.by_ref(), format_args!($($format)+))
    };
}
pub(in crate::cli) use print_line;

/// What `print_line!` does.
///
/// # Errors
/// As the writer.
pub(in crate::cli) fn write_line(out: &mut impl Write, text: std::fmt::Arguments<'_>) -> std::io::Result<()> {
    let text = text.to_string();
    let (blank, text) = match text.strip_prefix('\n') {
        Some(rest) => ("\n", rest),
        None => ("", text.as_str()),
    };
    writeln!(out, "{blank}{}", visible(text))
}

/// Writes rows under a header, in the width of the terminal.
///
/// # Errors
/// As the writer.
pub(in crate::cli) fn write<const N: usize>(
    out: &mut impl Write,
    header: [&str; N],
    rows: &[[String; N]],
) -> std::io::Result<()> {
    let drawn = draw(header, rows, screen_width(), |_, _| PLAIN);
    out.write_all(drawn.as_bytes())
}

/// Draws rows under a header, columns two spaces apart. On a screen with so many columns, the
/// widest cells are cut until a row fits. `style` has the style of a cell, by the column's number
/// and the text.
pub(in crate::cli) fn draw<const N: usize>(
    header: [&str; N],
    rows: &[[String; N]],
    screen: Option<usize>,
    style: impl Fn(usize, &str) -> Style,
) -> String {
    let rows: Vec<[String; N]> = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| visible(cell).into_owned()))
        .collect();
    let mut widths = header.map(width);
    for row in &rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    let screen = screen.unwrap_or(usize::MAX);
    fit(&mut widths, screen);
    let mut drawn = draw_row(&header.map(str::to_owned), &widths, screen, |_, _| PLAIN);
    for row in &rows {
        drawn += &draw_row(row, &widths, screen, &style);
    }
    drawn
}

/// Cells are not made narrower than this; what does not fit then is cut at the screen's edge.
const MIN_COLUMN: usize = 8;

/// Narrows the widest column, the last one of several, until all fit.
fn fit(widths: &mut [usize], screen: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > screen {
        match widths.iter_mut().max() {
            Some(widest) if *widest > MIN_COLUMN => *widest -= 1,
            _ => return,
        }
    }
}

/// The spaces between two columns.
const GAP: usize = 2;

fn draw_row<const N: usize>(
    row: &[String; N],
    widths: &[usize; N],
    screen: usize,
    style: impl Fn(usize, &str) -> Style,
) -> String {
    let mut line = String::new();
    let mut left = screen;
    let last = row.iter().rposition(|cell| !cell.is_empty());
    for (column, (cell, width_of_column)) in row.iter().zip(widths).enumerate() {
        let shown = clipped(cell, left.min(*width_of_column));
        let style = style(column, cell);
        line += &format!("{style}{shown}{style:#}");
        left = left.saturating_sub(width_of_column + GAP);
        if left == 0 || last.is_none_or(|last| column >= last) {
            break;
        }
        line += &" ".repeat(width_of_column - width(&shown) + GAP);
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    #[test]
    fn foreign_text_moves_no_cursor_and_makes_no_line() {
        let mut out = Vec::new();
        super::write(&mut out, ["X", "Y"], &[["a\nb".into(), "\u{1b}[2J".into()]]).unwrap();
        super::print_line!(out, "\nnode {}", "/dev/x\n2026 forged\u{202e}").unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "X     Y\na\\nb  \\u{1b}[2J\n\nnode /dev/x\\n2026 forged\\u{202e}\n"
        );
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        let rows = [["a".into(), "long cell".into()], ["bbbb".into(), String::new()]];
        super::write(&mut out, ["X", "Y"], &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "X     Y\na     long cell\nbbbb\n"
        );
    }

    #[test]
    fn on_a_screen_the_widest_cells_are_cut_and_what_is_short_stays_whole() {
        let rows = [[
            "id".into(),
            "a long name of a container".into(),
            "usb:0403:6001;link=/dev/x".into(),
        ]];
        let header = ["ID", "NAME", "REQUESTS"];
        let drawn = |screen| super::draw(header, &rows, Some(screen), |_, _| super::PLAIN);
        assert_eq!(
            drawn(40),
            "ID  NAME               REQUESTS\nid  a long name of a…  usb:0403:6001;li…\n"
        );
        for screen in 1..80 {
            let drawn = drawn(screen);
            assert!(
                drawn.lines().all(|line| super::width(line) <= screen),
                "{screen}: {drawn}"
            );
        }
    }

    #[test]
    fn a_style_surrounds_the_cell_and_takes_no_column() {
        let rows = [["ok".into(), "x".into()]];
        let style = |column, _: &str| {
            if column == 0 {
                super::super::color::GOOD
            } else {
                super::PLAIN
            }
        };
        assert_eq!(
            super::draw(["HEALTH", "X"], &rows, None, style),
            "HEALTH  X\n\u{1b}[32mok\u{1b}[0m      x\n"
        );
    }
}
