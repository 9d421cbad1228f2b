//! The CA: a certificate and its key, and what they sign. It knows nothing of files, and is told the time.
//!
//! What goes into a certificate is decided here and nowhere else: X.509 v3, RFC 5280's extensions, and the
//! device's IMEI as RFC 7254 names it.

use std::fmt;

use moorline_protocol::Imei;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    RevokedCertParams, SanType, SerialNumber,
};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Version};
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::key::{KeyError, PrivateKey, PublicKey, blocks};
use crate::names::ServerNames;
use crate::reason::Reason;
use crate::serial::Serial;
use crate::validity::Validity;

/// A CA that can sign: one made here, or a fleet's older one (RSA and X.509 v1 serve too).
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    key_id: KeyIdMethod,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate that an [`Authority`] signed.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate in PEM.
    pub pem: String,
    /// Its serial number.
    pub serial: Serial,
    /// From when to when it holds: as asked, but no longer than the CA.
    pub validity: Validity,
}

/// An entry of a revocation list.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// The certificate.
    pub serial: Serial,
    /// When it was revoked.
    pub at: OffsetDateTime,
    /// Why, where that was said.
    pub reason: Option<Reason>,
}

impl Authority {
    /// Makes a CA: signed by its own `key`, for leaves only (path length 0).
    ///
    /// # Errors
    /// [`AuthorityError::CommonName`] unless `name` has 1 to 64 characters.
    pub fn create(
        name: &str,
        key: PrivateKey,
        serial: &Serial,
        validity: Validity,
    ) -> Result<Self, AuthorityError> {
        if !(1..=COMMON_NAME_MAX).contains(&name.chars().count()) {
            return Err(AuthorityError::CommonName);
        }
        let mut params = params(Some(name), serial, validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = key.into_key_pair();
        let certificate = params.self_signed(&key).map_err(AuthorityError::Sign)?;
        Self::from_parts(&certificate.pem(), key)
    }

    /// A CA from its certificate and key in PEM; of several certificates the one that the key belongs to.
    ///
    /// # Errors
    /// [`AuthorityError`] says what is the matter with which of the two.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let key = PrivateKey::from_pem(key).map_err(AuthorityError::Key)?;
        Self::from_parts(certificate, key.into_key_pair())
    }

    fn from_parts(certificate: &str, key: KeyPair) -> Result<Self, AuthorityError> {
        let public = key.subject_public_key_info();
        let mut fault = AuthorityError::NoCertificate;
        for block in blocks(certificate).filter(|block| block.label == "CERTIFICATE") {
            let (_, x509) =
                X509Certificate::from_der(&block.contents).map_err(|_| AuthorityError::NotReadable)?;
            if x509.public_key().raw == public {
                check_signer(&x509)?;
                let (key_id, not_after) = (key_identifier(&x509), x509.validity().not_after.to_datetime());
                let der = block.contents.as_slice().into();
                let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| AuthorityError::Name)?;
                return Ok(Self { certificate: certificate.to_owned(), key_id, not_after, issuer });
            }
            fault = AuthorityError::KeyMismatch;
        }
        Err(fault)
    }

    /// The CA's certificate in PEM, as it was given.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The CA's key in PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The last moment of the CA.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Did this CA sign that certificate?
    pub(crate) fn signed(&self, x509: &X509Certificate<'_>) -> bool {
        let public = self.issuer.key().subject_public_key_info();
        SubjectPublicKeyInfo::from_der(&public)
            .is_ok_and(|(_, key)| x509.verify_signature(Some(&key)).is_ok())
    }

    /// Did this CA sign that revocation list?
    pub(crate) fn signed_list(&self, list: &CertificateRevocationList<'_>) -> bool {
        let public = self.issuer.key().subject_public_key_info();
        SubjectPublicKeyInfo::from_der(&public).is_ok_and(|(_, key)| list.verify_signature(&key).is_ok())
    }

    /// Signs a server's certificate.
    ///
    /// # Errors
    /// [`AuthorityError::Sign`] when the key does not sign.
    pub fn issue_server(
        &self,
        names: &ServerNames,
        key: &PublicKey,
        serial: Serial,
        validity: Validity,
    ) -> Result<Issued, AuthorityError> {
        let validity = validity.until_at_most(self.not_after);
        let mut params = leaf(names.common_name().as_deref(), &serial, validity);
        params.subject_alt_names = names.alternatives().to_vec();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params, key, serial)
    }

    /// Signs a device's certificate: its IMEI is the subject's common name and, as a URN, its alternative name.
    ///
    /// # Errors
    /// [`AuthorityError::Sign`] when the key does not sign.
    pub fn issue_device(
        &self,
        imei: Imei,
        key: &PublicKey,
        serial: Serial,
        validity: Validity,
    ) -> Result<Issued, AuthorityError> {
        let urn = Ia5String::try_from(imei.urn().as_str()).map_err(AuthorityError::Sign)?;
        let validity = validity.until_at_most(self.not_after);
        let mut params = leaf(Some(&imei.to_string()), &serial, validity);
        params.subject_alt_names = vec![SanType::URI(urn)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params, key, serial)
    }

    fn issue(
        &self,
        params: &CertificateParams,
        key: &PublicKey,
        serial: Serial,
    ) -> Result<Issued, AuthorityError> {
        let validity = Validity { not_before: params.not_before, not_after: params.not_after };
        Ok(Issued { pem: self.sign(params, key)?, serial, validity })
    }

    /// Signs any certificate: for what [`Self::issue_server`] and [`Self::issue_device`] would not sign.
    ///
    /// # Errors
    /// [`AuthorityError::Sign`] when the key does not sign.
    pub fn sign(&self, params: &CertificateParams, key: &PublicKey) -> Result<String, AuthorityError> {
        Ok(params.signed_by(key, &self.issuer).map_err(AuthorityError::Sign)?.pem())
    }

    /// Signs a revocation list (v2) in PEM. `number` must be larger than that of every list before.
    ///
    /// # Errors
    /// [`AuthorityError::Sign`] when the CA's key usage does not allow it to sign lists.
    pub fn crl(
        &self,
        number: u64,
        revoked: &[Revoked],
        validity: Validity,
    ) -> Result<String, AuthorityError> {
        let entry = |revoked: &Revoked| RevokedCertParams {
            serial_number: (&revoked.serial).into(),
            revocation_time: revoked.at,
            reason_code: revoked.reason.map(Into::into),
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: validity.not_before,
            next_update: validity.not_after,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: self.key_id.clone(),
        };
        params.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(AuthorityError::Sign)
    }
}

