//! TLS on the server: the configuration in force, its renewal, and what a finished handshake says about the device.

mod material;
mod pump;
mod refusal;
mod verifier;

use std::sync::Arc;

use arc_swap::ArcSwap;
use moorline_config::Mistakes;
use rustls::pki_types::UnixTime;
use rustls::server::StoresServerSessions;
use rustls::{Error, ServerConfig};

use crate::clock::Now;
use crate::identity::{Certificate, Unreadable};
use crate::session::Dialect;
use material::Material;
pub use material::TlsSettings;
pub use pump::{Progress, Tls};
pub use refusal::Refusal;

/// The configuration in force. Sessions that stand keep the one they began with.
pub struct TlsSource {
    material: ArcSwap<Material>,
    /// Outlives every reload, so that a fleet resumes after one.
    sessions: Arc<dyn StoresServerSessions>,
}

/// Reads everything that `settings` name, to tell what is wrong.
///
/// # Errors
/// All mistakes that were found.
pub fn check(settings: &TlsSettings) -> Result<(), Mistakes> {
    Material::load(settings, &material::session_cache(0)).map(drop)
}

/// What a finished handshake says about the device.
#[derive(Clone, Debug)]
pub struct Device {
    /// What is spoken inside.
    pub dialect: Dialect,
    /// Its certificate.
    pub certificate: Certificate,
    /// `1.3` or `1.2`.
    pub version: &'static str,
    /// Whether the handshake was resumed.
    pub resumed: bool,
}

impl TlsSource {
    /// Reads everything that `settings` name.
    ///
    /// # Errors
    /// All mistakes that were found.
    pub fn new(settings: &TlsSettings) -> Result<Self, Mistakes> {
        let sessions = material::session_cache(settings.resumable);
        let material = ArcSwap::from_pointee(Material::load(settings, &sessions)?);
        Ok(Self { material, sessions })
    }

    /// Reads everything anew.
    ///
    /// # Errors
    /// All mistakes that were found; what was in force stays.
    pub fn reload(&self, settings: &TlsSettings) -> Result<(), Mistakes> {
        self.material.store(Arc::new(Material::load(settings, &self.sessions)?));
        Ok(())
    }

    /// For a new connection.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.material.load().config)
    }

    /// Judges a device whose handshake is over. A resumed handshake asked no verifier, so the chain it began with is
    /// verified against what is in force now: the certificate may have expired since, or been revoked.
    ///
    /// # Errors
    /// Why the device is refused.
    pub fn judge(&self, tls: &Tls, now: Now) -> Result<Device, Refusal> {
        let chain = tls.peer_certificates().unwrap_or_default();
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(Refusal::new("no_certificate", "the device sent no certificate"));
        };
        let certificate = Certificate::read(leaf);
        if tls.is_resumed() {
            let at = UnixTime::since_unix_epoch(std::time::Duration::from_millis(
                now.utc_ms.max(0).cast_unsigned(),
            ));
            let verified = self.material.load().verifier.verify_client_cert(leaf, intermediates, at);
            if let Err(error) = verified {
                return Err(refused(&error, certificate));
            }
        }
        let certificate = certificate
            .map_err(|fault| Refusal::of_certificate(&rustls::CertificateError::BadEncoding, Err(fault)))?;
        Ok(Device {
            dialect: if tls.alpn().is_some() { Dialect::Native } else { Dialect::Classic },
            certificate,
            version: tls.version(),
            resumed: tls.is_resumed(),
        })
    }
}

/// Explains the error of a handshake step that just ended on this thread.
#[must_use]
pub fn explain(error: &Error) -> Refusal {
    Refusal::of_step(error)
}

fn refused(error: &Error, certificate: Result<Certificate, Unreadable>) -> Refusal {
    // What the verifier noted for this thread is the same certificate.
    verifier::take_refused();
    match error {
        Error::InvalidCertificate(fault) => Refusal::of_certificate(fault, certificate),
        other => Refusal::new("bad_certificate", other.to_string()),
    }
}
