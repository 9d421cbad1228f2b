//! Keys in PEM: the private one that a CA signs with, and the public one that a certificate certifies.
//!
//! What to do about a key in a form that cannot be read is said here, in [`KeyError`].

use std::fmt;

use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SubjectPublicKeyInfo};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

/// A private key: ECDSA P-256 when made here; an RSA key of an older CA is as good.
#[derive(Debug)]
pub struct PrivateKey(KeyPair);

impl PrivateKey {
    /// A new ECDSA key on P-256.
    ///
    /// # Errors
    /// [`KeyError::Rejected`] when the operating system gives no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        KeyPair::generate().map(Self).map_err(KeyError::Rejected)
    }

    /// Reads the first PEM block that is a private key; it must be PKCS#8 and not encrypted.
    ///
    /// # Errors
    /// [`KeyError`] says which other form it has and how to convert it.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let Some(block) = blocks(text).find(|block| block.label.ends_with("PRIVATE KEY")) else {
            return Err(KeyError::NoPrivateKey);
        };
        match block.label.as_str() {
            "PRIVATE KEY" => KeyPair::try_from(block.contents).map(Self).map_err(KeyError::Rejected),
            _ => Err(KeyError::OtherForm(block.label)),
        }
    }

    /// The key in PEM, PKCS#8.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey { algorithm: self.0.algorithm(), octets: self.0.der_bytes().to_vec() }
    }

    pub(crate) fn into_key_pair(self) -> KeyPair {
        self.0
    }
}

/// A public key to certify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: &'static SignatureAlgorithm,
    octets: Vec<u8>,
}

impl PublicKey {
    /// Takes the public key out of a certificate request, a certificate (an X.509 v1 one too) or a bare public
    /// key, whichever the first PEM block holds.
    ///
    /// # Errors
    /// [`KeyError`], also when a request is not signed by the key that it asks for.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let block = blocks(text).next().ok_or(KeyError::NoPublicKey)?;
        let der = block.contents.as_slice();
        match block.label.as_str() {
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::from_request(der),
            "CERTIFICATE" => {
                let (_, certificate) = X509Certificate::from_der(der).map_err(|_| KeyError::NotReadable)?;
                Self::from_der(certificate.public_key().raw)
            }
            "PUBLIC KEY" => Self::from_der(der),
            _ => Err(KeyError::NoPublicKey),
        }
    }

    /// A request proves with its signature that whoever asks has the private key.
    fn from_request(der: &[u8]) -> Result<Self, KeyError> {
        let (_, request) = X509CertificationRequest::from_der(der).map_err(|_| KeyError::NotReadable)?;
        request.verify_signature().map_err(|_| KeyError::RequestSignature)?;
        Self::from_der(request.certification_request_info.subject_pki.raw)
    }

    pub(crate) fn from_der(spki: &[u8]) -> Result<Self, KeyError> {
        let key = SubjectPublicKeyInfo::from_der(spki).map_err(KeyError::Rejected)?;
        Ok(Self { algorithm: key.algorithm(), octets: key.der_bytes().to_vec() })
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.octets
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// The PEM blocks of a text, up to the first broken one; text around them is passed over.
pub(crate) fn blocks(text: &str) -> impl Iterator<Item = Pem> + '_ {
    Pem::iter_from_buffer(text.as_bytes()).map_while(Result::ok)
}

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// There is no PEM block with a private key.
    NoPrivateKey,
    /// The private key is in another form than PKCS#8: the label of its PEM block.
    OtherForm(String),
    /// The first PEM block is no certificate request, certificate or public key.
    NoPublicKey,
    /// The PEM block does not hold what its label says.
    NotReadable,
    /// The request is not signed by the key that it asks for.
    RequestSignature,
    /// The key is of a kind that cannot be used, or broken.
    Rejected(rcgen::Error),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPrivateKey => f.write_str("there is no private key in it (no `BEGIN PRIVATE KEY`)"),
            Self::OtherForm(label) => write!(
                f,
                "the key is not in plain PKCS#8 form (it begins with `BEGIN {label}`); convert it: \
                 openssl pkcs8 -topk8 -nocrypt -in OLD.key -out NEW.key"
            ),
            Self::NoPublicKey => f.write_str(
                "it does not begin with a certificate request, a certificate or a public key in PEM",
            ),
            Self::NotReadable => f.write_str("its first PEM block is damaged"),
            Self::RequestSignature => {
                f.write_str("the certificate request is not signed by the key that it asks for")
            }
            Self::Rejected(error) => write!(
                f,
                "the key cannot be used ({error}); keys are ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits and more"
            ),
        }
    }
}

impl std::error::Error for KeyError {}
