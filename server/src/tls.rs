//! TLS on the server: the configuration in force, its renewal, and what a finished handshake says about the device.

mod lists;
mod material;
mod open;
mod operators;
mod own;
mod provider;
mod pump;
mod records;
mod refusal;
mod resumption;
mod verifier;
mod watch;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use moorline_config::Mistakes;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{CertificateError, Error};

use crate::clock::Now;
use crate::expiry::Remaining;
use crate::identity::Certificate;
use crate::session::Dialect;
pub use lists::Revoked;
use material::Material;
pub use material::TlsSettings;
pub(crate) use material::certificates;
pub use open::Tls;
pub(crate) use operators::{OperatorsTls, operator_config};
pub use provider::provider;
use pump::Trusted;
pub use pump::{Progress, Pump, first_record};
pub use refusal::Refusal;
use resumption::Sessions;
use watch::{Sight, Watch};

/// The configuration in force. Sessions that stand keep the one they began with.
pub struct TlsSource {
    material: ArcSwap<Material>,
    /// The watch over the revocation lists' file, held by whoever puts something else in force.
    lists: Mutex<Watch>,
    /// Outlives every reload, so that a fleet resumes after one.
    sessions: Arc<Sessions>,
}

/// Reads everything that `settings` name, and tells what is right and yet worth a warning.
///
/// # Errors
/// All mistakes that were found.
pub fn check(settings: &TlsSettings, now: Now) -> Result<Vec<String>, Mistakes> {
    let no_sessions = Arc::new(Sessions::new(0, Arc::new(DefaultTimeProvider)));
    Material::load(settings, &no_sessions).map(|material| material.warnings(now))
}

/// What a look at the revocation lists' file led to.
#[derive(Debug)]
pub enum Look {
    /// Nothing: it is the one that was read.
    Same,
    /// Its lists are in force now; what is right with them, and worth a warning.
    Taken(Vec<String>),
    /// It is of no use, and what was in force stays.
    Refused(Mistakes),
}

fn sight(lists: Option<&Path>) -> Sight {
    lists.map_or(Sight::None(ErrorKind::NotFound), Sight::of)
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
        // Looked at before it is read: what is changed in between is seen.
        let lists = Mutex::new(Watch::new(sight(settings.crl.as_deref())));
        let material = ArcSwap::from_pointee(Material::load(settings, &sessions)?);
        Ok(Self { material, lists, sessions })
    }

    /// Reads everything anew.
    ///
    /// # Errors
    /// All mistakes that were found; what was in force stays.
    pub fn reload(&self, settings: &TlsSettings, now: Now) -> Result<(), Mistakes> {
        let mut watch = self.watch();
        let seen = sight(settings.crl.as_deref());
        let newer = Material::load(settings, &self.sessions)?.follow(&self.material.load(), now)?;
        *watch = Watch::new(seen);
        self.material.store(Arc::new(newer));
        Ok(())
    }

    /// Looks whether the revocation lists' file is another one, and takes its lists then. It costs next to nothing until
    /// there is one; to be called every second, for a change is taken in after the second look that finds it.
    pub fn look_at_lists(&self, now: Now) -> Look {
        let mut watch = self.watch();
        let material = self.material.load();
        if !watch.look(sight(material.lists_file())) {
            return Look::Same;
        }
        match material.with_new_lists(&self.sessions, now) {
            Ok(newer) => {
                let warnings = newer.warnings(now);
                self.material.store(Arc::new(newer));
                Look::Taken(warnings)
            }
            Err(mistakes) => Look::Refused(mistakes),
        }
    }

    /// How many sessions a device may resume.
    #[must_use]
    pub fn sessions_kept(&self) -> usize {
        self.sessions.len()
    }

    /// Which reading of the files is in force: another number after each.
    #[must_use]
    pub fn reading(&self) -> u64 {
        self.material.load().reading
    }

    /// What is in force and should not be, or not for long.
    #[must_use]
    pub fn warnings(&self, now: Now) -> Vec<String> {
        self.material.load().warnings(now)
    }

    /// How urgent it is to do something about the server's certificate and about each list: a step that rises is worth the
    /// [`Self::warnings`].
    #[must_use]
    pub fn urgency(&self, now: Now) -> Vec<Remaining> {
        self.material.load().urgency(now)
    }

    /// When the server's certificate ends, and when the first of the lists in force is due, UTC milliseconds since 1970.
    #[must_use]
    pub fn ends(&self) -> (i64, Option<i64>) {
        self.material.load().ends()
    }

    /// Whom the lists in force revoke.
    #[must_use]
    pub fn revoked(&self) -> Revoked {
        self.material.load().lists.revoked()
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection, which waits for its ClientHello.
    ///
    /// # Errors
    /// rustls finds its configuration unusable, which loading it rules out.
    pub fn accept(&self) -> Result<Pump, Error> {
        let material = self.material.load();
        Pump::new(Arc::clone(&material.config), material.reading)
    }

    /// Judges a device whose handshake is over. A resumed handshake asked no verifier, so the chain it began with is
    /// verified against what is in force now, unless that is what verified it then: since that was read anew the certificate
    /// may have been revoked. It costs a third of a resumed handshake.
    ///
    /// # Errors
    /// Why the device is refused.
    pub fn judge(&self, tls: &mut Pump, now: Now) -> Result<Device, Refusal> {
        let chain = tls.peer_certificates().unwrap_or_default();
        let Some(leaf) = chain.first() else {
            return Err(Refusal::new("no_certificate", "the device sent no certificate"));
        };
        let certificate = Certificate::read(leaf)
            .map_err(|fault| Refusal::of_certificate(&CertificateError::BadEncoding, Err(fault)))?;
        let material = self.material.load();
        let is_trusted = if tls.is_resumed() {
            tls.verifier() == Some(material.verifier.id) && now.utc_ms <= certificate.not_after_ms
        } else {
            tls.trusted.reading == material.reading
        };
        if !is_trusted {
            verify(&material, chain, now)?;
        }
        tls.trusted = Trusted { reading: material.reading, until_ms: certificate.not_after_ms };
        Ok(Device { dialect: tls.dialect(), certificate, version: tls.version(), resumed: tls.is_resumed() })
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
        verify(&material, &tls.chain, now)?;
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
