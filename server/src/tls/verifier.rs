//! The client certificate's verifier: webpki's, with a memory for what it refused.
//!
//! rustls tells the outcome of a handshake by an error that does not hold the certificate, and forgets a certificate that
//! was refused. So what it said is described here and kept for the thread: a handshake step is synchronous, and whoever
//! ran the step takes the description before the thread does anything else. The error itself is passed on as it is, since
//! the alert that the device gets is made from it.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::resumption::{self, Origin};
use crate::identity::{Certificate, Unreadable};

thread_local! {
    static REFUSED: RefCell<Option<Result<Certificate, Unreadable>>> = const { RefCell::new(None) };
}

/// What the certificate says that this thread's last handshake step refused, if it refused one.
pub(super) fn take_refused() -> Option<Result<Certificate, Unreadable>> {
    REFUSED.take()
}

/// See the module.
#[derive(Debug)]
pub(super) struct ClientVerifier(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ClientVerifier {
    /// None: a device has one certificate, so the list would cost bytes and change nothing.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now);
        let certificate = Certificate::read(end_entity);
        match (&verified, certificate) {
            (Err(_), certificate) => drop(REFUSED.replace(Some(certificate))),
            (Ok(_), Ok(certificate)) => drop(resumption::exchange(Some(Origin {
                full_handshake_s: now.as_secs(),
                not_after_s: u64::try_from(certificate.not_after_ms / 1000).unwrap_or(0),
            }))),
            // rustls takes no certificate that cannot be read.
            (Ok(_), Err(_)) => {}
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
