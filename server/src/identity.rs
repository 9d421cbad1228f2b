//! What a device's certificate says: whose it is, who issued it, how long it is good for. Knows X.509, not TLS.

use std::fmt::{self, Write as _};

use moorline_protocol::{Imei, ImeiError};
use x509_parser::asn1_rs::{Any, Sequence};
use x509_parser::certificate::Validity;
use x509_parser::nom::Parser as _;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::{
    FromDer as _, GeneralName, SubjectAlternativeName, X509Certificate, X509CertificateParser, X509Version,
};

/// What of a certificate is shown and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// The issuer's name (RFC 4514).
    pub issuer: String,
    /// The subject's name (RFC 4514).
    pub subject: String,
    /// The last moment it is valid, UTC milliseconds since 1970.
    pub not_after_ms: i64,
    /// The first moment it is valid, UTC milliseconds since 1970.
    pub not_before_ms: i64,
    /// The IMEI it names, or why it names none.
    pub imei: Result<Imei, NoImei>,
}

/// Why a certificate names no IMEI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoImei {
    /// Neither its subjectAltName nor its CN is an IMEI's.
    Absent,
    /// It has an IMEI's URN that is not right.
    BadUrn(ImeiError),
    /// It names two.
    Ambiguous,
}

impl fmt::Display for NoImei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str(
                "it names no IMEI: issue it with subjectAltName URI:urn:gsma:imei:NNNNNNNN-NNNNNN-0",
            ),
            Self::BadUrn(fault) => write!(f, "the IMEI's URN in it is wrong: {fault}"),
            Self::Ambiguous => f.write_str("it names more than one IMEI"),
        }
    }
}

/// Why a certificate cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not DER, or not a certificate.
    NotX509,
    /// It is X.509 v1, which carries no extensions: no key usage, no subjectAltName. What it says all the same.
    Version1(Box<Certificate>),
}

impl Certificate {
    /// Reads a certificate's DER.
    ///
    /// # Errors
    /// [`Unreadable`]; a certificate without an IMEI is readable.
    pub fn read(der: &[u8]) -> Result<Self, Unreadable> {
        // One extension is read, and the others cost as much each: this is done for every device that comes.
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let (_, x509) = parser.parse(der).map_err(|_| Unreadable::NotX509)?;
        let certificate = Self {
            serial: format!("{:x}", x509.serial),
            issuer: x509.issuer().to_string(),
            subject: x509.subject().to_string(),
            not_after_ms: x509.validity().not_after.timestamp().saturating_mul(1000),
            not_before_ms: x509.validity().not_before.timestamp().saturating_mul(1000),
            imei: imei(&x509),
        };
        match x509.version() {
            X509Version::V1 => Err(Unreadable::Version1(Box::new(certificate))),
            _ => Ok(certificate),
        }
    }

    /// The last moment that a certificate of X.509 v3 is valid, UTC seconds since 1970, read from its DER without the rest
    /// (RFC 5280 section 4.1); `None`: it is none.
    pub(crate) fn not_after_s(der: &[u8]) -> Option<i64> {
        let (_, certificate) = Sequence::from_der(der).ok()?;
        let (_, signed) = Sequence::from_der(&certificate.content).ok()?;
        // Version, serial number, algorithm and issuer come first.
        let skip = |rest, _| Any::from_der(rest).map(|(rest, _)| rest);
        let before_validity = (0..4).try_fold(signed.content.as_ref(), skip).ok()?;
        let (_, validity) = Validity::from_der(before_validity).ok()?;
        Some(validity.not_after.timestamp())
    }

    /// Adds to a line of the log what a person needs to find the certificate.
    pub(crate) fn describe(&self, line: &mut String) {
        let _ = write!(line, " (subject {}, serial {}", quoted(&self.subject), quoted(&self.serial));
        if let Ok(imei) = self.imei {
            let _ = write!(line, ", IMEI {imei}");
        }
        line.push(')');
    }

    /// The IMEI it names, if it names one.
    #[must_use]
    pub fn named_imei(&self) -> Option<Imei> {
        self.imei.ok()
    }
}

