//! Columns for people. What devices say of themselves cannot steer the terminal from here.

use std::io::{self, Write};

/// Between two columns.
const GAP: &str = "  ";

/// A head and rows, each column as wide as its widest cell.
pub(super) fn write<const N: usize>(
    out: &mut impl Write,
    head: &[&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| harmless(cell))).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell));
        cells.chain(head.get(column).map(|cell| width(cell))).max().unwrap_or(0)
    });
    write_row(out, head, &widths)?;
    rows.iter().try_for_each(|row| write_row(out, &row.each_ref().map(String::as_str), &widths))
}

/// Names and values, one pair a line.
pub(super) fn write_pairs(out: &mut impl Write, pairs: &[(&str, String)]) -> io::Result<()> {
    let widest = pairs.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    pairs.iter().try_for_each(|(name, value)| write_row(out, &[name, &harmless(value)], &[widest, 0]))
}

/// One row; nothing is padded behind its last cell.
pub(super) fn write_row<const N: usize>(
    out: &mut impl Write,
    cells: &[&str; N],
    widths: &[usize; N],
) -> io::Result<()> {
    let mut line = String::new();
    for (cell, width_wanted) in cells.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width_wanted.saturating_sub(width(cell))));
        line.push_str(GAP);
    }
    writeln!(out, "{}", line.trim_end())
}

/// The same with every control character made visible.
pub(super) fn harmless(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_unicode().collect() } else { c.to_string() };
    text.chars().map(escape).collect()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(rows: &[[&str; 2]]) -> String {
        let rows: Vec<_> = rows.iter().map(|row| row.map(str::to_owned)).collect();
        let mut out = Vec::new();
        write(&mut out, &["NAME", "SIZE"], &rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(written(&[["a", "1"], ["länger", ""]]), "NAME    SIZE\na       1\nlänger\n");
    }

    #[test]
    fn empty_table_is_its_head() {
        assert_eq!(written(&[]), "NAME  SIZE\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = written(&[["\u{1b}[2J\u{9b}", "\n"]]);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
        assert!(text.contains("\\u{1b}[2J"), "{text:?}");
    }
}
