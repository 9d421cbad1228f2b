//! Durations as people write and read them: `60s`, `1h30m`, `250 ms`.

use std::fmt;
use std::time::Duration;

/// From the longest to the shortest, each with its milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a duration: whole numbers with units, from the longest unit to the shortest, as in `1h30m`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationError::NotADuration);
    }
    let mut units = UNITS.iter();
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (digits, after) = split_while(rest, |c| c.is_ascii_digit());
        let (name, after) = split_while(after.trim_start(), |c| c.is_ascii_alphabetic());
        if digits.is_empty() || (name.is_empty() && !after.is_empty()) {
            return Err(DurationError::NotADuration);
        }
        if name.is_empty() {
            return Err(DurationError::NoUnit);
        }
        if !UNITS.iter().any(|(unit, _)| *unit == name) {
            return Err(DurationError::UnknownUnit);
        }
        let (_, millis) = units.find(|(unit, _)| *unit == name).ok_or(DurationError::Order)?;
        let number: u64 = digits.parse().map_err(|_| DurationError::TooLong)?;
        let part = number.checked_mul(*millis).ok_or(DurationError::TooLong)?;
        total = total.checked_add(part).ok_or(DurationError::TooLong)?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total))
}

/// The longest front of `text` whose characters are all `wanted`, and what follows.
fn split_while(text: &str, wanted: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !wanted(c)).unwrap_or(text.len()))
}

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// It does not consist of whole numbers with units.
    NotADuration,
    /// A number has no unit.
    NoUnit,
    /// A unit is none of d, h, m, s, ms.
    UnknownUnit,
    /// A unit is there twice, or after a shorter one.
    Order,
    /// It is longer than can be reckoned with.
    TooLong,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotADuration => "is not a duration, as in \"60s\" or \"1h30m\"",
            Self::NoUnit => "needs a unit (ms, s, m, h or d), as in \"60s\"",
            Self::UnknownUnit => "has an unknown unit; the units are ms, s, m, h and d",
            Self::Order => "must name each unit once, from the longest to the shortest, as in \"1h30m\"",
            Self::TooLong => "is too long",
        })
    }
}

impl std::error::Error for DurationError {}

/// A duration for people, in at most two units: `250 ms`, `1.5 s`, `45 s`, `1h 30m`.
///
/// [`parse_duration`] reads what has no fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        match seconds {
            0 if millis > 0 => write!(f, "{millis} ms"),
            0 if !self.0.is_zero() => f.write_str("under 1 ms"),
            1..10 if millis >= 100 => write!(f, "{seconds}.{} s", millis / 100),
            0..60 => write!(f, "{seconds} s"),
            60..3600 => pair(f, (seconds / 60, "m"), (seconds % 60, "s")),
            3600..86_400 => pair(f, (seconds / 3600, "h"), (seconds % 3600 / 60, "m")),
            _ => pair(f, (seconds / 86_400, "d"), (seconds % 86_400 / 3600, "h")),
        }
    }
}

fn pair(f: &mut fmt::Formatter<'_>, long: (u64, &str), short: (u64, &str)) -> fmt::Result {
    write!(f, "{}{}", long.0, long.1)?;
    if short.0 > 0 { write!(f, " {}{}", short.0, short.1) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        for (text, millis) in [
            ("60s", 60_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("250ms", 250),
            ("250 ms", 250),
            (" 2d ", 172_800_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
            ("1m5ms", 60_005),
            ("18446744073709551615ms", u64::MAX),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_its_reason() {
        for (text, error) in [
            ("", DurationError::NotADuration),
            ("  ", DurationError::NotADuration),
            ("s", DurationError::NotADuration),
            ("-5s", DurationError::NotADuration),
            ("1.5s", DurationError::NotADuration),
            ("5s!", DurationError::NotADuration),
            ("5 5s", DurationError::NotADuration),
            ("\u{ff15}s", DurationError::NotADuration),
            ("60", DurationError::NoUnit),
            ("1h30", DurationError::NoUnit),
            ("5min", DurationError::UnknownUnit),
            ("5S", DurationError::UnknownUnit),
            ("5\u{b5}s", DurationError::NotADuration),
            ("30m1h", DurationError::Order),
            ("1s1s", DurationError::Order),
            ("18446744073709551616ms", DurationError::TooLong),
            ("18446744073709551615s", DurationError::TooLong),
            ("213503982335d1000000000000ms", DurationError::TooLong),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_in_two_units_at_most() {
        for (millis, text) in [
            (0, "0 s"),
            (250, "250 ms"),
            (1000, "1 s"),
            (1049, "1 s"),
            (1500, "1.5 s"),
            (45_900, "45 s"),
            (60_000, "1m"),
            (90_000, "1m 30s"),
            (5_400_000, "1h 30m"),
            (86_400_000, "1d"),
            (93_784_005, "1d 2h"),
        ] {
            assert_eq!(HumanDuration(Duration::from_millis(millis)).to_string(), text);
        }
        assert_eq!(HumanDuration(Duration::from_micros(5)).to_string(), "under 1 ms");
    }
}