/// The subjectAltName's URN (RFC 7254) before the subject's CN of 15 digits.
fn imei(x509: &X509Certificate<'_>) -> Result<Imei, NoImei> {
    let mut found = Err(NoImei::Absent);
    for extension in x509.extensions().iter().filter(|one| one.oid == OID_X509_EXT_SUBJECT_ALT_NAME) {
        let Ok((_, names)) = SubjectAlternativeName::from_der(extension.value) else { continue };
        for urn in urns(&names) {
            let imei = Imei::from_urn(urn).map_err(NoImei::BadUrn)?;
            if found.is_ok_and(|first| first != imei) {
                return Err(NoImei::Ambiguous);
            }
            found = Ok(imei);
        }
    }
    found.or_else(|absent| common_name(x509).and_then(|name| name.parse().ok()).ok_or(absent))
}

fn urns<'x>(names: &'x SubjectAlternativeName<'_>) -> impl Iterator<Item = &'x str> {
    names.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) if is_imei_urn(uri) => Some(*uri),
        _ => None,
    })
}

fn is_imei_urn(uri: &str) -> bool {
    uri.get(.."urn:gsma:imei:".len()).is_some_and(|head| head.eq_ignore_ascii_case("urn:gsma:imei:"))
}

fn common_name<'x>(x509: &'x X509Certificate<'_>) -> Option<&'x str> {
    x509.subject().iter_common_name().next()?.as_str().ok()
}

/// A peer chose these characters, so none may end a line or colour a terminal, and there may not be many.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{:?}…", text.get(..cut).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType, date_time_ymd};

    use super::*;

    const URN: &str = "urn:gsma:imei:00499901-064000-0";
    const OTHER: &str = "urn:gsma:imei:86973105-240382-0";

    fn certificate(common_name: &str, uris: &[&str]) -> Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(vec![0x0a, 0xbc].into());
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Certificate::read(signed.der()).unwrap()
    }

    #[test]
    fn urn_names_the_imei() {
        let certificate = certificate("pump 7", &["https://example.com/", URN]);
        assert_eq!(certificate.imei, Ok("004999010640000".parse().unwrap()));
        assert_eq!((certificate.serial.as_str(), certificate.subject.as_str()), ("abc", "CN=pump 7"));
    }

    #[test]
    fn common_name_names_the_imei_where_no_urn_does() {
        assert_eq!(certificate("004999010640000", &[]).imei, Ok("004999010640000".parse().unwrap()));
        assert_eq!(certificate("869731052403821", &[URN]).imei, Ok("004999010640000".parse().unwrap()));
        for other in ["pump 7", "869731052403820", "86973105240382"] {
            assert_eq!(certificate(other, &[]).imei, Err(NoImei::Absent), "{other}");
        }
    }

    #[test]
    fn wrong_urn_is_no_absent_one() {
        let wrong = certificate("004999010640000", &["urn:gsma:imei:004999010640000"]);
        assert_eq!(wrong.imei, Err(NoImei::BadUrn(ImeiError::Urn)));
    }

    #[test]
    fn two_imeis_are_ambiguous() {
        assert_eq!(certificate("pump 7", &[URN, OTHER]).imei, Err(NoImei::Ambiguous));
        assert!(certificate("pump 7", &[URN, URN]).imei.is_ok());
    }

    #[test]
    fn end_is_read_without_the_rest() {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(2031, 5, 17);
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let whole = Certificate::read(signed.der()).unwrap().not_after_ms;
        assert_eq!(Certificate::not_after_s(signed.der()), Some(1_936_742_400));
        assert_eq!(whole, 1_936_742_400_000);
        for len in [0, 1, 4, 20, 80] {
            assert_eq!(Certificate::not_after_s(&signed.der()[..len]), None, "{len}");
        }
    }

    #[test]
    fn garbage_is_no_certificate() {
        assert_eq!(Certificate::read(b"\x30\x03abc"), Err(Unreadable::NotX509));
    }

    #[test]
    fn names_are_short_and_of_one_line_in_the_log() {
        let line = quoted(&format!("CN=a\n<3>forged{}", "x".repeat(1000)));
        assert!(line.starts_with(r#""CN=a\n<3>forged"#) && line.chars().count() < 130, "{line}");
    }
}
