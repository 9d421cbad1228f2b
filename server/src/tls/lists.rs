//! Revocation lists: whose they are, whom they revoke, and whether new ones may take the place of those in force.
//!
//! What webpki would find out in each handshake is found out here, once: a list that its CA did not sign would otherwise
//! keep out every device of that CA.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::asn1_rs::{Any, BitString};
use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use crate::expiry::day;
use crate::identity::quoted;
use crate::store::Credential;

/// The lists of one file.
#[derive(Debug, Default)]
pub(super) struct Lists {
    used: Vec<List>,
    /// Whose lists were passed over: they bear the name of a CA that is trusted and did not sign them, as a former one of
    /// that name did. webpki would hold that CA's devices against them.
    pub(super) passed_over: Vec<String>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct List {
    pub(super) der: CertificateRevocationListDer<'static>,
    /// Who issued it (RFC 4514).
    pub(super) issuer: String,
    number: BigUint,
    pub(super) from_ms: i64,
    pub(super) until_ms: i64,
    /// The CA that signed it; none, where that is not among those trusted and comes with a device's chain.
    pub(super) signer: Option<CertificateDer<'static>>,
}

/// Certificates that are revoked, by issuer and serial as the registry keeps them.
#[derive(Debug, Default)]
pub struct Revoked(HashMap<String, HashSet<String>>);

impl Revoked {
    /// Whether this one is.
    #[must_use]
    pub fn holds(&self, certificate: &Credential) -> bool {
        self.0.get(&*certificate.issuer).is_some_and(|serials| serials.contains(&*certificate.serial))
    }
}

impl Lists {
    /// Reads lists and finds who of `authorities` signed them.
    pub(super) fn new(
        path: &Path,
        lists: Vec<CertificateRevocationListDer<'static>>,
        authorities: &[CertificateDer<'static>],
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<Self, String> {
        let named = |index: usize| format!("{}: revocation list {}", path.display(), index + 1);
        let (mut read, mut unsigned) = (Vec::new(), Vec::new());
        for (index, der) in lists.into_iter().enumerate() {
            let list = List::read(der, authorities, algorithms);
            match list.map_err(|fault| format!("{}: {fault}", named(index)))? {
                Signed::ByNamesake(issuer) => unsigned.push((index, issuer)),
                Signed::Well(list) => read.push(list),
            }
        }
        let has_own = |issuer: &String| read.iter().any(|list| list.issuer == *issuer);
        if let Some((index, issuer)) = unsigned.iter().find(|(_, issuer)| !has_own(issuer)) {
            return Err(format!(
                "{}: it says that it is of {}, but that CA of tls.client_ca did not sign it, or by an algorithm that \
                 is not admitted",
                named(*index),
                quoted(issuer)
            ));
        }
        // Of a CA's lists the newest counts; webpki goes by the first.
        read.sort_by(|one, other| other.number.cmp(&one.number));
        let mut used: Vec<List> = Vec::new();
        for list in read {
            if !used.iter().any(|newer| newer.is_of_the_same(&list)) {
                used.push(list);
            }
        }
        Ok(Self { used, passed_over: unsigned.into_iter().map(|(_, issuer)| issuer).collect() })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &List> {
        self.used.iter()
    }

    /// Whether these may take the place of those `in_force`: none is older than the one it replaces, none that is new is
    /// overdue, and none is missing whose CA is still one of `authorities`.
    pub(super) fn may_replace(
        &self,
        in_force: &Self,
        authorities: &[CertificateDer<'_>],
        now_ms: i64,
    ) -> Result<(), String> {
        for list in self.iter().filter(|list| !in_force.iter().any(|older| older.der == list.der)) {
            let name = quoted(&list.issuer);
            if list.until_ms < now_ms {
                let due = day(list.until_ms);
                return Err(format!(
                    "the new revocation list of {name} is overdue since {due}: make it anew"
                ));
            }
            if let Some(newer) =
                in_force.iter().find(|older| older.is_of_the_same(list) && older.number > list.number)
            {
                return Err(format!(
                    "the revocation list of {name} has number {}, and number {} is in force: an older list would \
                     admit whom the newer one revokes",
                    list.number, newer.number
                ));
            }
        }
        let trusted = |list: &List| list.signer.as_ref().is_some_and(|signer| authorities.contains(signer));
        let gone = |older: &&List| trusted(older) && !self.iter().any(|list| list.is_of_the_same(older));
        in_force.iter().find(gone).map_or(Ok(()), |missing| {
            Err(format!(
                "it has no revocation list of {}, of which one is in force and whose CA tls.client_ca holds",
                quoted(&missing.issuer)
            ))
        })
    }

    /// All that they revoke.
    pub(super) fn revoked(&self) -> Revoked {
        let mut all: HashMap<_, HashSet<_>> = HashMap::new();
        for list in self.iter() {
            if let Ok((_, parsed)) = CertificateRevocationList::from_der(&list.der) {
                let serials = parsed.iter_revoked_certificates().map(|entry| format!("{:x}", entry.serial()));
                all.entry(list.issuer.clone()).or_default().extend(serials);
            }
        }
        Revoked(all)
    }
}

/// Who signed a list.
enum Signed {
    /// One of the CAs that are trusted, or one that bears no name of theirs.
    Well(List),
    /// None of them, though one has this name.
    ByNamesake(String),
}

impl List {
    fn read(
        der: CertificateRevocationListDer<'static>,
        authorities: &[CertificateDer<'static>],
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<Signed, String> {
        let (_, list) =
            CertificateRevocationList::from_der(&der).map_err(|_| "this is no revocation list".to_owned())?;
        let issuer = list.issuer().to_string();
        let Some(number) = list.crl_number().cloned() else {
            return Err("it has no number; a revocation list is X.509 v2 with a crlNumber".to_owned());
        };
        let named: Vec<_> = authorities
            .iter()
            .filter_map(|authority| Some((authority, X509Certificate::from_der(authority).ok()?.1)))
            .filter(|(_, authority)| authority.subject().as_raw() == list.issuer().as_raw())
            .collect();
        let signer = named
            .iter()
            .find(|(_, authority)| is_signed(&der, authority.public_key().raw, algorithms).is_some())
            .map(|(authority, _)| CertificateDer::clone(authority));
        if signer.is_none() && !named.is_empty() {
            return Ok(Signed::ByNamesake(issuer));
        }
        let (from_ms, until_ms) = (
            list.last_update().timestamp().saturating_mul(1000),
            list.next_update().map_or(i64::MAX, |next| next.timestamp().saturating_mul(1000)),
        );
        Ok(Signed::Well(Self { issuer, number, from_ms, until_ms, signer, der }))
    }

    fn is_of_the_same(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.signer == other.signer
    }
}

/// Whether the owner of this key (a SubjectPublicKeyInfo) signed this list, by the algorithms that webpki is given.
fn is_signed(list: &[u8], key: &[u8], algorithms: &WebPkiSupportedAlgorithms) -> Option<()> {
    let (_, list) = Any::from_der(list).ok()?;
    let (rest, _) = Any::from_der(list.data).ok()?;
    let said = list.data.get(..list.data.len().checked_sub(rest.len())?)?;
    let (rest, algorithm) = Any::from_der(rest).ok()?;
    let (_, signature) = BitString::from_der(rest).ok()?;
    let (_, key) = Any::from_der(key).ok()?;
    let (rest, kind) = Any::from_der(key.data).ok()?;
    let (_, key) = BitString::from_der(rest).ok()?;
    let fits = algorithms.all.iter().filter(|candidate| {
        candidate.signature_alg_id().as_ref() == algorithm.data
            && candidate.public_key_alg_id().as_ref() == kind.data
    });
    fits.into_iter().find_map(|fitting| fitting.verify_signature(key.as_ref(), said, signature.as_ref()).ok())
}
