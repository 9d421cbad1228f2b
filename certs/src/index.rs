//! The text that says which certificates were issued and which revoked, in the format of `openssl ca`, so that either
//! program goes on where the other stopped. Pure: the folder reads and writes the file.
//!
//! One line a certificate, six fields between tabs: `V`, `R` or `E` (valid, revoked, marked as expired), the end of its
//! validity, when and why it was revoked, its serial number, a file name or `unknown`, and the subject as `/CN=…`.

use std::fmt;

use moorline_protocol::Imei;
use time::{Date, Month, OffsetDateTime, Time};

use crate::authority::Revoked;
use crate::reason::Reason;
use crate::serial::Serial;

/// All lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index(Vec<Entry>);

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `V`, or `E` for one that `openssl ca -updatedb` found expired; of no account once revoked.
    mark: char,
    not_after: OffsetDateTime,
    revocation: Option<Revocation>,
    serial: Serial,
    file: String,
    subject: String,
}

/// When and why, the reason as it stands there: `openssl` knows more of them than are of use here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Revocation {
    at: OffsetDateTime,
    reason: Option<String>,
}

impl Entry {
    /// A certificate that is in force.
    pub(crate) fn new(serial: Serial, not_after: OffsetDateTime, subject: &str) -> Self {
        // A tab or a line's end in a subject would begin another field or line.
        let subject = subject.replace(char::is_control, " ");
        Self { mark: 'V', not_after, revocation: None, serial, file: "unknown".to_owned(), subject }
    }

    pub(crate) fn serial(&self) -> &Serial {
        &self.serial
    }

    /// When it was revoked, if it was.
    pub(crate) fn revoked_at(&self) -> Option<OffsetDateTime> {
        self.revocation.as_ref().map(|revocation| revocation.at)
    }

    /// Its line of a revocation list, if it was revoked.
    fn revoked(&self) -> Option<Revoked> {
        let revocation = self.revocation.as_ref()?;
        let reason = revocation.reason.as_deref().and_then(|reason| reason.parse().ok());
        Some(Revoked { serial: self.serial.clone(), at: revocation.at, reason })
    }

    /// The IMEI that it names, where it is a device's.
    pub(crate) fn imei(&self) -> Option<Imei> {
        let mut parts = self.subject.split(['/', ',']);
        parts.find_map(|part| part.trim().strip_prefix("CN=")?.parse().ok())
    }
}

impl Index {
    /// Reads the whole text; blank lines and those that begin with `#` are passed over.
    pub(crate) fn parse(text: &str) -> Result<Self, IndexError> {
        let is_entry = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
        let numbered = text.lines().enumerate().filter(|(_, line)| is_entry(line));
        let parse = |(at, line)| parse_line(line).map_err(|fault| IndexError { line: at + 1, fault });
        Ok(Self(numbered.map(parse).collect::<Result<_, _>>()?))
    }

    pub(crate) fn add(&mut self, entry: Entry) {
        self.0.push(entry);
    }

