//! Certificates and keys from their PEM files, each fault in words for the person who put the file there.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use rustls_pemfile::Item;

use crate::der::{SEQUENCE, expect};

/// More than any bundle of roots, less than what could hurt a small device.
const MAX_FILE: u64 = 1024 * 1024;

/// The roots of a PEM bundle.
///
/// # Errors
/// The file cannot be read, holds no certificate, or one of them is bad: it says which.
pub fn roots(file: &Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates(file)?.into_iter().enumerate() {
        store.add(certificate).map_err(|fault| {
            named(file, &format!("certificate {} in it cannot serve as a root: {fault}", index + 1))
        })?;
    }
    Ok(store)
}

/// A certificate file's chain, the device's own certificate first.
///
/// # Errors
/// As for [`roots`]; and the first certificate is X.509 v1, which no server takes.
pub fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = certificates(file)?;
    if chain.first().is_some_and(|leaf| is_v1(leaf)) {
        return Err(named(file, "the device's certificate is X.509 v1; issue it as v3 (with extensions)"));
    }
    Ok(chain)
}

/// A private key.
///
/// # Errors
/// The file cannot be read, is readable by every user, or holds no private key.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let (pem, metadata) = read(file)?;
    let key = items(file, &pem)?.into_iter().find_map(|item| match item {
        Item::Pkcs1Key(key) => Some(key.into()),
        Item::Pkcs8Key(key) => Some(key.into()),
        Item::Sec1Key(key) => Some(key.into()),
        _ => None,
    });
    let key = key.ok_or_else(|| named(file, no_key(&pem)))?;
    // A group may read it: systemd gives a credential to the service's user by an ACL, whose mask shows as group bits.
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(named(file, "every user of this device may use the key; run: chmod 600"));
    }
    Ok(key)
}

/// What a file without a readable private key holds instead. An encrypted one says so in its text.
fn no_key(pem: &[u8]) -> &'static str {
    if pem.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
        "the private key is encrypted, and nobody is there to type its password; decrypt it with: openssl pkey"
    } else {
        "there is no private key in it (a PEM section `PRIVATE KEY`)"
    }
}

const ENCRYPTED: &[u8] = b"ENCRYPTED";

/// Joins the device's chain with its key.
///
/// # Errors
/// The key is of a kind that cannot sign here, or belongs to another certificate.
pub fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, String> {
    match CertifiedKey::from_der(chain, key, provider) {
        Ok(certified) => Ok(Arc::new(certified)),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err("the key does not belong to the certificate in `identity.certificate`".to_owned())
        }
        Err(fault) => Err(format!("the key cannot be used: {fault}")),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let (pem, _) = read(file)?;
    let certificates: Vec<_> = items(file, &pem)?
        .into_iter()
        .filter_map(|item| match item {
            Item::X509Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(named(file, "there is no certificate in it (a PEM section `CERTIFICATE`)"));
    }
    // rustls looks into a chain only when a server does, so a cut certificate would come to light in the field.
    match certificates.iter().position(|der| !is_one_sequence(der)) {
        Some(bad) => Err(named(file, &format!("certificate {} in it is damaged", bad + 1))),
        None => Ok(certificates),
    }
}

/// The sections of a PEM file: the one place that uses rustls-pemfile.
fn items(file: &Path, pem: &[u8]) -> Result<Vec<Item>, String> {
    let (mut found, mut rest) = (Vec::new(), pem);
    loop {
        match rustls_pemfile::read_one_from_slice(rest) {
            Ok(Some((item, after))) => {
                found.push(item);
                rest = after;
            }
            Ok(None) => return Ok(found),
            Err(fault) => return Err(named(file, &bad_section(found.len() + 1, &fault))),
        }
    }
}

fn bad_section(number: usize, fault: &rustls_pemfile::Error) -> String {
    let fault = match fault {
        rustls_pemfile::Error::MissingSectionEnd { .. } => "has no END line",
        rustls_pemfile::Error::IllegalSectionStart { .. } => "has a broken BEGIN line",
        rustls_pemfile::Error::Base64Decode(_) => "is not base64 throughout",
    };
    format!("PEM section {number} in it {fault}")
}

fn read(file: &Path) -> Result<(Vec<u8>, Metadata), String> {
    let mut bytes = Vec::new();
    let opened = File::open(file).and_then(|open| {
        let metadata = open.metadata()?;
        open.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        Ok(metadata)
    });
    let metadata = opened.map_err(|error| named(file, &unreadable(&error)))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(named(file, "is larger than 1 MiB, so hardly a PEM file"));
    }
    Ok((bytes, metadata))
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "may not be read by this user".to_owned(),
        ErrorKind::IsADirectory => "is a folder, not a file".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

fn named(file: &Path, fault: &str) -> String {
    format!("{}: {fault}", file.display())
}

/// Whether the bytes are one DER SEQUENCE from end to end.
fn is_one_sequence(der: &[u8]) -> bool {
    expect(SEQUENCE, der).is_some_and(|(_, rest)| rest.is_empty())
}

/// X.509 v1 is what a certificate is whose TBSCertificate does not begin with `[0] version` (RFC 5280 section 4.1).
fn is_v1(certificate: &[u8]) -> bool {
    expect(SEQUENCE, certificate)
        .and_then(|(inside, _)| expect(SEQUENCE, inside))
        .is_some_and(|(tbs, _)| tbs.first() != Some(&0xa0))
}

/// Whether a file is there, for defaults that depend on it.
pub(crate) fn is_there(file: &Path) -> bool {
    fs::metadata(file).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_files_have_their_words() {
        for (errno, words) in [
            (rustix::io::Errno::ACCESS, "may not be read by this user"),
            (rustix::io::Errno::NOENT, "there is no such file"),
            (rustix::io::Errno::ISDIR, "is a folder, not a file"),
            (rustix::io::Errno::IO, "cannot be read: Input/output error"),
        ] {
            let said = unreadable(&errno.into());
            assert!(said.starts_with(words), "{said}");
        }
    }

    #[test]
    fn version_1_has_no_version_field() {
        let v3 = [0x30, 7, 0x30, 5, 0xa0, 3, 2, 1, 2];
        let v1 = [0x30, 5, 0x30, 3, 2, 1, 7];
        assert!(is_v1(&v1) && !is_v1(&v3) && !is_v1(&[]));
    }
}
