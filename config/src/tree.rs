//! A parsed file's tables and values, each with its line, and which of the keys were asked for.

use std::cell::{Cell, RefCell};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::mistakes::Place;

/// A table of the file.
pub(crate) struct Table {
    pub(crate) entries: Vec<Entry>,
    /// Every key that was asked for here, there or not.
    pub(crate) asked: RefCell<Vec<String>>,
    /// Somebody asked for this table as a table.
    pub(crate) opened: Cell<bool>,
}

/// A key and what stands at it.
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) item: Item,
}

/// A value and its line.
pub(crate) struct Item {
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// What the programs' files may hold; of the rest only the name of its type is kept.
pub(crate) enum Value {
    String(String),
    /// `None` when it does not fit 64 bits.
    Integer(Option<i64>),
    Boolean(bool),
    Array(Vec<Item>),
    Table(Table),
    Other(&'static str),
}

impl Table {
    pub(crate) fn new(table: &DeTable<'_>, lines: &Lines) -> Self {
        let entries = table.iter().map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            item: Item { line: lines.line(key.span().start), value: Value::new(value.get_ref(), lines) },
        });
        Self { entries: entries.collect(), asked: RefCell::default(), opened: Cell::new(false) }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Item> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.item)
    }
}

impl Value {
    fn new(value: &DeValue<'_>, lines: &Lines) -> Self {
        let item = |item: &Spanned<DeValue<'_>>| Item {
            line: lines.line(item.span().start),
            value: Self::new(item.get_ref(), lines),
        };
        match value {
            DeValue::String(text) => Self::String(text.to_string()),
            DeValue::Integer(number) => {
                Self::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
            }
            DeValue::Boolean(boolean) => Self::Boolean(*boolean),
            DeValue::Array(array) => Self::Array(array.iter().map(item).collect()),
            DeValue::Table(table) => Self::Table(Table::new(table, lines)),
            DeValue::Float(_) => Self::Other("a number with a fraction"),
            DeValue::Datetime(_) => Self::Other("a date or time"),
        }
    }

    /// What it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// Where each line of a text begins.
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    pub(crate) fn new(text: &[u8]) -> Self {
        let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        Self(std::iter::once(0).chain(ends.map(|(index, _)| index + 1)).collect())
    }

    /// The line, from 1, of the byte at `offset`.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }

    /// The line and the column in characters, both from 1, of the byte at `offset`.
    pub(crate) fn column(&self, text: &str, offset: usize) -> Place {
        let line = self.line(offset);
        let start = self.0.get(line.wrapping_sub(1)).copied().unwrap_or_default();
        let before = text.get(start..offset).map_or(offset - start, |before| before.chars().count());
        Place::Column(line, before + 1)
    }
}
