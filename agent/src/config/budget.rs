//! `[budget]`: what may be asked of the network.

use moorline_config::{Section, Size};

use crate::budget::{Limits, Spent};

/// Reads the section. What is left out has 1NCE's suggested limits for devices on 2G to 4G.
pub(super) fn read(section: &Section<'_>) -> Limits {
    let spent = section.choice("spent", &[("trickle", Spent::Trickle), ("stop", Spent::Stop)]);
    Limits {
        attempts_per_hour: attempts(section, "attempts_per_hour", PER_HOUR),
        attempts_per_day: attempts(section, "attempts_per_day", PER_DAY),
        bytes_per_month: bytes(section, "bytes_per_month"),
        spent: spent.unwrap_or(Spent::Trickle),
    }
}

/// A number, or `"off"`.
fn attempts(section: &Section<'_>, key: &str, default: u64) -> Option<u64> {
    if section.says(key, OFF) {
        return None;
    }
    let number = section.integer(key, FEWEST..=100_000).and_then(|number| u64::try_from(number).ok());
    Some(number.unwrap_or(default))
}

/// A size, or `"off"`.
fn bytes(section: &Section<'_>, key: &str) -> Option<u64> {
    if section.says(key, OFF) {
        return None;
    }
    let Some(Size(bytes)) = section.parsed(key, "an amount of data") else { return Some(PER_MONTH) };
    if bytes < LEAST {
        section
            .mistake(key, format!("is too little: a month with one reconnect a day takes {}", Size(LEAST)));
    }
    Some(bytes)
}

const OFF: &str = "off";

/// Twice the day's average: an outage may begin with quick attempts.
const PER_HOUR: u64 = 60;
/// 1NCE: 720 attaches a day; an attempt attaches at worst.
const PER_DAY: u64 = 720;
/// 1NCE: 10 Mbytes per month and device.
const PER_MONTH: u64 = 10_000_000;
/// A server may have several addresses, and each is an attempt.
const FEWEST: i64 = 4;
/// A month at the longest interval takes less than 400 kB, and a full reconnect 4 kB.
const LEAST: u64 = 500_000;
