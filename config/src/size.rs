//! Amounts of data as people and carriers write them: `10 MB`, decimal.

use std::fmt;
use std::str::FromStr;

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// From the largest unit to the smallest.
const UNITS: [(&str, u64); 4] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000), ("B", 1)];

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "it is written as 10 MB, with kB, MB or GB";
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(FORM)?;
        let (number, unit) = text.split_at(digits);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).ok_or(FORM)?;
        let number: u64 = number.parse().map_err(|_| FORM)?;
        number.checked_mul(*factor).map(Self).ok_or("that is more than can be counted")
    }
}

/// With one decimal at most: `812 B`, `1.9 kB`, `10 MB`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting = UNITS.iter().find(|(_, factor)| self.0 >= *factor);
        let (name, factor) = fitting.copied().unwrap_or(("B", 1));
        write!(f, "{}", self.0 / factor)?;
        let tenths = self.0 % factor * 10 / factor;
        if tenths > 0 {
            write!(f, ".{tenths}")?;
        }
        write!(f, " {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_carriers_write_them() {
        for (text, bytes) in
            [("10 MB", 10_000_000), ("10MB", 10_000_000), ("500 kB", 500_000), ("1 GB", 1_000_000_000)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for wrong in
            ["", "10", "MB", "10 mb", "10 MiB", "-1 MB", "1.5 MB", "99999999999 GB", "99999999999999999999 B"]
        {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_shown_with_one_decimal() {
        for (bytes, text) in [
            (0, "0 B"),
            (812, "812 B"),
            (1000, "1 kB"),
            (1_934, "1.9 kB"),
            (9_999_999, "9.9 MB"),
            (10_000_000, "10 MB"),
            (2_500_000_000, "2.5 GB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