    pub(crate) fn find(&self, serial: &Serial) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.serial == *serial)
    }

    /// The certificates that name this IMEI, revoked ones too.
    pub(crate) fn of_imei(&self, imei: Imei) -> impl Iterator<Item = &Entry> {
        self.iter().filter(move |entry| entry.imei() == Some(imei))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    /// Revokes those in force that are `wanted`, and says how many there were.
    pub(crate) fn revoke_where(
        &mut self,
        at: OffsetDateTime,
        reason: Option<Reason>,
        wanted: impl Fn(&Entry) -> bool,
    ) -> usize {
        let in_force = self.0.iter_mut().filter(|entry| entry.revocation.is_none() && wanted(entry));
        let reason = reason.map(|reason| reason.to_string());
        in_force.map(|entry| entry.revocation = Some(Revocation { at, reason: reason.clone() })).count()
    }

    /// Marks one as revoked, which it stays since it first was. Says whether it is there.
    pub(crate) fn revoke(&mut self, revoked: &Revoked) -> bool {
        let Some(entry) = self.0.iter_mut().find(|entry| entry.serial == revoked.serial) else {
            return false;
        };
        let reason = revoked.reason.map(|reason| reason.to_string());
        entry.revocation.get_or_insert(Revocation { at: revoked.at, reason });
        true
    }

    /// The lines of the next revocation list.
    pub(crate) fn revoked(&self) -> Vec<Revoked> {
        self.0.iter().filter_map(Entry::revoked).collect()
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|entry| writeln!(f, "{entry}"))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.revocation.is_some() { 'R' } else { self.mark };
        write!(f, "{mark}\t{}\t", Stamp(self.not_after))?;
        if let Some(revocation) = &self.revocation {
            write!(f, "{}", Stamp(revocation.at))?;
            if let Some(reason) = &revocation.reason {
                write!(f, ",{reason}")?;
            }
        }
        write!(f, "\t{}\t{}\t{}", self.serial, self.file, self.subject)
    }
}

fn parse_line(line: &str) -> Result<Entry, IndexFault> {
    let fields: Vec<_> = line.split('\t').collect();
    let Ok([mark, not_after, revocation, serial, file, subject]) = <[&str; 6]>::try_from(fields) else {
        return Err(IndexFault::Fields);
    };
    let (mark, revoked) = match mark {
        "V" => ('V', false),
        "E" => ('E', false),
        "R" => ('V', true),
        _ => return Err(IndexFault::Mark),
    };
    if revoked == revocation.is_empty() {
        return Err(IndexFault::Revocation);
    }
    Ok(Entry {
        mark,
        not_after: parse_stamp(not_after).ok_or(IndexFault::Date)?,
        revocation: revoked.then(|| parse_revocation(revocation)).transpose()?,
        serial: serial.parse().map_err(|_| IndexFault::Serial)?,
        file: file.to_owned(),
        subject: subject.to_owned(),
    })
}

fn parse_revocation(text: &str) -> Result<Revocation, IndexFault> {
    let (at, reason) = match text.split_once(',') {
        Some((at, reason)) => (at, Some(reason.to_owned())),
        None => (text, None),
    };
    Ok(Revocation { at: parse_stamp(at).ok_or(IndexFault::Date)?, reason })
}

/// A time as certificates write it: two digits of the year before 2050, four from then on (RFC 5280 section 4.1.2.5).
struct Stamp(OffsetDateTime);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = (self.0.date(), self.0.time());
        match date.year() {
            year @ 1950..2050 => write!(f, "{:02}", year % 100)?,
            year => write!(f, "{year:04}")?,
        }
        write!(f, "{:02}{:02}", u8::from(date.month()), date.day())?;
        write!(f, "{:02}{:02}{:02}Z", time.hour(), time.minute(), time.second())
    }
}

fn parse_stamp(text: &str) -> Option<OffsetDateTime> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let (year, rest) = digits.split_at_checked(digits.len().checked_sub(10)?)?;
    let year = match (year.len(), year.parse::<i32>().ok()?) {
        (2, year @ 0..50) => 2000 + year,
        (2, year) => 1900 + year,
        (4, year) => year,
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(part(0)?).ok()?, part(2)?).ok()?;
    let time = Time::from_hms(part(4)?, part(6)?, part(8)?).ok()?;
    Some(OffsetDateTime::new_utc(date, time))
}

/// A line that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexError {
    /// Counted from 1.
    pub line: usize,
    /// What is the matter.
    pub fault: IndexFault,
}

/// What is the matter with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFault {
    /// There are not six fields between tabs.
    Fields,
    /// The first field is not `V`, `R` or `E`.
    Mark,
    /// It has no time of revocation and is `R`, or has one and is not.
    Revocation,
    /// A time is not of the form `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
    Date,
    /// The serial number is not hexadecimal.
    Serial,
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            IndexFault::Fields => "it has not the six fields between tabs of an `openssl ca` index",
            IndexFault::Mark => "its first field is not V, R or E",
            IndexFault::Revocation => "a line marked R has a time of revocation, and no other",
            IndexFault::Date => "its times are not all of the form YYMMDDHHMMSSZ",
            IndexFault::Serial => "its fourth field is not a hexadecimal serial number",
        };
        write!(f, "line {}: {fault}", self.line)
    }
}

