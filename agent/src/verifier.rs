//! Judges the server's certificates: chain, signatures, purpose and name always, dates by the time that counts
//! (`trusted_time.rs`).
//!
//! The floor is a time that has passed, and nobody knows how much more has. A certificate that ended before it has
//! ended. One that begins after it may well have begun; so the chain is accepted if there is any time from the floor on at
//! which all of it holds. The earliest such time is found by asking again at each notBefore that was too late, with every
//! other check as before.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::clock::Utc;
use crate::log;
use crate::trusted_time::{Basis, TrustedTime};

/// How many notBefores are tried: as many as a chain has certificates that webpki follows.
const LONGEST_CHAIN: usize = 8;

/// As rustls's own verifier without revocation lists, but for the time.
#[derive(Debug)]
pub struct Verifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    time: Arc<TrustedTime>,
}

impl Verifier {
    /// Trusts these roots.
    #[must_use]
    pub const fn new(
        roots: Arc<RootCertStore>,
        algorithms: WebPkiSupportedAlgorithms,
        time: Arc<TrustedTime>,
    ) -> Self {
        Self { roots, algorithms, time }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _age_of_tickets: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let verify = |seconds| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let (roots, algorithms) = (&self.roots, self.algorithms.all);
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, time, algorithms)
        };
        let begun = match self.time.basis() {
            Basis::Clock(now) => verify(now).map(|()| None)?,
            Basis::Floor(floor) | Basis::FloorInstead(floor) => {
                Some((from(floor, verify)?, floor)).filter(|(begun, floor)| begun > floor)
            }
        };
        verify_server_name(&certificate, server_name)?;
        if let Some((begun, floor)) = begun {
            tell_of_youth(begun, floor);
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The earliest time from `floor` on, in seconds since 1970, at which `verify` finds nothing wrong.
fn from(floor: u64, verify: impl Fn(u64) -> Result<(), Error>) -> Result<u64, Error> {
    let mut time = floor;
    let mut outcome = verify(time);
    for _ in 0..LONGEST_CHAIN {
        match &outcome {
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                time = not_before.as_secs();
                outcome = verify(time);
            }
            _ => break,
        }
    }
    outcome.map(|()| time)
}

fn tell_of_youth(begun: u64, floor: u64) {
    let (begun, floor) = (Utc::of_seconds(begun), Utc::of_seconds(floor));
    log::info(format_args!(
        "the server's certificates are valid from {begun}, after the floor {floor}: taken for valid, as the time is \
         not known"
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    /// What webpki says of a chain with these validities, leaf first.
    fn judge(chain: &[(u64, u64)], time: u64) -> Result<(), Error> {
        for &(not_before, not_after) in chain {
            if time < not_before {
                let not_before = at(not_before);
                return Err(CertificateError::NotValidYetContext { time: at(time), not_before }.into());
            }
            if time > not_after {
                let not_after = at(not_after);
                return Err(CertificateError::ExpiredContext { time: at(time), not_after }.into());
            }
        }
        Ok(())
    }

    #[test]
    fn chain_is_accepted_if_it_holds_at_any_time_from_the_floor_on() {
        for (chain, accepted) in [
            (&[(0, 200)][..], Some(100)),
            (&[(0, 100)], Some(100)),
            (&[(0, 99)], None),
            (&[(150, 200)], Some(150)),
            (&[(150, 200), (170, 300)], Some(170)),
            (&[(170, 200), (150, 300), (160, 300)], Some(170)),
            // The issuer ended before the leaf began: there is no such time.
            (&[(150, 200), (0, 120)], None),
            (&[(150, 160), (170, 300)], None),
        ] {
            assert_eq!(from(100, |time| judge(chain, time)).ok(), accepted, "{chain:?}");
        }
    }

    #[test]
    fn search_for_a_time_comes_to_an_end() {
        let never = |time: u64| {
            Err(CertificateError::NotValidYetContext { time: at(time), not_before: at(time + 1) }.into())
        };
        assert!(from(0, never).is_err());
    }
}
