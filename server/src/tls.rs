//! TLS on the server: the configuration in force, its renewal, and what a finished handshake says about the device.

mod material;
mod own;
mod pump;
mod refusal;
mod resumption;
mod verifier;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use moorline_config::Mistakes;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{CertificateError, Error};

use crate::clock::Now;
use crate::identity::Certificate;
use crate::session::Dialect;
use material::Material;
pub use material::TlsSettings;
use pump::Trusted;
pub use pump::{Progress, Tls};
pub use refusal::Refusal;
use resumption::Sessions;

/// The configuration in force. Sessions that stand keep the one they began with.
pub struct TlsSource {
    material: ArcSwap<Material>,
    /// Outlives every reload, so that a fleet resumes after one.
    sessions: Arc<Sessions>,
}

/// Reads everything that `settings` name, and tells what is right and yet worth a warning.
///
/// # Errors
/// All mistakes that were found.
pub fn check(settings: &TlsSettings, now: Now) -> Result<Vec<String>, Mistakes> {
    let no_sessions = Arc::new(Sessions::new(0, Arc::new(DefaultTimeProvider)));
    Material::load(settings, &no_sessions, 0).map(|material| material.warnings(now))
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
        Self::by_clock(settings, Arc::new(DefaultTimeProvider))
    }

    /// As [`Self::new`], by another clock: what it says is the time that certificates and tickets are judged by in a
    /// handshake.
    ///
    /// # Errors
    /// All mistakes that were found.
    pub fn by_clock(settings: &TlsSettings, clock: Arc<dyn TimeProvider>) -> Result<Self, Mistakes> {
        let sessions = Arc::new(Sessions::new(settings.resumable, clock));
        let material = ArcSwap::from_pointee(Material::load(settings, &sessions, 0)?);
        Ok(Self { material, sessions })
    }

    /// Reads everything anew.
    ///
    /// # Errors
    /// All mistakes that were found; what was in force stays.
    pub fn reload(&self, settings: &TlsSettings) -> Result<(), Mistakes> {
        let reading = self.material.load().reading + 1;
        self.material.store(Arc::new(Material::load(settings, &self.sessions, reading)?));
        Ok(())
    }

    /// A new connection, which waits for its ClientHello.
    ///
    /// # Errors
    /// rustls finds its configuration unusable, which loading it rules out.
    pub fn accept(&self) -> Result<Tls, Error> {
        let material = self.material.load();
        Tls::new(Arc::clone(&material.config), material.reading)
    }

    /// Judges a device whose handshake is over. A resumed handshake asked no verifier, so the chain it began with is
    /// verified against what is in force now: the certificate may have expired since, or been revoked.
    ///
    /// # Errors
    /// Why the device is refused.
    pub fn judge(&self, tls: &mut Tls, now: Now) -> Result<Device, Refusal> {
        let chain = tls.peer_certificates().unwrap_or_default();
        let Some(leaf) = chain.first() else {
            return Err(Refusal::new("no_certificate", "the device sent no certificate"));
        };
        let certificate = Certificate::read(leaf)
            .map_err(|fault| Refusal::of_certificate(&CertificateError::BadEncoding, Err(fault)))?;
        let material = self.material.load();
        if tls.is_resumed() || tls.trusted.reading != material.reading {
            verify(&material, chain, now)?;
        }
        tls.trusted = Trusted { reading: material.reading, until_ms: certificate.not_after_ms };
        Ok(Device {
            dialect: if tls.alpn().is_some() { Dialect::Native } else { Dialect::Classic },
            certificate,
            version: tls.version(),
            resumed: tls.is_resumed(),
        })
    }

    /// Whether a device whose session stands may keep it. To be asked with each message: it costs nothing until the files
    /// were read anew or the certificate's time is up, and then one verification. So a reload does not verify a whole fleet
    /// at once, and nobody whose certificate was revoked is heard again.
    ///
    /// # Errors
    /// Why the device has to go.
    pub fn judge_again(&self, tls: &mut Tls, now: Now) -> Result<(), Refusal> {
        let material = self.material.load();
        if tls.trusted.reading == material.reading && now.utc_ms <= tls.trusted.until_ms {
            return Ok(());
        }
        verify(&material, tls.peer_certificates().unwrap_or_default(), now)?;
        tls.trusted.reading = material.reading;
        Ok(())
    }
}

/// Holds a chain against what is in force.
fn verify(material: &Material, chain: &[CertificateDer<'_>], now: Now) -> Result<(), Refusal> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(Refusal::new("no_certificate", "the device sent no certificate"));
    };
    let at = UnixTime::since_unix_epoch(Duration::from_millis(now.utc_ms.max(0).cast_unsigned()));
    match material.verifier.verify_client_cert(leaf, intermediates, at) {
        Ok(_) => Ok(()),
        Err(error) => Err(Refusal::of_step(&error)),
    }
}

/// Explains the error of a handshake step that just ended on this thread.
#[must_use]
pub fn explain(error: &Error) -> Refusal {
    Refusal::of_step(error)
}
