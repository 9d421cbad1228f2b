//! Why a handshake failed, in words that a person can act on.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::verifier;
use crate::expiry::day;
use crate::identity::{Certificate, Unreadable, quoted};
use crate::session::Cause;

const REVOKED: &str = "revoked";
const EXPIRED: &str = "expired";

/// A handshake that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The name in metrics and events.
    pub reason: &'static str,
    /// What is wrong, and what to do about it where that is known.
    pub text: String,
    /// The certificate that was refused, where one was seen.
    pub certificate: Option<Box<Certificate>>,
}

impl Refusal {
    /// One without a certificate.
    #[must_use]
    pub fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), certificate: None }
    }

    /// What it ends a session with that stands.
    pub(crate) fn cause(&self) -> Cause {
        match self.reason {
            REVOKED => Cause::Revoked,
            EXPIRED => Cause::Expired,
            _ => Cause::Certificate,
        }
    }

    /// Explains the error that a handshake step on this thread just ended with.
    pub(super) fn of_step(error: &Error) -> Self {
        match (error, verifier::take_refused()) {
            (Error::InvalidCertificate(fault), Some(seen)) => Self::of_certificate(fault, seen),
            (error, _) => Self::of_error(error),
        }
    }

    /// Explains why a certificate is refused.
    pub(super) fn of_certificate(fault: &CertificateError, seen: Result<Certificate, Unreadable>) -> Self {
        let certificate = match seen {
            Ok(certificate) => certificate,
            Err(Unreadable::Version1(certificate)) => {
                let text = "client certificate is X.509 v1; issue it as v3 (openssl x509 -req with -extfile)";
                return Self::about("certificate_v1", text, *certificate);
            }
            Err(Unreadable::NotX509) => {
                return Self::new("bad_certificate", "client certificate cannot be read as X.509");
            }
        };
        let (reason, text) = certificate_words(fault, &certificate);
        Self::about(reason, &text, certificate)
    }

    /// One that describes the certificate behind the words.
    pub(crate) fn about(reason: &'static str, text: &str, certificate: Certificate) -> Self {
        let mut text = text.to_owned();
        certificate.describe(&mut text);
        Self { reason, text, certificate: Some(Box::new(certificate)) }
    }

    fn of_error(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::new(
                "no_certificate",
                "the device sent no certificate; it needs one from the CA in tls.client_ca",
            ),
            Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::SupportedVersionsExtensionRequired,
            ) => Self::new(
                "tls_version",
                "the device offers only older TLS versions than tls.min_version admits",
            ),
            Error::PeerIncompatible(fault) => {
                Self::new("incompatible", format!("the device's TLS does not fit: {fault:?}"))
            }
            Error::NoApplicationProtocol => Self::new(
                "alpn",
                "the device speaks another protocol: it offers ALPN names, but not moorline/1",
            ),
            Error::AlertReceived(alert) => Self::of_alert(*alert),
            Error::InvalidMessage(_) => {
                Self::new("not_tls", format!("the bytes received are no TLS handshake ({error})"))
            }
            _ => Self::new("handshake", error.to_string()),
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        let text = match alert {
            AlertDescription::UnknownCA => {
                "the device does not trust this server's certificate: its trust bundle lacks the CA"
                    .to_owned()
            }
            AlertDescription::CertificateExpired => {
                "the device finds this server's certificate expired: check its clock and tls.certificate"
                    .to_owned()
            }
            AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
                "the device refuses this server's certificate: check the names in it".to_owned()
            }
            other => format!("the device ended the handshake with alert {other:?}"),
        };
        Self::new("refused_by_device", text)
    }
}

fn certificate_words(fault: &CertificateError, certificate: &Certificate) -> (&'static str, String) {
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            (EXPIRED, format!("client certificate expired on {}", day(certificate.not_after_ms)))
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "not_yet_valid",
            format!("client certificate is not valid before {}", day(certificate.not_before_ms)),
        ),
        CertificateError::UnknownIssuer => {
            ("unknown_ca", format!("client certificate is from another CA: {}", quoted(&certificate.issuer)))
        }
        CertificateError::BadSignature => (
            "unknown_ca",
            format!("client certificate was not signed by the CA it names: {}", quoted(&certificate.issuer)),
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            "wrong_usage",
            "client certificate is not for client use: its extended key usage lacks clientAuth".to_owned(),
        ),
        CertificateError::Revoked => (REVOKED, "client certificate is revoked".to_owned()),
        other => ("bad_certificate", format!("client certificate is refused: {other}")),
    }
}