impl std::error::Error for IndexError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by `openssl ca` 3.0, with a certificate of each kind.
    const BY_OPENSSL: &str = "V\t361122101500Z\t\t4F01\tunknown\t/CN=869731052403821\n\
        R\t20510101000000Z\t261124090000Z,keyCompromise\t5A\tunknown\t/C=DE/O=Example/CN=015184008301272\n\
        R\t361122101500Z\t261124090000Z\t5B\tunknown\t/CN=869731052403821\n\
        E\t200101000000Z\t\t01\told.pem\t/CN=gw.example.com\n";

    #[test]
    fn openssl_index_is_written_as_it_was_read() {
        assert_eq!(Index::parse(BY_OPENSSL).unwrap().to_string(), BY_OPENSSL);
    }

    #[test]
    fn revoked_ones_are_listed_with_their_reason() {
        let revoked = Index::parse(BY_OPENSSL).unwrap().revoked();
        let shown: Vec<_> = revoked.iter().map(|entry| (entry.serial.to_string(), entry.reason)).collect();
        assert_eq!(shown, [("5A".to_owned(), Some(Reason::KeyCompromise)), ("5B".to_owned(), None)]);
    }

    #[test]
    fn imei_finds_its_certificates_alone() {
        let index = Index::parse(BY_OPENSSL).unwrap();
        let of = |imei: &str| index.of_imei(imei.parse().unwrap()).count();
        assert_eq!((of("869731052403821"), of("015184008301272"), of("004999010640000")), (2, 1, 0));
    }

    #[test]
    fn first_revocation_stays() {
        let mut index = Index::parse(BY_OPENSSL).unwrap();
        let again = Revoked { serial: "5a".parse().unwrap(), at: OffsetDateTime::UNIX_EPOCH, reason: None };
        assert!(index.revoke(&again));
        assert_eq!(index.to_string(), BY_OPENSSL);
        assert!(!index.revoke(&Revoked { serial: "5c".parse().unwrap(), ..again }));
    }

    #[test]
    fn broken_lines_are_named() {
        for (line, fault) in [
            ("V\t361122101500Z\t\t4F01\tunknown", IndexFault::Fields),
            ("X\t361122101500Z\t\t4F01\tunknown\t/CN=a", IndexFault::Mark),
            ("R\t361122101500Z\t\t4F01\tunknown\t/CN=a", IndexFault::Revocation),
            ("V\t361122101500Z\t261124090000Z\t4F01\tunknown\t/CN=a", IndexFault::Revocation),
            ("V\t361322101500Z\t\t4F01\tunknown\t/CN=a", IndexFault::Date),
            ("V\t3611221015Z\t\t4F01\tunknown\t/CN=a", IndexFault::Date),
            ("V\t361122101500Z\t\tserial\tunknown\t/CN=a", IndexFault::Serial),
        ] {
            let text = format!("# a comment\n{line}\n");
            assert_eq!(Index::parse(&text), Err(IndexError { line: 2, fault }), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[VRE#]?(\t|[0-9]{0,16}|Z|,|é|\n){0,40}") {
            if let Ok(index) = Index::parse(&text) {
                prop_assert_eq!(Index::parse(&index.to_string()), Ok(index));
            }
        }

        #[test]
        fn entries_come_back(seconds in 0_i64..253_402_300_800, subject in "\\PC{0,20}\t?\n?") {
            let end = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            let mut index = Index::default();
            index.add(Entry::new("0A".parse().unwrap(), end, &format!("/CN={subject}")));
            prop_assert_eq!(Index::parse(&index.to_string()), Ok(index));
        }
    }
}
