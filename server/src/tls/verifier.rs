//! The client certificate's verifier: webpki's, with a memory for what it refused.
//!
//! It is several of webpki's where CAs share a name, as an old and a new one do in a rollover: webpki finds a certificate's
//! revocation list by the name of its issuer alone, and would hold one CA's certificates against the other's list.
//!
//! rustls tells the outcome of a handshake by an error that does not hold the certificate, and forgets a certificate that
//! was refused. So what it said is described here and kept for the thread: a handshake step is synchronous, and whoever
//! ran the step takes the description before the thread does anything else. The error itself is passed on as it is, since
//! the alert that the device gets is made from it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::lists::Lists;
use super::resumption::{self, Origin};
use crate::identity::{Certificate, Unreadable};

thread_local! {
    static REFUSED: RefCell<Option<Result<Certificate, Unreadable>>> = const { RefCell::new(None) };
}

/// What the certificate says that this thread's last handshake step refused, if it refused one.
pub(super) fn take_refused() -> Option<Result<Certificate, Unreadable>> {
    REFUSED.take()
}

/// How many verifiers were made.
static MADE: AtomicU64 = AtomicU64::new(0);

/// See the module.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    /// No other one in this process has it: what was verified by it need not be verified by it again.
    pub(super) id: u64,
    first: Arc<dyn ClientCertVerifier>,
    others: Vec<Arc<dyn ClientCertVerifier>>,
}

impl ClientVerifier {
    /// One that trusts these CAs, less what `lists` revoke.
    pub(super) fn new(
        authorities: &[CertificateDer<'static>],
        lists: &Lists,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let groups = groups(authorities)?;
        let mut verifiers = groups.iter().map(|(roots, members)| {
            // A list whose CA is none of these is of one that comes with a device's chain.
            let lists = lists
                .iter()
                .filter(|list| list.signer.as_ref().is_none_or(|signer| members.contains(&signer)));
            // A CA without a list is not thereby refused, and an expired list is better than none: it is used and warned
            // about.
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(provider))
                .with_crls(lists.map(|list| list.der.clone()))
                .allow_unknown_revocation_status()
                .only_check_end_entity_revocation()
                .build()
                .map_err(|fault| fault.to_string())
        });
        let first = verifiers.next().ok_or("there is no CA")??;
        let others = verifiers.map(|verifier| Ok(verifier? as _)).collect::<Result<_, String>>()?;
        let id = MADE.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, first, others })
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let mut verdict = self.first.verify_client_cert(end_entity, intermediates, now);
        for other in &self.others {
            match &verdict {
                // What another CA says of a certificate that is not its own is not the reason.
                Err(Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                )) => {
                    let next = other.verify_client_cert(end_entity, intermediates, now);
                    if !matches!(next, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))) {
                        verdict = next;
                    }
                }
                _ => return verdict,
            }
        }
        verdict
    }
}

/// Some CAs, as webpki wants them and as they came.
type Group<'a> = (RootCertStore, Vec<&'a CertificateDer<'static>>);

/// The CAs, in as many groups as it takes for no group to have two of one name.
fn groups<'a>(authorities: &'a [CertificateDer<'static>]) -> Result<Vec<Group<'a>>, String> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for authority in authorities {
        let mut alone = RootCertStore::empty();
        alone.add(authority.clone()).map_err(|fault| fault.to_string())?;
        let has_its_name = |roots: &RootCertStore| {
            alone.roots.iter().any(|new| roots.roots.iter().any(|root| root.subject == new.subject))
        };
        match groups.iter_mut().find(|(roots, _)| !has_its_name(roots)) {
            Some((roots, members)) => {
                roots.extend(alone.roots);
                members.push(authority);
            }
            None => groups.push((alone, vec![authority])),
        }
    }
    Ok(groups)
}

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
        let verified = self.verify(end_entity, intermediates, now);
        if verified.is_err() {
            REFUSED.set(Some(Certificate::read(end_entity)));
        } else if let Some(not_after_s) = Certificate::not_after_s(end_entity) {
            resumption::exchange(Some(Origin {
                full_handshake_s: now.as_secs(),
                not_after_s: u64::try_from(not_after_s).unwrap_or(0),
                // What stands between a device and its CA may end before the device's certificate does.
                verifier: intermediates.is_empty().then_some(self.id),
            }));
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.first.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.first.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.first.supported_verify_schemes()
    }
}
