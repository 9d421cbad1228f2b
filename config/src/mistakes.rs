//! What is wrong with a configuration, for the person who has to mend it: one line per mistake.

use std::fmt;
use std::path::{Path, PathBuf};

/// One mistake and where it is. Shown as `agent.toml:3: server.name: …`, with as much of the place as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    file: PathBuf,
    place: Place,
    key: String,
    text: String,
}

/// Where in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A line, from 1, and a column, from 1.
    Column(usize, usize),
    /// A line, from 1.
    Line(usize),
    /// The file as a whole.
    File,
}

impl Mistake {
    pub(crate) fn new(file: &Path, place: Place, key: String, text: String) -> Self {
        // A key, quoted, and a value may hold anything; what is shown is one line and steers no terminal.
        let [key, text] = [key, text].map(|text| text.replace(char::is_control, "\u{fffd}"));
        Self { file: file.to_owned(), place, key, text }
    }

    /// The line it stands in, from 1; nothing when the whole file or a missing key is meant.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        match self.place {
            Place::Column(line, _) | Place::Line(line) => Some(line),
            Place::File => None,
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.place {
            Place::Column(line, column) => write!(f, ":{line}:{column}")?,
            Place::Line(line) => write!(f, ":{line}")?,
            Place::File => {}
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.text)
    }
}

/// All that is wrong with a configuration; at least one mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// A mistake that has no line, as one found in a file that a key names. `key` may be empty.
    #[must_use]
    pub fn new(file: &Path, key: &str, text: impl Into<String>) -> Self {
        Self(vec![Mistake::new(file, Place::File, key.to_owned(), text.into())])
    }

    /// Adds one more, as [`Mistakes::new`].
    pub fn add(&mut self, file: &Path, key: &str, text: impl Into<String>) {
        self.0.push(Mistake::new(file, Place::File, key.to_owned(), text.into()));
    }
}

/// What is found while a file is read, in the order of the lines; what has no line comes last.
#[derive(Default)]
pub(crate) struct Found(Vec<Mistake>);

impl Found {
    /// Puts one in its place. Not sorted in the end: a sort's code is several kilobytes, for a handful of lines.
    pub(crate) fn add(&mut self, mistake: Mistake) {
        let line = |mistake: &Mistake| mistake.line().unwrap_or(usize::MAX);
        let place = self.0.partition_point(|before| line(before) <= line(&mistake));
        self.0.insert(place, mistake);
    }

    /// Leaves the first mistake of each line.
    pub(crate) fn first_of_each_line(&mut self) {
        self.0.dedup_by_key(|mistake| mistake.line());
    }

    /// `Ok` when nothing is wrong.
    pub(crate) fn into_result(self) -> Result<(), Mistakes> {
        if self.0.is_empty() { Ok(()) } else { Err(Mistakes(self.0)) }
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

impl Extend<Mistake> for Mistakes {
    fn extend<I: IntoIterator<Item = Mistake>>(&mut self, more: I) {
        self.0.extend(more);
    }
}

impl IntoIterator for Mistakes {
    type Item = Mistake;
    type IntoIter = std::vec::IntoIter<Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'m> IntoIterator for &'m Mistakes {
    type Item = &'m Mistake;
    type IntoIter = std::slice::Iter<'m, Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistake_is_one_line_whatever_its_key_holds() {
        let mistake = Mistake::new(Path::new("a"), Place::Line(1), "\u{1b}[2J\n".into(), "\u{7}".into());
        assert_eq!(mistake.to_string(), "a:1: \u{fffd}[2J\u{fffd}: \u{fffd}");
    }

    #[test]
    fn later_mistakes_join_with_what_is_known_of_their_place() {
        let mut mistakes =
            Mistakes::new(Path::new("agent.toml"), "identity.key", "does not fit the certificate");
        mistakes.add(Path::new("/etc/ca.pem"), "", "holds no certificate");
        mistakes.extend(Mistakes::new(Path::new("a"), "b", "c"));
        assert_eq!(
            mistakes.to_string(),
            "agent.toml: identity.key: does not fit the certificate\n/etc/ca.pem: holds no certificate\na: b: c"
        );
        assert_eq!(mistakes.into_iter().count(), 3);
    }
}
