//! One file from disk to its last key. Owns the mistakes found on the way; what a key means is its reader's matter.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::mistakes::{Found, Mistake, Mistakes, Place};
use crate::nearest::nearest;
use crate::section::Section;
use crate::tree::{Entry, Lines, Table, Value};

/// The longest file that is read: far more than any configuration, far less than what could hurt a small device.
pub const MAX_FILE: usize = 64 * 1024;

/// One parsed file. Ask its [`root`](Self::root) for what you know, then [`finish`](Self::finish).
#[must_use = "the mistakes come out of `finish`"]
pub struct Document {
    file: PathBuf,
    root: Table,
    mistakes: RefCell<Found>,
}

impl Document {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// The file can't be read, is too large or no text, or its TOML is broken.
    pub fn read(file: &Path) -> Result<Self, Mistakes> {
        let bytes = read_bounded(file).map_err(|error| Mistakes::new(file, "", unreadable(&error)))?;
        if bytes.len() > MAX_FILE {
            return Err(Mistakes::new(file, "", "is larger than 64 KiB, so hardly a configuration"));
        }
        match str::from_utf8(&bytes) {
            Ok(text) => Self::parse(file, text),
            Err(error) => {
                let place = Place::Line(Lines::new(&bytes).line(error.valid_up_to()));
                let mistake = Mistake::new(file, place, String::new(), "is not UTF-8 text".to_owned());
                Err(Mistakes::from(mistake))
            }
        }
    }

    /// Parses a file's text; `file` is what the mistakes call it.
    ///
    /// # Errors
    /// The TOML is broken: the first fault of each line where there is one.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Mistakes> {
        let lines = Lines::new(text.as_bytes());
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut faults = Found::default();
        for error in &errors {
            let place = lines.column(text, error.span().map_or(text.len(), |span| span.start));
            faults.add(Mistake::new(file, place, String::new(), error.message().to_owned()));
        }
        // The parser goes on after a fault; what it then stumbles over in the same line is mostly a consequence.
        faults.first_of_each_line();
        faults.into_result()?;
        let root = Table::new(table.get_ref(), &lines);
        Ok(Self { file: file.to_owned(), root, mistakes: RefCell::default() })
    }

    /// The top-level table.
    #[must_use]
    pub fn root(&self) -> Section<'_> {
        Section::new(self, String::new(), Some(&self.root))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All mistakes so far, and every key and table that nobody asked for, in the order of their lines.
    pub fn finish(self) -> Result<(), Mistakes> {
        self.report_unknown(&self.root, "");
        self.mistakes.into_inner().into_result()
    }

    pub(crate) fn add(&self, place: Place, key: String, text: String) {
        self.mistakes.borrow_mut().add(Mistake::new(&self.file, place, key, text));
    }

    fn report_unknown(&self, table: &Table, name: &str) {
        let known = table.asked.borrow();
        for Entry { key, item } in &table.entries {
            if !known.contains(key) {
                self.add(Place::Line(item.line), path(name, key), unknown(key, &item.value, &known));
            } else if let Value::Table(inner) = &item.value
                && inner.opened.get()
            {
                self.report_unknown(inner, &path(name, key));
            }
        }
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({})", self.file.display())
    }
}

/// A key's full name, from that of its table.
pub(crate) fn path(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { [table, key].join(".") }
}

fn unknown(key: &str, value: &Value, known: &[String]) -> String {
    let kind = if matches!(value, Value::Table(_)) { "table" } else { "key" };
    match nearest(key, known.iter().map(String::as_str)) {
        Some(near) => format!("unknown {kind}, did you mean `{near}`?"),
        None => format!("unknown {kind}; known here: {}", known.join(", ")),
    }
}

/// One byte more than is allowed tells a file that is too large, however large it is.
fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "may not be read by this user".to_owned(),
        ErrorKind::IsADirectory => "is a directory, not a file".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}
