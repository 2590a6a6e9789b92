//! Plain tables: columns as wide as their widest cell; on a terminal the last one is cut at its
//! edge.

use std::io::{IsTerminal, Write};

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

/// Writes rows under a header, columns two spaces apart.
///
/// # Errors
/// As the writer.
pub(in crate::cli) fn write<const N: usize>(
    out: &mut impl Write,
    header: [&str; N],
    rows: &[[String; N]],
) -> std::io::Result<()> {
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
    let screen = screen_width().unwrap_or(usize::MAX);
    let header = header.map(str::to_owned);
    for row in std::iter::once(&header).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        writeln!(out, "{}", clipped(line.trim_end(), screen))?;
    }
    Ok(())
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
}
