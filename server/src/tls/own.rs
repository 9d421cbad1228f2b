//! What is the matter with the server's own certificate, in words: rustls takes one that no device would, and says of the
//! others what only its authors understand.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

/// Why the server cannot use it at all.
pub(super) fn fault(leaf: &CertificateDer<'_>) -> Option<&'static str> {
    let Ok((_, x509)) = X509Certificate::from_der(leaf) else {
        return Some("the first certificate in it cannot be read as X.509");
    };
    (x509.version() == X509Version::V1).then_some(
        "the server's certificate is X.509 v1, which devices refuse; issue it as v3 with a subjectAltName \
         (moorline-certs server, or openssl x509 -req with -extfile)",
    )
}

/// Why devices will refuse it all the same.
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
