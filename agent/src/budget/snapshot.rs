//! What outlives the process, and its text: decimal numbers in one line, the first of them the version.

use std::fmt::Write as _;

use super::traffic::{Bytes, PURPOSES, Traffic};

/// What outlives the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub(super) hour: Kept,
    pub(super) day: Kept,
    pub(super) month: Kept,
    /// Seconds that were ever counted.
    pub(super) lived: u64,
    /// How many that were at the last attempt.
    pub(super) attempted: u64,
    /// How many that were when the modem was started anew last; 0 when it never was.
    pub(super) reset: u64,
    pub(super) mark: Mark,
    pub(super) traffic: Traffic,
}

/// Of one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Seconds of it that have passed.
    pub(super) elapsed: u64,
    pub(super) used: u64,
    /// The level that was told last, as a number.
    pub(super) told: u64,
}

/// What a server's clock showed when so much had been counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Seconds since 1970; 0 when no server ever told.
    pub(super) server: u64,
    /// [`Snapshot::lived`] at that time.
    pub(super) lived: u64,
}

const VERSION: u64 = 1;
const NUMBERS: usize = 15 + 3 * PURPOSES;

impl Snapshot {
    /// The line, without its end.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(160);
        for number in self.numbers() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{number} ");
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// Reads the line; `None` when it is cut, garbage or another version's.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = [0; NUMBERS];
        let mut words = text.split_ascii_whitespace();
        for number in &mut numbers {
            *number = words.next()?.parse().ok()?;
        }
        if words.next().is_some() || numbers[0] != VERSION {
            return None;
        }
        let mut rest = numbers.into_iter().skip(1);
        let mut next = || rest.next().unwrap_or_default();
        let mut kept = || Kept { elapsed: next(), used: next(), told: next() };
        let (hour, day, month) = (kept(), kept(), kept());
        let (lived, attempted, reset) = (next(), next(), next());
        let mark = Mark { server: next(), lived: next() };
        let traffic = Traffic::from_fn(|_| Bytes { up: next(), down: next(), headers: next() });
        Some(Self { hour, day, month, lived, attempted, reset, mark, traffic })
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        let Self { hour, day, month, lived, attempted, reset, mark, traffic } = *self;
        let periods = [hour, day, month].into_iter().flat_map(|kept| [kept.elapsed, kept.used, kept.told]);
        let traffic = traffic.into_iter().flat_map(|(_, bytes)| [bytes.up, bytes.down, bytes.headers]);
        let times = [lived, attempted, reset, mark.server, mark.lived];
        [VERSION].into_iter().chain(periods).chain(times).chain(traffic)
    }
}
