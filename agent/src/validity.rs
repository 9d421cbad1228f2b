//! Until when a chain of certificates holds, read from the certificates themselves. rustls tells it of nobody but those
//! it refuses.

use rustls::pki_types::CertificateDer;

use crate::clock::day;
use crate::der::{INTEGER, SEQUENCE, element, expect};

/// The earliest notAfter of a chain, seconds since 1970. `None` when there is no certificate in it, or one that cannot
/// be read: then nothing is known.
#[must_use]
pub fn end(chain: &[CertificateDer<'_>]) -> Option<u64> {
    chain.iter().map(|certificate| not_after(certificate)).min().flatten()
}

/// RFC 5280 section 4.1: the validity stands behind version, serial number, signature algorithm and issuer.
fn not_after(certificate: &[u8]) -> Option<u64> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (mut rest, _) = expect(SEQUENCE, certificate)?;
    if let Some((_, after)) = expect(VERSION, rest) {
        rest = after;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        rest = expect(tag, rest)?.1;
    }
    let (validity, _) = expect(SEQUENCE, rest)?;
    let (.., rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    seconds(tag, text)
}

/// RFC 5280 section 4.1.2.5: `YYMMDDHHMMSSZ` up to 2049, and `YYYYMMDDHHMMSSZ`.
fn seconds(tag: u8, text: &[u8]) -> Option<u64> {
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = number(text, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => number(text, 4)?,
        _ => return None,
    };
    let (month, rest) = number(rest, 2)?;
    let (of_month, rest) = number(rest, 2)?;
    let (hour, rest) = number(rest, 2)?;
    let (minute, rest) = number(rest, 2)?;
    let (second, rest) = number(rest, 2)?;
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&of_month);
    let is_time = hour < 24 && minute < 60 && second < 60;
    if !is_date || !is_time || rest != b"Z" {
        return None;
    }
    let seconds = ((day(year, month, of_month) * 24 + hour) * 60 + minute) * 60 + second;
    // What ended before 1970 holds until 1970.
    Some(u64::try_from(seconds).unwrap_or(0))
}

/// So many decimal digits from the front.
fn number(text: &[u8], digits: usize) -> Option<(i64, &[u8])> {
    let (front, rest) = text.split_at_checked(digits)?;
    let value = front
        .iter()
        .try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))?;
    Some((value, rest))
}

/// `[0]`, which a certificate of version 1 lacks.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

#[cfg(test)]
mod tests {
    use super::*;

    /// As much of a certificate as is read, without its lengths checked further in.
    fn certificate(version: &[u8], not_after: &[u8]) -> CertificateDer<'static> {
        let wrap = |tag: u8, parts: &[&[u8]]| {
            let contents = parts.concat();
            [&[tag, u8::try_from(contents.len()).unwrap()][..], &contents].concat()
        };
        let validity = wrap(SEQUENCE, &[b"\x17\x0d700101000000Z", not_after]);
        let tbs = wrap(SEQUENCE, &[version, &[INTEGER, 1, 7], &[0x30, 0], &[0x30, 0], &validity]);
        wrap(SEQUENCE, &[&tbs]).into()
    }

    #[test]
    fn not_after_is_read_in_both_forms() {
        let v3 = &[VERSION, 3, 2, 1, 2][..];
        for (version, time, seconds) in [
            (v3, &b"\x17\x0d261124152247Z"[..], 1_795_533_767),
            (&[], b"\x17\x0d491231235959Z", 2_524_607_999),
            (v3, b"\x17\x0d500101000000Z", 0),
            (v3, b"\x18\x0f21000301000000Z", 4_107_542_400),
            (v3, b"\x18\x0f99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(end(&[certificate(version, time)]), Some(seconds), "{}", time.escape_ascii());
        }
    }

    #[test]
    fn chain_holds_as_long_as_its_shortest() {
        let long = certificate(&[], b"\x17\x0d491231235959Z");
        let short = certificate(&[], b"\x17\x0d261124152247Z");
        assert_eq!(end(&[long.clone(), short.clone(), long.clone()]), Some(1_795_533_767));
        assert_eq!(end(&[]), None);
        assert_eq!(end(&[long, CertificateDer::from(vec![0x30, 0])]), None);
    }

    #[test]
    fn what_is_no_time_is_none() {
        for time in [
            &b"\x17\x0d261124152247+"[..],
            b"\x17\x0c261124152247",
            b"\x17\x0d26112415224xZ",
            b"\x17\x0d261324152247Z",
            b"\x17\x0d261124252247Z",
            b"\x18\x0d261124152247Z",
            b"\x0c\x0d261124152247Z",
            b"\x17\x00",
            b"",
        ] {
            assert_eq!(end(&[certificate(&[], time)]), None, "{}", time.escape_ascii());
        }
    }
}
