//! A table of devices in CSV, read whole before anything is done with it, so that every line that is wrong is told at once.
//!
//! What spreadsheets make of a table is taken: a byte order mark, CRLF, semicolons or tabs for commas, further columns, and a
//! first line of names, one of which is then `imei` and another perhaps `label`. Without such a line the first column is the
//! IMEI's and the second, where there is one, the label's.

use std::collections::HashMap;
use std::fmt;

use moorline_protocol::Imei;

/// A device and the line that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The line, counted from 1.
    pub line: u64,
    /// The IMEI.
    pub imei: Imei,
    /// What people call it; empty where there is nothing.
    pub label: String,
}

/// A line of which nothing can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub line: u64,
    /// What stands there for an IMEI, cut short.
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
}

impl BadLine {
    /// A row that can be read, and yet is not possible.
    #[must_use]
    pub fn of(row: &Row, reason: String) -> Self {
        Self { line: row.line, value: row.imei.to_string(), reason }
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {:?}: {}", self.line, self.value, self.reason)
    }
}

/// So many wrong lines are enough: a large file that is no table at all would take a multiple of itself to tell.
const MOST_BAD: usize = 10_000;

/// Of further columns nothing is needed.
const MOST_COLUMNS: usize = 256;

/// How many lines are wrong, for people.
#[must_use]
pub fn count_lines(bad: &[BadLine]) -> String {
    format!("{} lines{}", bad.len(), if bad.len() < MOST_BAD { "" } else { " or more" })
}

/// Reads a table.
///
/// # Errors
/// Every line that holds no IMEI, or one that an earlier line holds; of very many the first ones.
pub fn read_table(bytes: &[u8]) -> Result<Vec<Row>, Vec<BadLine>> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut records = Records { rest: text, line: 1, delimiter: delimiter(text) }.peekable();
    let named = |name: &'static [u8]| {
        move |record: &Record| record.fields.iter().position(|field| field.eq_ignore_ascii_case(name))
    };
    let names = records.peek().filter(|record| record.is_closed && named(b"imei")(record).is_some());
    let (column, label_column) = match names {
        Some(names) => (named(b"imei")(names).unwrap_or(0), named(b"label")(names)),
        None => (0, Some(1)),
    };
    let skipped = usize::from(names.is_some());
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    let mut seen: HashMap<Imei, u64> = HashMap::new();
    for record in records.skip(skipped).filter(|record| !record.is_blank) {
        let Record { line, fields, is_closed, .. } = record;
        let text = |column: usize| String::from_utf8_lossy(fields.get(column).map_or(&[], Vec::as_slice));
        let value = text(column);
        let row = match value.parse::<Imei>() {
            _ if !is_closed => Err("a quotation mark in it is never closed".to_owned()),
            Err(why) => Err(format!("this is no IMEI: {why}")),
            Ok(imei) => match seen.insert(imei, line) {
                Some(earlier) => Err(format!("it repeats line {earlier}")),
                None => {
                    Ok(Row { line, imei, label: label_column.map(text).unwrap_or_default().into_owned() })
                }
            },
        };
        match row {
            Ok(row) => rows.push(row),
            Err(reason) => bad.push(BadLine { line, value: value.chars().take(32).collect(), reason }),
        }
        if bad.len() == MOST_BAD {
            break;
        }
    }
    if bad.is_empty() { Ok(rows) } else { Err(bad) }
}

/// The one that the first line has; a line of one field has none.
fn delimiter(text: &[u8]) -> u8 {
    let first = text.split(|byte| is_end(*byte)).next().unwrap_or_default();
    [b',', b';', b'\t'].into_iter().find(|delimiter| first.contains(delimiter)).unwrap_or(b',')
}

const fn is_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Fields that stand in one line; in more, where there is a line's end between quotation marks (RFC 4180).
struct Record {
    /// Where it begins.
    line: u64,
    /// The first [`MOST_COLUMNS`] of them.
    fields: Vec<Vec<u8>>,
    is_closed: bool,
    /// Nothing but delimiters, which is how a spreadsheet writes an empty line.
    is_blank: bool,
}

/// The records of a text. They know their lines, which crates for CSV do not where lines are blank.
struct Records<'t> {
    rest: &'t [u8],
    line: u64,
    delimiter: u8,
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        if self.rest.is_empty() {
            return None;
        }
        let mut record = Record { line: self.line, fields: Vec::new(), is_closed: true, is_blank: true };
        loop {
            let (field, is_closed) = self.field();
            record.is_closed &= is_closed;
            record.is_blank &= field.is_empty();
            if record.fields.len() < MOST_COLUMNS {
                record.fields.push(field);
            }
            match self.take() {
                Some(byte) if byte == self.delimiter => {}
                _ => return Some(record),
            }
        }
    }
}

