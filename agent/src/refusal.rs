//! Why a handshake or a TLS session failed, in words and with what to do; and how long a retry had better wait.

use std::fmt::Write as _;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::backoff::Cause;
use crate::clock::Utc;

/// Puts a TLS fault into words. `utc_ms` is the device's clock, as faults of time are as often its own.
#[must_use]
pub fn explain(fault: &Error, utc_ms: i64) -> (Cause, String) {
    match fault {
        Error::InvalidCertificate(fault) => (Cause::Refused, certificate(fault, utc_ms)),
        Error::AlertReceived(alert) => received(*alert),
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)
        | Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig) => (
            Cause::Refused,
            "the server does not speak TLS 1.3; see `server.min_version` and the cargo feature tls12"
                .to_owned(),
        ),
        // What is no TLS at all: a wrong port, or a portal of the operator that answers in the server's place.
        Error::InvalidMessage(fault) => {
            (Cause::Network, format!("what answers does not speak TLS ({fault:?}); is the port right?"))
        }
        Error::NoApplicationProtocol => {
            (Cause::Refused, "the server knows neither moorline/1 nor the classic protocol".to_owned())
        }
        other => (Cause::Network, format!("TLS failed: {other}")),
    }
}

/// Our verdict on the server's certificate.
fn certificate(fault: &CertificateError, utc_ms: i64) -> String {
    let clock = Utc(utc_ms);
    match fault {
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the server's certificate expired at {}, and it is {} at least (this device's clock: {clock}): \
             renew the certificate, or set the clock if it is synchronised and wrong",
            Utc::of_seconds(not_after.as_secs()),
            Utc::of_seconds(time.as_secs()),
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the server's certificate is valid from {}, and it is {} by this device's clock, which is called \
             synchronised: set the clock",
            Utc::of_seconds(not_before.as_secs()),
            Utc::of_seconds(time.as_secs()),
        ),
        CertificateError::Expired => {
            format!("the server's certificate ends before it begins; issue it anew (this device's clock: {clock})")
        }
        CertificateError::UnknownIssuer => {
            "the server's certificate is from another CA than those in `server.trust`, or the server does not send \
             the certificates in between"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "the server's certificate bears the name of a CA in `server.trust` but not its signature".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            wrong_name(&expected.to_str(), presented)
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not for use by a server: issue it with extendedKeyUsage serverAuth".to_owned()
        }
        // webpki's name for X.509 v1 comes through rustls as foreign text.
        CertificateError::Other(other) if other.to_string().contains("UnsupportedCertVersion") => {
            "the server's certificate is X.509 v1; issue it as v3 (with extensions)".to_owned()
        }
        other => format!("the server's certificate is not accepted: {other}"),
    }
}

fn wrong_name(expected: &str, presented: &[String]) -> String {
    let mut text = format!("the server's certificate is not for {expected:?} but for ");
    if presented.is_empty() {
        text.push_str("no name at all: issue it with a subjectAltName");
    }
    for (index, name) in presented.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{name}");
    }
    if !presented.is_empty() {
        text.push_str("; is `server.name` right?");
    }
    text
}

/// The server's verdict on us.
fn received(alert: AlertDescription) -> (Cause, String) {
    let about_us = match alert {
        AlertDescription::CertificateExpired => "it has expired, or the server's clock is wrong",
        AlertDescription::CertificateRevoked => "it is revoked",
        AlertDescription::UnknownCA => "the server does not know its CA",
        // rustls's word for a signature that the CA of that name did not make.
        AlertDescription::DecryptError => "its signature is not that of the server's CA of this name",
        AlertDescription::BadCertificate => "it is damaged, or its names are not what the server wants",
        AlertDescription::UnsupportedCertificate => "it is of a kind the server does not take",
        AlertDescription::CertificateUnknown => "the server found it unacceptable",
        AlertDescription::CertificateRequired => "the server did not get one",
        AlertDescription::AccessDenied => "it is valid, but not admitted",
        AlertDescription::ProtocolVersion => {
            let text =
                "the server does not speak TLS 1.3; see `server.min_version` and the cargo feature tls12";
            return (Cause::Refused, text.to_owned());
        }
        AlertDescription::NoApplicationProtocol => {
            return (
                Cause::Refused,
                "the server does not speak moorline/1; see `server.protocol`".to_owned(),
            );
        }
        AlertDescription::UnrecognisedName => {
            return (Cause::Refused, "the server does not go by `server.name`".to_owned());
        }
        other => return (Cause::Network, format!("the server ended TLS with the alert {other:?}")),
    };
    (Cause::Refused, format!("the server refused our certificate: {about_us}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    fn time(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn expiry_names_both_clocks() {
        let fault = CertificateError::ExpiredContext { time: time(200_000), not_after: time(100_000) };
        let (cause, text) = explain(&fault.into(), 150_000_000);
        assert_eq!(cause, Cause::Refused);
        for part in ["1970-01-02T03:46:40Z", "1970-01-03T07:33:20Z", "1970-01-02T17:40:00Z"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn wrong_name_tells_the_names_seen() {
        let expected = ServerName::try_from("gw.example.com").unwrap();
        let presented = vec!["a.example".to_owned(), "b.example".to_owned()];
        let fault = CertificateError::NotValidForNameContext { expected, presented };
        let (_, text) = explain(&fault.into(), 0);
        assert!(text.contains("\"gw.example.com\" but for a.example, b.example;"), "{text}");
    }

    #[test]
    fn alerts_about_our_certificate_wait_for_a_person() {
        for alert in [
            AlertDescription::CertificateExpired,
            AlertDescription::CertificateRevoked,
            AlertDescription::UnknownCA,
            AlertDescription::DecryptError,
            AlertDescription::BadCertificate,
            AlertDescription::CertificateRequired,
        ] {
            let (cause, text) = explain(&Error::AlertReceived(alert), 0);
            assert_eq!(cause, Cause::Refused);
            assert!(text.starts_with("the server refused our certificate: "), "{text}");
        }
        assert_eq!(explain(&Error::AlertReceived(AlertDescription::InternalError), 0).0, Cause::Network);
    }
}
