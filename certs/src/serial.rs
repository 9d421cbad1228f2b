//! Serial numbers of certificates: new ones by chance, known ones from text.

use std::fmt;
use std::str::FromStr;

use rcgen::SerialNumber;

/// A certificate's serial number: a positive number of at most 20 octets (RFC 5280 section 4.1.2.2).
///
/// Shown as `openssl` shows it: upper-case hexadecimal, two digits an octet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// A new one: 16 octets of chance, made positive and never shorter, so 126 bits that nobody foresees.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn random() -> Result<Self, SerialError> {
        let mut octets = [0; 16];
        #[expect(clippy::disallowed_methods, reason = "a serial number is chance and nothing else")]
        getrandom::fill(&mut octets).map_err(|_| SerialError::NoRandomness)?;
        octets[0] = octets[0] & 0x3f | 0x40;
        Ok(Self(octets.to_vec()))
    }

    /// The one that these octets, most significant first, spell.
    #[must_use]
    pub fn from_octets(octets: &[u8]) -> Self {
        let zeros = octets.iter().take_while(|octet| **octet == 0).count();
        Self(octets.iter().skip(zeros).copied().collect())
    }
}

impl From<&Serial> for SerialNumber {
    fn from(serial: &Serial) -> Self {
        Self::from_slice(&serial.0)
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    /// Reads hexadecimal digits of either case, with or without colons between the octets.
    fn from_str(text: &str) -> Result<Self, SerialError> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(SerialError::NotHexadecimal);
        }
        let digits = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
        let octets = digits.as_bytes().chunks(2).map(octet).collect::<Option<Vec<u8>>>();
        let serial = Self::from_octets(&octets.ok_or(SerialError::NotHexadecimal)?);
        if serial.0.len() > MAX_OCTETS {
            return Err(SerialError::TooLong);
        }
        Ok(serial)
    }
}

fn octet(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("00");
        }
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02X}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

/// Why there is no serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialError {
    /// The text holds something other than hexadecimal digits and colons, or nothing.
    NotHexadecimal,
    /// It has more than 20 octets.
    TooLong,
    /// The operating system gives no random numbers.
    NoRandomness,
}

impl fmt::Display for SerialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHexadecimal => "a serial number is hexadecimal digits, with or without colons",
            Self::TooLong => "a serial number has at most 40 hexadecimal digits",
            Self::NoRandomness => "the operating system gives no random numbers",
        })
    }
}

impl std::error::Error for SerialError {}

const MAX_OCTETS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_both_ways() {
        for (text, shown) in
            [("0a:FF", "0AFF"), ("abc", "0ABC"), ("000001", "01"), ("0", "00"), ("7F00", "7F00")]
        {
            assert_eq!(text.parse::<Serial>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", ":", "0x12", "12 34", "g1", "\u{ff11}"] {
            assert_eq!(text.parse::<Serial>(), Err(SerialError::NotHexadecimal), "{text}");
        }
        assert_eq!("1".repeat(41).parse::<Serial>(), Err(SerialError::TooLong));
        assert!("1".repeat(40).parse::<Serial>().is_ok());
    }

    #[test]
    fn random_ones_are_positive_full_and_distinct() {
        let serials: std::collections::BTreeSet<_> =
            (0..100).map(|_| Serial::random().unwrap().to_string()).collect();
        assert_eq!(serials.len(), 100);
        assert!(serials.iter().all(|text| text.len() == 32 && (b'4'..=b'7').contains(&text.as_bytes()[0])));
    }
}
