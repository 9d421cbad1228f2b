//! The certificates of a fleet: one for each device, all for the same key. A server cannot tell, and does the same work.

use std::sync::Arc;

use moorline_certs::{PrivateKey, Serial, Validity};
use moorline_protocol::Imei;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use time::OffsetDateTime;

use super::Speech;
use crate::certs::Pki;
use crate::failure::Failure;

/// The TAC for test equipment.
const TAC: u64 = 499_901;

/// See the module.
pub struct Pool {
    key: Arc<dyn SigningKey>,
    devices: Vec<(Imei, CertificateDer<'static>)>,
    base: ClientConfig,
}

impl Pool {
    /// So many devices that this CA certifies.
    ///
    /// # Errors
    /// A certificate cannot be made.
    pub fn new(pki: &Pki, devices: u32) -> Result<Self, Failure> {
        let key = PrivateKey::generate()?;
        let validity = Validity::days(OffsetDateTime::now_utc(), 50);
        let issue = |number| {
            let imei = imei(number)?;
            let issued = pki.authority().issue_device(imei, &key.public(), Serial::random()?, validity)?;
            Ok((imei, CertificateDer::from_pem_slice(issued.pem.as_bytes())?))
        };
        let devices = (0..devices).map(issue).collect::<Result<_, Failure>>()?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pki.ca())?)?;
        let base = ClientConfig::builder_with_provider(moorline_agent::crypto::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = PrivateKeyDer::from_pem_slice(key.pem().as_bytes())?;
        Ok(Self { key: ring::sign::any_ecdsa_type(&key)?, devices, base })
    }

    /// How many devices there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// The device of this number.
    #[must_use]
    pub fn imei(&self, number: usize) -> Imei {
        self.devices[number].0
    }

    /// How the device of this number connects; it remembers its own sessions where it is to resume them.
    #[must_use]
    pub fn config(&self, number: usize, speech: Speech, resume: bool) -> Arc<ClientConfig> {
        let mut config = self.base.clone();
        config.alpn_protocols = speech.protocols();
        config.resumption = if resume { Resumption::in_memory_sessions(1) } else { Resumption::disabled() };
        let certified = CertifiedKey::new(vec![self.devices[number].1.clone()], Arc::clone(&self.key));
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        Arc::new(config)
    }
}

/// The test equipment's IMEI of this number, with its check digit (3GPP TS 23.003 annex B).
///
/// # Errors
/// There are not so many.
pub fn imei(number: u32) -> Result<Imei, Failure> {
    let digits = format!("{:014}", TAC * 1_000_000 + u64::from(number));
    let sum: u32 = digits
        .bytes()
        .enumerate()
        .map(|(place, digit)| {
            let value = u32::from(digit - b'0') * if place % 2 == 1 { 2 } else { 1 };
            value / 10 + value % 10
        })
        .sum();
    Ok(format!("{digits}{}", (10 - sum % 10) % 10).parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imeis_are_right_and_differ() {
        assert_eq!(imei(0).unwrap().tac(), 499_901);
        assert_ne!(imei(999_998).unwrap(), imei(999_999).unwrap());
    }
}
