//! The IMEI: what is one, what is not and why, and how a certificate names it.
//!
//! 3GPP TS 23.003 section 6.2 gives the structure and annex B the check digit; RFC 7254 gives the URN.

use core::fmt::{self, Write as _};
use core::str::FromStr;

use heapless::String;

const DIGITS: usize = 15;
const IMEISV_DIGITS: usize = 16;
const URN_PREFIX: &str = "urn:gsma:imei:";
/// `urn:gsma:imei:` and `NNNNNNNN-NNNNNN-0`.
const URN_LEN: usize = URN_PREFIX.len() + 17;

/// A device's IMEI: 15 digits whose last is the right check digit, and which are not all zeros.
///
/// Shown with all 15 digits: an IMEI may begin with zeros.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Imei(u64);

impl Imei {
    /// The number itself, as [`Hello`](crate::Hello) carries it.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The Type Allocation Code: the first 8 digits, which name the model.
    #[must_use]
    pub const fn tac(self) -> u32 {
        (self.0 / 10_000_000) as u32
    }

    /// The serial number within the TAC: the 6 digits before the check digit.
    #[must_use]
    pub const fn serial(self) -> u32 {
        (self.0 / 10 % 1_000_000) as u32
    }

    /// The URN that a certificate's subjectAltName carries, `urn:gsma:imei:NNNNNNNN-NNNNNN-0` (RFC 7254 section 3).
    ///
    /// Its last digit is the spare digit 0, not the check digit.
    #[must_use]
    pub fn urn(self) -> String<URN_LEN> {
        let mut urn = String::new();
        // The capacity is the length of exactly this text, so the write cannot fail.
        let _ = write!(urn, "{URN_PREFIX}{:08}-{:06}-0", self.tac(), self.serial());
        urn
    }

    /// Reads the URN of [`Self::urn`]; the check digit is computed, as RFC 7254 leaves it out.
    ///
    /// The scheme and the two namespace labels are compared without regard to case (RFC 8141 section 3), and a
    /// software version parameter (`;svn=NN`) is allowed and ignored.
    ///
    /// # Errors
    /// [`ImeiError::Urn`] unless the text is such a URN; [`ImeiError::AllZeros`] for the IMEI of zeros.
    pub fn from_urn(text: &str) -> Result<Self, ImeiError> {
        let (head, name) = text.split_at_checked(URN_PREFIX.len()).ok_or(ImeiError::Urn)?;
        if !head.eq_ignore_ascii_case(URN_PREFIX) {
            return Err(ImeiError::Urn);
        }
        let name = match name.split_once(';') {
            Some((name, parameter)) if is_svn(parameter) => name,
            Some(_) => return Err(ImeiError::Urn),
            None => name,
        };
        let mut parts = name.split('-');
        let (Some(tac), Some(serial), Some(spare), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ImeiError::Urn);
        };
        let digits_only = |part: &str, len| part.len() == len && part.bytes().all(|b| b.is_ascii_digit());
        if !digits_only(tac, 8) || !digits_only(serial, 6) || !digits_only(spare, 1) {
            return Err(ImeiError::Urn);
        }
        let body = tac.bytes().chain(serial.bytes()).fold(0, |n, b| n * 10 + u64::from(b - b'0'));
        if body == 0 {
            return Err(ImeiError::AllZeros);
        }
        Ok(Self(body * 10 + u64::from(check_digit(body))))
    }
}

/// The parameter of RFC 7254 section 3: `svn=` and two digits.
fn is_svn(parameter: &str) -> bool {
    parameter
        .strip_prefix("svn=")
        .is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The Luhn digit over 14 digits: every second one, counted from the right, is doubled (TS 23.003 annex B).
const fn check_digit(body: u64) -> u8 {
    let (mut rest, mut sum, mut double) = (body, 0, true);
    while rest > 0 {
        let digit = (rest % 10) as u8;
        sum += match (double, digit) {
            (true, 5..) => digit * 2 - 9,
            (true, _) => digit * 2,
            (false, _) => digit,
        };
        rest /= 10;
        double = !double;
    }
    (10 - sum % 10) % 10
}

impl TryFrom<u64> for Imei {
    type Error = ImeiError;

    fn try_from(number: u64) -> Result<Self, ImeiError> {
        if number >= 10_u64.pow(DIGITS as u32) {
            return Err(if number < 10_u64.pow(IMEISV_DIGITS as u32) {
                ImeiError::Imeisv
            } else {
                ImeiError::Length(number.ilog10() as usize + 1)
            });
        }
        if number == 0 {
            return Err(ImeiError::AllZeros);
        }
        let (found, expected) = ((number % 10) as u8, check_digit(number / 10));
        if found != expected {
            return Err(ImeiError::CheckDigit { found, expected });
        }
        Ok(Self(number))
    }
}

impl FromStr for Imei {
    type Err = ImeiError;

    fn from_str(text: &str) -> Result<Self, ImeiError> {
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ImeiError::NotDigits);
        }
        match text.len() {
            DIGITS => text.bytes().fold(0, |n, b| n * 10 + u64::from(b - b'0')).try_into(),
            IMEISV_DIGITS => Err(ImeiError::Imeisv),
            other => Err(ImeiError::Length(other)),
        }
    }
}

