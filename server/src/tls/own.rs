//! What makes devices refuse a server's certificate that rustls takes: said before the first of them does.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub(super) fn doubts(leaf: &CertificateDer<'_>) -> Vec<&'static str> {
    let Ok((_, x509)) = X509Certificate::from_der(leaf) else { return Vec::new() };
    let mut doubts = Vec::new();
    if !matches!(x509.subject_alternative_name(), Ok(Some(_))) {
        doubts.push("names no host: devices look for theirs in its subjectAltName, and not in its subject");
    }
    if let Ok(Some(usage)) = x509.extended_key_usage()
        && !usage.value.server_auth
    {
        doubts.push("is not for servers: its extended key usage lacks serverAuth");
    }
    doubts
}