fn leaf(name: Option<&str>, serial: &Serial, validity: Validity) -> CertificateParams {
    let mut params = params(name, serial, validity);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn params(name: Option<&str>, serial: &Serial, validity: Validity) -> CertificateParams {
    let mut distinguished_name = DistinguishedName::new();
    if let Some(name) = name {
        distinguished_name.push(DnType::CommonName, name);
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name;
    params.serial_number = Some(serial.into());
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.use_authority_key_identifier_extension = true;
    params
}

/// May it sign certificates, and can its name be written again octet by octet, as the issuer of what it signs?
fn check_signer(x509: &X509Certificate<'_>) -> Result<(), AuthorityError> {
    // Older roots are v1 and cannot say that they are a CA; as trust anchors they serve all the same.
    let is_ca = x509.version() == X509Version::V1 || x509.is_ca();
    let may_sign = x509.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
    if !is_ca || !may_sign {
        return Err(AuthorityError::NotCa);
    }
    // rcgen keeps one value for each attribute type, so a second `DC` or `OU` would be lost.
    let mut seen = Vec::new();
    for set in x509.subject().iter_rdn() {
        let mut attributes = set.iter().map(AttributeTypeAndValue::attr_type);
        match (attributes.next(), attributes.next()) {
            (Some(kind), None) if !seen.contains(&kind) => seen.push(kind),
            _ => return Err(AuthorityError::Name),
        }
    }
    Ok(())
}

/// The identifier that leaves and lists carry of the CA's key: the one in the CA's certificate.
fn key_identifier(x509: &X509Certificate<'_>) -> KeyIdMethod {
    x509.iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(KeyIdMethod::PreSpecified(id.0.to_vec())),
            _ => None,
        })
        .unwrap_or(KeyIdMethod::Sha256)
}

/// Why a CA cannot be used or does not sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityError {
    /// The CA's name is empty or too long.
    CommonName,
    /// The certificate's file holds none in PEM.
    NoCertificate,
    /// A certificate in it is damaged.
    NotReadable,
    /// None of the certificates belongs to the key.
    KeyMismatch,
    /// The certificate may not sign others.
    NotCa,
    /// The CA's subject has an attribute twice or in a form that cannot be written again.
    Name,
    /// The key cannot be used.
    Key(KeyError),
    /// No name was given for a server.
    ServerNames,
    /// A name given for a server is none.
    DnsName(String),
    /// Signing failed.
    Sign(rcgen::Error),
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommonName => f.write_str("a CA's name has 1 to 64 characters"),
            Self::NoCertificate => {
                f.write_str("there is no certificate in it (no `BEGIN CERTIFICATE`)")
            }
            Self::NotReadable => f.write_str("the certificate in it is damaged"),
            Self::KeyMismatch => f.write_str("the key does not belong to the certificate"),
            Self::NotCa => f.write_str(
                "the certificate is not a CA's: its basicConstraints or keyUsage does not let it sign certificates",
            ),
            Self::Name => f.write_str(
                "the CA's subject has several attributes of one kind or an unusual string type, which this program \
                 cannot write as an issuer; issue with openssl instead",
            ),
            Self::Key(error) => error.fmt(f),
            Self::ServerNames => f.write_str("a server needs at least one name: --dns NAME or --ip ADDRESS"),
            Self::DnsName(name) => write!(f, "`{name}` is not a host's name; an address is given with --ip"),
            Self::Sign(rcgen::Error::IssuerNotCrlSigner) => {
                f.write_str("the CA's keyUsage does not let it sign revocation lists (no cRLSign)")
            }
            Self::Sign(error) => write!(f, "signing failed: {error}"),
        }
    }
}

impl std::error::Error for AuthorityError {}

/// The longest common name (RFC 5280 appendix A, ub-common-name).
pub(crate) const COMMON_NAME_MAX: usize = 64;