impl fmt::Display for Imei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:015}", self.0)
    }
}

impl fmt::Debug for Imei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Imei({self})")
    }
}

/// Why something is not an IMEI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImeiError {
    /// It has this many digits, not 15.
    Length(usize),
    /// It holds something other than digits.
    NotDigits,
    /// Its 15 digits end in the wrong check digit.
    CheckDigit {
        /// The digit that stands there.
        found: u8,
        /// The digit that the other 14 ask for.
        expected: u8,
    },
    /// It is 15 zeros: the check digit is right, but this is what a modem answers that has lost its IMEI.
    AllZeros,
    /// It has 16 digits: an IMEISV, which ends in a software version and has no check digit.
    Imeisv,
    /// It is not a URN of the form `urn:gsma:imei:NNNNNNNN-NNNNNN-0`.
    Urn,
}

impl fmt::Display for ImeiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(digits) => write!(f, "it has {digits} digits, an IMEI has 15"),
            Self::NotDigits => f.write_str("it holds something other than digits"),
            Self::CheckDigit { found, expected } => {
                write!(f, "its check digit is {found} where {expected} would be right")
            }
            Self::AllZeros => f.write_str("it is all zeros, which a modem answers that has lost its IMEI"),
            Self::Imeisv => f.write_str("it has 16 digits, so it is an IMEISV and not an IMEI"),
            Self::Urn => f.write_str("it is not of the form urn:gsma:imei:NNNNNNNN-NNNNNN-0"),
        }
    }
}

impl core::error::Error for ImeiError {}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;

    use super::*;

    #[test]
    fn right_check_digit_is_an_imei() {
        for text in ["869731052403821", "015184008301272", "004999010640000", "990016259811154"] {
            assert_eq!(text.parse::<Imei>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn every_fault_has_its_name() {
        let cases = [
            ("86973105240382", ImeiError::Length(14)),
            ("", ImeiError::Length(0)),
            ("86973105240382x", ImeiError::NotDigits),
            ("86973105240382\u{0661}", ImeiError::NotDigits),
            ("869731052403820", ImeiError::CheckDigit { found: 0, expected: 1 }),
            ("000000000000000", ImeiError::AllZeros),
            ("3521869700469801", ImeiError::Imeisv),
        ];
        for (text, fault) in cases {
            assert_eq!(text.parse::<Imei>(), Err(fault), "{text}");
        }
        assert_eq!(Imei::try_from(3_521_869_700_469_801), Err(ImeiError::Imeisv));
        assert_eq!(Imei::try_from(u64::MAX), Err(ImeiError::Length(20)));
    }

    #[test]
    fn parts_of_an_imei() {
        let imei: Imei = "015184008301272".parse().unwrap();
        assert_eq!((imei.tac(), imei.serial()), (1_518_400, 830_127));
    }

    #[test]
    fn urn_both_ways() {
        let imei: Imei = "015184008301272".parse().unwrap();
        assert_eq!(imei.urn(), "urn:gsma:imei:01518400-830127-0");
        assert_eq!(Imei::from_urn(&imei.urn()), Ok(imei));
        assert_eq!(Imei::from_urn("URN:GSMA:IMEI:01518400-830127-0"), Ok(imei));
        assert_eq!(Imei::from_urn("urn:gsma:imei:01518400-830127-0;svn=42"), Ok(imei));
    }

    #[test]
    fn other_urns_are_refused() {
        for text in [
            "",
            "urn:gsma:imei:",
            "urn:gsma:imei:015184008301270",
            "urn:gsma:imei:01518400-830127",
            "urn:gsma:imei:01518400-830127-0-0",
            "urn:gsma:imei:0151840x-830127-0",
            "urn:gsma:imei:01518400-830127-0;vers=0",
            "urn:gsma:imei:+1518400-830127-0",
            "urn:gsma:im\u{e9}i:01518400-830127-0",
        ] {
            assert_eq!(Imei::from_urn(text), Err(ImeiError::Urn), "{text}");
        }
        assert_eq!(Imei::from_urn("urn:gsma:imei:00000000-000000-0"), Err(ImeiError::AllZeros));
    }
}
