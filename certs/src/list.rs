//! Reading the revocation list that is there already, which the next one must go on from.

use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::{CertificateRevocationList, RevokedCertificate};

use crate::authority::{Authority, Revoked};
use crate::key::blocks;
use crate::serial::Serial;

/// What the next list needs to know of the last one.
#[derive(Debug)]
pub(crate) struct LastList {
    /// Its number; 0 when it has none, as lists made without extensions.
    pub(crate) number: u64,
    /// Whom it revokes.
    pub(crate) revoked: Vec<Revoked>,
}

impl LastList {
    /// Reads a list in PEM. Nothing when it is none, not of this CA, or its number has more than 64 bits.
    pub(crate) fn from_pem(text: &str, authority: &Authority) -> Option<Self> {
        let block = blocks(text).find(|block| block.label == "X509 CRL")?;
        let (_, list) = CertificateRevocationList::from_der(&block.contents).ok()?;
        if !authority.signed_list(&list) {
            return None;
        }
        let number = list.crl_number().map_or(Some(0), |number| number.try_into().ok())?;
        Some(Self { number, revoked: list.iter_revoked_certificates().map(revoked).collect() })
    }
}

fn revoked(entry: &RevokedCertificate<'_>) -> Revoked {
    let code = entry.reason_code().map(|(_, code)| code.to_string());
    Revoked {
        serial: Serial::from_octets(entry.raw_serial()),
        at: entry.revocation_date.to_datetime(),
        reason: code.and_then(|name| name.parse().ok()),
    }
}