impl Records<'_> {
    /// A field, without the blanks around it, and whether its quotation mark is closed; what ends it is not taken.
    fn field(&mut self) -> (Vec<u8>, bool) {
        let (mut field, mut is_quoted) = (Vec::new(), false);
        while let Some(byte) = self.rest.first().copied() {
            match byte {
                b'"' if is_quoted && self.rest.get(1) == Some(&b'"') => {
                    self.take();
                    field.push(byte);
                }
                b'"' if is_quoted || field.trim_ascii().is_empty() => is_quoted = !is_quoted,
                end if !is_quoted && (end == self.delimiter || is_end(end)) => break,
                // As it stands there, a line's end of two bytes too.
                _ => field.extend(self.rest.get(..self.width()).unwrap_or_default()),
            }
            self.take();
        }
        (field.trim_ascii().to_vec(), !is_quoted)
    }

    /// The next byte; CRLF is one.
    fn take(&mut self) -> Option<u8> {
        let byte = self.rest.first().copied()?;
        self.rest = self.rest.get(self.width()..).unwrap_or_default();
        self.line += u64::from(is_end(byte));
        Some(byte)
    }

    /// How many bytes [`Self::take`] takes.
    fn width(&self) -> usize {
        if self.rest.starts_with(b"\r\n") { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "869731052403821";
    const B: &str = "015184008301272";

    fn read(text: &str) -> Vec<(u64, String)> {
        let rows = read_table(text.as_bytes()).unwrap();
        rows.into_iter().map(|row| (row.line, row.imei.to_string())).collect()
    }

    #[test]
    fn tables_as_programs_write_them() {
        let both = |first, second| vec![(first, A.to_owned()), (second, B.to_owned())];
        assert_eq!(read(&format!("{A}\n{B}\n")), both(1, 2));
        assert_eq!(read(&format!("\u{feff}{A}\r\n\r\n{B}")), both(1, 3));
        assert_eq!(read(&format!("IMEI,site\n {A} ,\"Crane, north\"\n\"{B}\",\n,\n")), both(2, 3));
        assert_eq!(read(&format!("site;Imei\nCrane, north;{A}\n;{B}\n")), both(2, 3));
        assert_eq!(read(&format!("{A}\tpump\n{B}\n")), both(1, 2));
        assert_eq!(read(""), []);
    }

    #[test]
    fn labels_are_read_where_there_are_any() {
        let labels = |text: &str| -> Vec<_> {
            read_table(text.as_bytes()).unwrap().into_iter().map(|row| row.label).collect()
        };
        assert_eq!(labels(&format!("{A},\"Crane, \"\"north\"\"\"\n{B}\n")), ["Crane, \"north\"", ""]);
        assert_eq!(labels(&format!("site;Label;IMEI\nquay; Pump ;{A}\n")), ["Pump"]);
        assert_eq!(labels(&format!("imei,site\n{A},quay\n")), [""]);
    }

    #[test]
    fn line_end_between_quotation_marks_stays_as_it_is() {
        for end in ["\n", "\r\n", "\r", "\r\n\n"] {
            let rows = read_table(format!("{A},\"two{end}lines\"\r\n").as_bytes()).unwrap();
            assert_eq!(rows[0].label, format!("two{end}lines"));
        }
    }

    #[test]
    fn every_bad_line_is_told() {
        let text = format!("{A}\nhello\n869731052403820\n{A}\n\n,x\n{B}\n");
        let bad = read_table(text.as_bytes()).unwrap_err();
        let told: Vec<_> = bad.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "line 2: \"hello\": this is no IMEI: it holds something other than digits",
                "line 3: \"869731052403820\": this is no IMEI: its check digit is 0 where 1 would be right",
                "line 4: \"869731052403821\": it repeats line 1",
                "line 6: \"\": this is no IMEI: it has 0 digits, an IMEI has 15",
            ]
        );
    }

    #[test]
    fn quotation_mark_that_is_never_closed_swallows_nothing_in_silence() {
        let bad = read_table(format!("{A},\"Crane\n{B},x\n").as_bytes()).unwrap_err();
        assert_eq!(bad.len(), 1);
        assert_eq!(bad[0].to_string(), format!("line 1: {A:?}: a quotation mark in it is never closed"));
    }

    #[test]
    fn lines_are_counted_through_blank_and_quoted_ones() {
        let text = format!("imei,note\r\n\r\n{A},\"two\r\nlines, \"\"quoted\"\"\"\r\n\r\nhello\r\n");
        let bad = read_table(text.as_bytes()).unwrap_err();
        assert_eq!((bad.len(), bad[0].line), (1, 6));
    }

    #[test]
    fn file_that_is_no_table_is_not_told_line_by_line() {
        let bad = read_table("no\n".repeat(MOST_BAD - 1).as_bytes()).unwrap_err();
        assert_eq!(count_lines(&bad), "9999 lines");
        let bad = read_table("no\n".repeat(5 * MOST_BAD).as_bytes()).unwrap_err();
        assert_eq!(count_lines(&bad), "10000 lines or more");
    }

    #[test]
    fn columns_beyond_all_measure_are_passed_over() {
        let table = format!("{A},pump{}\n{}x\n", ",".repeat(1000), ",".repeat(1000));
        let bad = read_table(table.as_bytes()).unwrap_err();
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2], "it is not blank");
    }

    #[test]
    fn bytes_that_are_no_text_are_told() {
        let bad = read_table(b"869731052403821\n\xff\xfe\n015184008301272\n").unwrap_err();
        assert_eq!((bad.len(), bad[0].line), (1, 2));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_table(&bytes);
        }
    }
}
