//! Log lines on standard error: for journald with priority prefixes, for people with the time and a word.
//!
//! One line is one write, so that lines never mix. Control characters are escaped, since much of what is logged comes
//! from a modem, a server or a file. A reader that stands still holds up nothing: its lines are lost and counted.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::{self, Utc};
use crate::environment::Environment;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Error,
    Warning,
    Info,
}

impl Level {
    /// The prefix that journald takes for a priority (sd-daemon(3)).
    const fn prefix(self) -> &'static str {
        match self {
            Self::Error => "<3>",
            Self::Warning => "<4>",
            Self::Info => "<6>",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Error => "error: ",
            Self::Warning => "warning: ",
            Self::Info => "",
        }
    }
}

/// Whether standard error is the journal; said once, before the first line.
static JOURNAL: OnceLock<bool> = OnceLock::new();

/// Lines that standard error did not take, until it is said.
static LOST: AtomicU32 = AtomicU32::new(0);

/// Finds out who reads the lines. Without it they are written for people.
pub fn init(environment: &Environment) {
    // Whoever redirects the standard error of a service leaves JOURNAL_STREAM behind: then its inode does not fit.
    let journal = environment.journal_stream.is_some_and(|stream| {
        rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == stream)
    });
    // A second call changes nothing.
    let _ = JOURNAL.set(journal);
}

/// Something that a person has to mend.
pub fn error(text: fmt::Arguments<'_>) {
    line(Level::Error, text);
}

/// Something that mends itself, or may have to be looked at.
pub fn warning(text: fmt::Arguments<'_>) {
    line(Level::Warning, text);
}

/// A change of state.
pub fn info(text: fmt::Arguments<'_>) {
    line(Level::Info, text);
}

fn line(level: Level, text: fmt::Arguments<'_>) {
    // Whoever waits for a reader keeps the session waiting too.
    if !is_read() {
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let mut lines = String::with_capacity(160);
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0 {
        append(&mut lines, Level::Warning, format_args!("{lost} lines were lost here: nobody read them"));
    }
    append(&mut lines, level, text);
    // There is nobody left to tell when standard error is gone.
    let _ = std::io::stderr().write_all(lines.as_bytes());
}

/// Whether standard error takes a line at once. A pipe that is ready takes 4,096 bytes (pipe(7)), a socket to the journal
/// a quarter of its buffer.
fn is_read() -> bool {
    let error = std::io::stderr();
    let mut ready = [PollFd::new(&error, PollFlags::OUT)];
    // What cannot be asked is written to: a file, or one that is closed.
    poll(&mut ready, Some(&Timespec::default())).unwrap_or(1) > 0
}

fn append(lines: &mut String, level: Level, text: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = if JOURNAL.get().copied().unwrap_or(false) {
        lines.write_str(level.prefix())
    } else {
        write!(lines, "{} {}", Utc(clock::now().utc_ms), level.word())
    };
    let _ = Escaped(lines).write_fmt(text);
    lines.push('\n');
}

/// Foreign text as it stands in a line: what shows it elsewhere, to systemd or in a file, has the same need.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    // Writing to a String cannot fail.
    let _ = Escaped(&mut line).write_str(text);
    line
}

/// Passes text on with its control characters escaped, so that foreign text makes no lines or colours of its own.
struct Escaped<'l>(&'l mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() {
                write!(self.0, "{}", c.escape_default())?;
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("AT\r\n\u{1b}[31mé\u{0}"), "AT\\r\\n\\u{1b}[31mé\\u{0}");
    }
}
