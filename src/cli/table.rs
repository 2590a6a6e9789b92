//! Plain tables: columns as wide as their widest cell, the last one as long as it is.

use std::io::Write;

/// Writes rows under a header, columns two spaces apart.
///
/// # Errors
/// As the writer.
pub fn write<const N: usize>(
    out: &mut impl Write,
    header: [&str; N],
    rows: &[[String; N]],
) -> std::io::Result<()> {
    let mut widths = header.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let header = header.map(str::to_owned);
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
