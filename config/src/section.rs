//! Typed access to one table. Every getter notes that its key is known, and what is wrong with what stands there.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::document::{Document, path};
use crate::duration::{DurationError, HumanDuration, parse_duration};
use crate::mistakes::Place;
use crate::tree::{Item, Table, Value};

/// A table of a [`Document`], maybe absent: then all its keys are.
///
/// The getters return `None` when the key is absent, and also when what stands there is a mistake, which is then noted.
pub struct Section<'d> {
    document: &'d Document,
    name: String,
    table: Option<&'d Table>,
}

impl<'d> Section<'d> {
    pub(crate) fn new(document: &'d Document, name: String, table: Option<&'d Table>) -> Self {
        if let Some(table) = table {
            table.opened.set(true);
        }
        Self { document, name, table }
    }

    /// The table at `key`.
    #[must_use]
    pub fn section(&self, key: &str) -> Self {
        let table = self.value(key, "a table", |value| match value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        Self::new(self.document, path(&self.name, key), table)
    }

    /// Whether something stands at `key`, right or wrong.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.get(key).is_some())
    }

    /// Whether just this word stands at `key`; notes nothing, so that a getter may follow.
    #[must_use]
    pub fn says(&self, key: &str, word: &str) -> bool {
        self.item(key).is_some_and(|item| matches!(&item.value, Value::String(text) if text == word))
    }

    /// Notes a mistake when nothing stands at `key`; to be followed by the getter: `section.require("name").string("name")`.
    pub fn require(&self, key: &str) -> &Self {
        if !self.contains(key) {
            self.mistake(key, "is missing");
        }
        self
    }

    /// Notes a mistake at `key`, with its line when it is there.
    pub fn mistake(&self, key: &str, text: impl Into<String>) {
        let item = self.table.and_then(|table| table.get(key));
        let place = item.map_or(Place::File, |item| Place::Line(item.line));
        self.document.add(place, path(&self.name, key), text.into());
    }

    /// A string, not empty.
    #[must_use]
    pub fn string(&self, key: &str) -> Option<String> {
        self.text(key, "a string").map(str::to_owned)
    }

    /// A string or an array of strings, neither empty.
    #[must_use]
    pub fn strings(&self, key: &str) -> Option<Vec<String>> {
        let item = self.item(key)?;
        let items = match &item.value {
            Value::Array(items) => items.as_slice(),
            _ => std::slice::from_ref(item),
        };
        if items.is_empty() {
            self.mistake(key, EMPTY);
            return None;
        }
        // Not `collect` at once: every element's mistake is wanted.
        let texts: Vec<_> =
            items.iter().map(|item| self.text_of(key, item, "a string or an array of strings")).collect();
        texts.into_iter().map(|text| text.map(str::to_owned)).collect()
    }

    /// An integer in `range`.
    #[must_use]
    pub fn integer(&self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let number = self.value(key, "an integer", |value| match value {
            Value::Integer(number) => Some(*number),
            _ => None,
        })?;
        let fitting = number.filter(|number| range.contains(number));
        if fitting.is_none() {
            self.mistake(key, out_of_range(range.start(), range.end()));
        }
        fitting
    }

    /// `true` or `false`.
    #[must_use]
    pub fn boolean(&self, key: &str) -> Option<bool> {
        self.value(key, "true or false", |value| match value {
            Value::Boolean(boolean) => Some(*boolean),
            _ => None,
        })
    }

    /// A duration in `range`, with its unit: `"60s"`, `"1h30m"`, `"250ms"`.
    #[must_use]
    pub fn duration(&self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        if let Some(Item { value: Value::Integer(Some(number)), .. }) = self.item(key) {
            self.mistake(key, format!("{number} {}", DurationError::NoUnit));
            return None;
        }
        let text = self.text(key, "a duration, as in \"60s\"")?;
        match parse_duration(text) {
            Ok(duration) if range.contains(&duration) => return Some(duration),
            Ok(_) => {
                self.mistake(key, out_of_range(&HumanDuration(*range.start()), &HumanDuration(*range.end())));
            }
            Err(error) => self.mistake(key, quoted(text, &error)),
        }
        None
    }

    /// One of the words that `choices` gives a meaning.
    #[must_use]
    pub fn choice<T: Clone>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key, "a string")?;
        let chosen = choices.iter().find(|(word, _)| *word == text).map(|(_, meaning)| meaning.clone());
        if chosen.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.mistake(key, quoted(text, &format_args!("is none of {}", words.join(", "))));
        }
        chosen
    }

    /// A string that is a `T`; `what` is its name with the article, for the mistake: "an IMEI".
    #[must_use]
    pub fn parsed<T: FromStr<Err: Display>>(&self, key: &str, what: &str) -> Option<T> {
        let text = self.text(key, "a string")?;
        match text.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.mistake(key, quoted(text, &format_args!("is not {what}: {error}")));
                None
            }
        }
    }

    /// What stands at `key`, which is known from now on.
    fn item(&self, key: &str) -> Option<&'d Item> {
        let table = self.table?;
        let mut asked = table.asked.borrow_mut();
        if !asked.iter().any(|known| known == key) {
            asked.push(key.to_owned());
        }
        table.get(key)
    }

    fn value<T>(&self, key: &str, wanted: &str, get: fn(&'d Value) -> Option<T>) -> Option<T> {
        let item = self.item(key)?;
        let got = get(&item.value);
        if got.is_none() {
            self.wrong_type(key, item, wanted);
        }
        got
    }

    fn text(&self, key: &str, wanted: &str) -> Option<&'d str> {
        self.text_of(key, self.item(key)?, wanted)
    }

    /// The item's text; `key` is where it or the array around it stands.
    fn text_of(&self, key: &str, item: &'d Item, wanted: &str) -> Option<&'d str> {
        match &item.value {
            Value::String(text) if text.is_empty() => self.note(key, item, EMPTY.to_owned()),
            Value::String(text) => return Some(text),
            _ => self.wrong_type(key, item, wanted),
        }
        None
    }

    fn wrong_type(&self, key: &str, item: &Item, wanted: &str) {
        self.note(key, item, format!("must be {wanted}, not {}", item.value.kind()));
    }

    fn note(&self, key: &str, item: &Item, text: String) {
        self.document.add(Place::Line(item.line), path(&self.name, key), text);
    }
}

fn quoted(value: &str, text: &dyn Display) -> String {
    format!("{value:?} {text}")
}

fn out_of_range(least: &dyn Display, most: &dyn Display) -> String {
    format!("is out of range: must be from {least} to {most}")
}

impl fmt::Debug for Section<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Section({})", self.name)
    }
}

const EMPTY: &str = "is empty; leave the key out instead";
