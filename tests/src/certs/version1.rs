//! Certificates as X.509 v1 had them, which no tool of today makes: a v3 one without extensions, its version taken out,
//! signed again.

use moorline_certs::{Authority, PublicKey, Serial, Validity};
use pem::Pem;
use rcgen::{KeyPair, SigningKey as _};

use super::bare_params;
use crate::failure::Failure;

/// A v1 certificate in PEM whose only name is the subject's common name.
pub(super) fn sign(
    authority: &Authority,
    common_name: &str,
    key: &PublicKey,
    serial: &Serial,
    validity: Validity,
) -> Result<String, Failure> {
    let version3 = pem::parse(authority.sign(&bare_params(common_name, serial, validity), key)?)?;
    let (certificate, _) = element(version3.contents())?;
    let (to_sign, rest) = element(certificate.content)?;
    let (algorithm, _) = element(rest)?;
    let (version, fields) = element(to_sign.content)?;
    if version.whole != VERSION_3 {
        return Err(Failure::new("the certificate does not begin with version 3"));
    }
    let to_sign = tagged(SEQUENCE, fields);
    let signature = KeyPair::from_pem(&authority.key_pem())?.sign(&to_sign)?;
    // A bit string begins with how many bits of its last octet are unused.
    let signature = tagged(BIT_STRING, &[&[0], signature.as_slice()].concat());
    let whole = tagged(SEQUENCE, &[to_sign.as_slice(), algorithm.whole, &signature].concat());
    Ok(pem::encode(&Pem::new("CERTIFICATE", whole)))
}

/// One element of DER.
struct Element<'a> {
    whole: &'a [u8],
    content: &'a [u8],
}

/// The first element and what follows it.
fn element(der: &[u8]) -> Result<(Element<'_>, &[u8]), Failure> {
    let cut = || Failure::new("DER ends within an element");
    let first = *der.get(1).ok_or_else(cut)?;
    let long = if first < 0x80 { 0 } else { usize::from(first & 0x7f) };
    let head = 2 + long;
    let length = match long {
        0 => usize::from(first),
        _ => der
            .get(2..head)
            .ok_or_else(cut)?
            .iter()
            .fold(0, |length, octet| length << 8 | usize::from(*octet)),
    };
    let (whole, rest) = der.split_at_checked(head + length).ok_or_else(cut)?;
    Ok((Element { whole, content: &whole[head..] }, rest))
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|octet| **octet == 0).count()..];
    let mut der = vec![tag];
    if content.len() >= 0x80 {
        der.push(0x80 | significant.len() as u8);
        der.extend(significant);
    } else {
        der.push(content.len() as u8);
    }
    der.extend(content);
    der
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// `[0] EXPLICIT INTEGER 2`.
const VERSION_3: [u8; 5] = [0xa0, 0x03, 0x02, 0x01, 0x02];
