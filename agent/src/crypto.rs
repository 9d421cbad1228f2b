//! The cryptography of the whole agent, out of ring, each part named: rustls's own list would link what no server needs of a device, a
//! twentieth of the smallest program.

use std::sync::Arc;

use rustls::crypto::ring::{cipher_suite, kx_group, sign};
use rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, SupportedKxGroup, WebPkiSupportedAlgorithms,
};
use rustls::pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm};
use rustls::sign::SigningKey;
use rustls::{Error, SignatureScheme, SupportedCipherSuite};
use webpki::ring as algorithms;

/// Always named: a default could be another one as soon as some crate asks for it.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: SUITES.to_vec(),
        kx_groups: GROUPS.to_vec(),
        signature_verification_algorithms: SIGNATURES,
        secure_random: &System,
        key_provider: &System,
    })
}

/// Most wanted first. SHA-256 comes before SHA-384, which makes each Finished and each offered ticket 16 bytes longer and has no
/// more to protect: certificates and key exchange have 128 bits. Every TLS 1.3 server has the first (RFC 8446 section 9.1).
/// ChaCha20 would be 49 KB on a PC, for records of 24 bytes; ring's AES takes the same time for every key where the processor has
/// no instructions for it, too.
static SUITES: &[SupportedCipherSuite] = &[
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    #[cfg(feature = "tls12")]
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    #[cfg(feature = "tls12")]
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    #[cfg(feature = "tls12")]
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    #[cfg(feature = "tls12")]
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
];

static GROUPS: &[&dyn SupportedKxGroup] = &[kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];

/// By what a server's certificate and its handshake may be signed: all that ring verifies but where a key and its hash are of two
/// sizes in TLS 1.3, as rustls has it.
static SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        algorithms::ECDSA_P256_SHA256,
        algorithms::ECDSA_P256_SHA384,
        algorithms::ECDSA_P384_SHA256,
        algorithms::ECDSA_P384_SHA384,
        algorithms::ED25519,
        algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        algorithms::RSA_PKCS1_2048_8192_SHA256,
        algorithms::RSA_PKCS1_2048_8192_SHA384,
        algorithms::RSA_PKCS1_2048_8192_SHA512,
        algorithms::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
        algorithms::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
        algorithms::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    ],
    mapping: &[
        // TLS 1.2 does not bind the curve to the hash, 1.3 does: the first of two is the one for 1.3.
        (SignatureScheme::ECDSA_NISTP384_SHA384, ECDSA_SHA384),
        (SignatureScheme::ECDSA_NISTP256_SHA256, ECDSA_SHA256),
        (SignatureScheme::ED25519, &[algorithms::ED25519]),
        (SignatureScheme::RSA_PSS_SHA512, &[algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA384, &[algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA256, &[algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
        (SignatureScheme::RSA_PKCS1_SHA512, &[algorithms::RSA_PKCS1_2048_8192_SHA512]),
        (SignatureScheme::RSA_PKCS1_SHA384, &[algorithms::RSA_PKCS1_2048_8192_SHA384]),
        (SignatureScheme::RSA_PKCS1_SHA256, &[algorithms::RSA_PKCS1_2048_8192_SHA256]),
    ],
};

static ECDSA_SHA384: &[&dyn SignatureVerificationAlgorithm] =
    &[algorithms::ECDSA_P384_SHA384, algorithms::ECDSA_P256_SHA384];
static ECDSA_SHA256: &[&dyn SignatureVerificationAlgorithm] =
    &[algorithms::ECDSA_P256_SHA256, algorithms::ECDSA_P384_SHA256];

/// The system's randomness, and the device's key by ring.
#[derive(Debug)]
struct System;

impl SecureRandom for System {
    #[expect(clippy::disallowed_methods, reason = "TLS's own taking of chance")]
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::fill(buffer).map_err(|_| GetRandomFailed)
    }
}

impl KeyProvider for System {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        sign::any_supported_type(&key)
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring;

    use super::*;

    /// What rustls offers by itself, but ChaCha20: so that a newer rustls that learns something is noticed.
    #[test]
    fn all_but_chacha20_is_as_rustls_has_it() {
        let (ours, theirs) = (provider(), ring::default_provider());
        let mut offered: Vec<_> = ours.cipher_suites.iter().map(SupportedCipherSuite::suite).collect();
        let theirs_offered = theirs.cipher_suites.iter().map(SupportedCipherSuite::suite);
        // Built with the server, rustls has TLS 1.2's as well.
        let is_spoken = |name: &str| cfg!(feature = "tls12") || name.starts_with("TLS13");
        let mut expected: Vec<_> = theirs_offered
            .filter(|suite| !format!("{suite:?}").contains("CHACHA20") && is_spoken(&format!("{suite:?}")))
            .collect();
        offered.sort_unstable_by_key(|suite| u16::from(*suite));
        expected.sort_unstable_by_key(|suite| u16::from(*suite));
        assert_eq!(offered, expected);
        let groups = |provider: &CryptoProvider| {
            provider.kx_groups.iter().map(|group| group.name()).collect::<Vec<_>>()
        };
        assert_eq!(groups(&ours), groups(&theirs));
        let (ours, theirs) =
            (ours.signature_verification_algorithms, theirs.signature_verification_algorithms);
        assert_eq!(ours.supported_schemes(), theirs.supported_schemes());
        assert_eq!(ours.all.len(), theirs.all.len());
    }
}
