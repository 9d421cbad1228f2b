//! TLS for the operators' side, both ends of it: a certificate of the server's own and, where that is wished, certificates
//! asked of operators.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::material::{certificates, own_chain, private_key, revocation_lists};

/// The files that `[operators]` names for it.
pub(crate) struct OperatorsTls<'c> {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Who vouches for operators; nobody is asked for a certificate without it.
    pub(crate) client_ca: Option<PathBuf>,
    pub(crate) crl: Option<PathBuf>,
    /// Who vouches for devices.
    pub(crate) devices_ca: &'c Path,
}

impl OperatorsTls<'_> {
    /// Reads the files; each mistake is given to `note` with its key.
    pub(crate) fn config(&self, note: &mut dyn FnMut(&str, String)) -> Option<ServerConfig> {
        let chain = own_chain(&self.certificate).map_err(|text| note("certificate", text)).ok();
        let key = private_key(&self.key).map_err(|text| note("key", text)).ok();
        let provider = Arc::new(ring::default_provider());
        let versions = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|fault| note("certificate", fault.to_string()))
            .ok()?;
        let builder = match &self.client_ca {
            None => versions.with_no_client_auth(),
            Some(client_ca) => {
                let roots = self.roots(client_ca).map_err(|text| note("client_ca", text)).ok();
                let lists = self.crl.as_deref().map_or_else(|| Ok(Vec::new()), revocation_lists);
                let lists = lists.map_err(|text| note("crl", text)).ok();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots?), provider)
                    .with_crls(lists?)
                    // As for devices: a CA without a list vouches, and an expired list is better than none.
                    .allow_unknown_revocation_status()
                    .only_check_end_entity_revocation()
                    .build()
                    .map_err(|fault| note("client_ca", fault.to_string()))
                    .ok()?;
                versions.with_client_cert_verifier(verifier)
            }
        };
        let (key_file, certificate) = (self.key.display(), self.certificate.display());
        let mut config = builder
            .with_single_cert(chain?, key?)
            .map_err(|fault| {
                note("key", format!("{key_file} is of no use for the certificate in {certificate}: {fault}"));
            })
            .ok()?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // rustls asks no verifier when a session is resumed: each connection is to be held against what is in force.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Some(config)
    }

    fn roots(&self, client_ca: &Path) -> Result<RootCertStore, String> {
        let trusted = certificates(client_ca)?;
        // One that cannot be read is a mistake of its own key.
        let of_devices = certificates(self.devices_ca).unwrap_or_default();
        if trusted.iter().any(|root| of_devices.contains(root)) {
            return Err(format!(
                "{} holds a CA of tls.client_ca, {}: each device could steer the fleet with its certificate. Operators need \
                 a CA of their own",
                client_ca.display(),
                self.devices_ca.display()
            ));
        }
        store(trusted, client_ca)
    }
}

/// An operator's end: trusts the CAs in the file `ca`, and shows `own` certificate, with its key, where it is asked for one.
pub(crate) fn operator_config(ca: &Path, own: Option<(&Path, &Path)>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|fault| fault.to_string())?
        .with_root_certificates(store(certificates(ca)?, ca)?);
    let Some((certificate, key)) = own else { return Ok(builder.with_no_client_auth()) };
    builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?).map_err(|fault| {
        format!("{} is of no use for the certificate in {}: {fault}", key.display(), certificate.display())
    })
}

fn store(trusted: Vec<CertificateDer<'static>>, file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in trusted {
        roots.add(root).map_err(|fault| format!("{}: no CA certificate: {fault}", file.display()))?;
    }
    Ok(roots)
}
