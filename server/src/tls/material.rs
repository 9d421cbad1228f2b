//! Reads what `[tls]` names and makes rustls's configuration of it. Every mistake is reported, not only the first.

use std::fs;
use std::io::BufReader;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moorline_config::Mistakes;
use moorline_protocol::ALPN;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pemfile::Item;

use super::lists::Lists;
use super::own;
use super::provider::provider;
use super::resumption::Sessions;
use super::verifier::ClientVerifier;
use crate::clock::Now;
use crate::expiry::{Remaining, day, ends_on};
use crate::identity::{Certificate, Unreadable};

/// What `[tls]` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The file that these settings come from: mistakes are reported under its name.
    pub file: PathBuf,
    /// The server's chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs devices' certificates.
    pub client_ca: PathBuf,
    /// The revocation lists.
    pub crl: Option<PathBuf>,
    /// Whether TLS 1.2 is admitted beside 1.3.
    pub admit_tls12: bool,
    /// How many sessions can be resumed: about 1.6 KB each, the client certificate inside; the oldest go first.
    pub resumable: usize,
}

/// What one reading of the files gave.
pub(super) struct Material {
    pub(super) config: Arc<ServerConfig>,
    pub(super) verifier: Arc<ClientVerifier>,
    /// Counts readings, so that a session knows whether its device was held against this one.
    pub(super) reading: u64,
    pub(super) lists: Lists,
    settings: TlsSettings,
    own: Arc<CertifiedKey>,
    authorities: Arc<[CertificateDer<'static>]>,
}

/// How long something is good for that is used all the same when it is not.
struct Validity {
    what: String,
    from_ms: i64,
    until_ms: i64,
    then: &'static str,
    /// Whether its end is worth a word before it comes. A list is made for weeks or days, and renewed.
    early: bool,
}

impl Material {
    /// Reads all files anew. `sessions` outlives this reading, so that devices resume after a reload.
    pub(super) fn load(settings: &TlsSettings, sessions: &Arc<Sessions>) -> Result<Self, Mistakes> {
        let mut notes = Notes { file: &settings.file, mistakes: None };
        let provider = Arc::new(provider());
        let chain = notes.take("tls.certificate", own_chain(&settings.certificate));
        let key = notes.take("tls.key", private_key(&settings.key));
        let authorities = notes.authorities(&settings.client_ca);
        let read = authorities.as_deref().map(|authorities| read_lists(settings, authorities, &provider));
        let lists = read.and_then(|lists| notes.take("tls.crl", lists));
        let own = chain.zip(key).and_then(|(chain, key)| {
            let own = CertifiedKey::from_der(chain, key, &provider);
            notes.take("tls.key", own.map_err(|fault| key_words(&fault, settings)))
        });
        let made = match (own, authorities, lists) {
            (Some(own), Some(authorities), Some(lists)) => {
                let made =
                    Self::assemble(settings, Arc::new(own), authorities.into(), lists, sessions, provider);
                notes.take("tls.crl", made)
            }
            _ => None,
        };
        notes.finish(made)
    }

    /// The same with the revocation lists that the file holds now, and nothing else read anew.
    pub(super) fn with_new_lists(&self, sessions: &Arc<Sessions>, now: Now) -> Result<Self, Mistakes> {
        let settings = &self.settings;
        let provider = Arc::new(provider());
        let renewed = read_lists(settings, &self.authorities, &provider).and_then(|lists| {
            let (own, authorities) = (Arc::clone(&self.own), Arc::clone(&self.authorities));
            Self::assemble(settings, own, authorities, lists, sessions, provider)
        });
        renewed.map_err(|text| Mistakes::new(&settings.file, "tls.crl", text))?.follow(self, now)
    }

    /// Whether this may take the place of what is in force, without admitting whom that keeps out.
    pub(super) fn follow(self, in_force: &Self, now: Now) -> Result<Self, Mistakes> {
        // Whoever takes the key out of the configuration, or names another file there, means it.
        if let Some(path) = self.lists_file()
            && in_force.lists_file() == Some(path)
            && let Err(text) = self.lists.may_replace(&in_force.lists, &self.authorities, now.utc_ms)
        {
            let text = format!("{}: {text}; a restart takes it all the same", path.display());
            return Err(Mistakes::new(&self.settings.file, "tls.crl", text));
        }
        Ok(Self { reading: in_force.reading + 1, ..self })
    }

    /// The file of the revocation lists.
    pub(super) fn lists_file(&self) -> Option<&Path> {
        self.settings.crl.as_deref()
    }

    fn assemble(
        settings: &TlsSettings,
        own: Arc<CertifiedKey>,
        authorities: Arc<[CertificateDer<'static>]>,
        lists: Lists,
        sessions: &Arc<Sessions>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let verifier = ClientVerifier::new(&authorities, &lists, &provider).map_err(|fault| {
            let path = settings.crl.as_deref().unwrap_or(&settings.client_ca).display();
            format!("{path} cannot be used: {fault}")
        })?;
        let verifier = Arc::new(verifier);
        let config = server_config(settings, &own, &verifier, sessions, provider)?;
        let settings = settings.clone();
        Ok(Self { config: Arc::new(config), verifier, reading: 0, lists, settings, own, authorities })
    }

    /// What is used all the same, and should not be.
    pub(super) fn warnings(&self, now: Now) -> Vec<String> {
        let doubtful = |validity: Validity| {
            let Validity { what, from_ms, until_ms, then, early } = validity;
            let fault = match Remaining::at(now.utc_ms, until_ms) {
                Remaining::Nothing => format!("expired on {}", day(until_ms)),
                _ if now.utc_ms < from_ms => format!("is not valid before {}", day(from_ms)),
                Remaining::Month | Remaining::Week if early => ends_on(now.utc_ms, until_ms),
                _ => return None,
            };
            Some(format!("{what} {fault}: {then}"))
        };
        let own = self.own.cert.first();
        let doubts = own.map(own::doubts).into_iter().flatten();
        let of_own =
            |doubt| format!("the server's certificate in {} {doubt}", self.settings.certificate.display());
        let strangers = self.lists.iter().filter(|list| list.signer.is_none()).map(|list| {
            format!(
                "the revocation list of {:?} is of no CA in {}: it holds only for devices that send that CA's \
                 certificate with theirs",
                list.issuer,
                self.settings.client_ca.display()
            )
        });
        let passed_over = self.lists.passed_over.iter().map(|issuer| {
            let client_ca = self.settings.client_ca.display();
            format!("a revocation list of {issuer:?} was signed by no CA in {client_ca}: it is passed over")
        });
        let of_lists = strangers.chain(passed_over);
        self.validity().filter_map(doubtful).chain(doubts.map(of_own)).chain(of_lists).collect()
    }

    /// How urgent it is to do something about each: the server's certificate, then the lists.
    pub(super) fn urgency(&self, now: Now) -> Vec<Remaining> {
        let step = |one: Validity| match Remaining::at(now.utc_ms, one.until_ms) {
            Remaining::Month | Remaining::Week if !one.early => Remaining::Later,
            step => step,
        };
        self.validity().map(step).collect()
    }

    /// When the server's certificate ends, and when the first of the lists is due.
    pub(super) fn ends(&self) -> (i64, Option<i64>) {
        let own = self.validity().find(|one| one.early).map_or(i64::MAX, |own| own.until_ms);
        (own, self.lists.iter().map(|list| list.until_ms).min())
    }

    fn validity(&self) -> impl Iterator<Item = Validity> {
        let own = self.own.cert.first().and_then(|leaf| Certificate::read(leaf).ok()).map(|leaf| Validity {
            what: format!("the server's certificate in {}", self.settings.certificate.display()),
            from_ms: leaf.not_before_ms,
            until_ms: leaf.not_after_ms,
            then: "devices whose clock is right refuse one that has expired",
            early: true,
        });
        let lists = self.lists.iter().map(|list| Validity {
            what: format!("the revocation list of {:?}", list.issuer),
            from_ms: list.from_ms,
            until_ms: list.until_ms,
            then: "it is used all the same, and knows nothing of what was revoked since",
            early: false,
        });
        own.into_iter().chain(lists)
    }
}

/// Mistakes as they are found.
struct Notes<'f> {
    file: &'f Path,
    mistakes: Option<Mistakes>,
}

impl Notes<'_> {
    fn add(&mut self, key: &str, text: impl Into<String>) {
        match &mut self.mistakes {
            Some(mistakes) => mistakes.add(self.file, key, text),
            None => self.mistakes = Some(Mistakes::new(self.file, key, text)),
        }
    }

    fn take<T>(&mut self, key: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|text| self.add(key, text)).ok()
    }

    /// The CA bundle; each bad certificate among good ones is named.
    fn authorities(&mut self, path: &Path) -> Option<Vec<CertificateDer<'static>>> {
        let certificates = self.take("tls.client_ca", certificates(path))?;
        let mut all_good = true;
        for (index, certificate) in certificates.iter().enumerate() {
            if let Err(fault) = RootCertStore::empty().add(certificate.clone()) {
                let which = index + 1;
                self.add(
                    "tls.client_ca",
                    format!(
                        "{}: certificate {which} of the bundle is no CA certificate: {fault}",
                        path.display()
                    ),
                );
                all_good = false;
            }
        }
        all_good.then_some(certificates)
    }

    fn finish<T>(self, made: Option<T>) -> Result<T, Mistakes> {
        match (self.mistakes, made) {
            (None, Some(made)) => Ok(made),
            (Some(mistakes), _) => Err(mistakes),
            (None, None) => Err(Mistakes::new(self.file, "tls", "cannot be used")),
        }
    }
}

fn server_config(
    settings: &TlsSettings,
    own: &Arc<CertifiedKey>,
    verifier: &Arc<ClientVerifier>,
    sessions: &Arc<Sessions>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, String> {
    let versions: &[&rustls::SupportedProtocolVersion] = if settings.admit_tls12 {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    } else {
        &[&rustls::version::TLS13]
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|fault| fault.to_string())?
        .with_client_cert_verifier(Arc::<ClientVerifier>::clone(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(own))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::<Sessions>::clone(sessions);
    config.time_provider = sessions.clock();
    // One ticket is what one reconnect takes; it comes with its successor.
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    // For `records`, which goes on where the handshake ends.
    config.enable_secret_extraction = true;
    Ok(config)
}

fn key_words(fault: &Error, settings: &TlsSettings) -> String {
    match fault {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "{} is not the key of the certificate in {}",
            settings.key.display(),
            settings.certificate.display()
        ),
        other => format!("certificate and key cannot be used: {other}"),
    }
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = pem(path)?
        .into_iter()
        .filter_map(|item| match item {
            Item::X509Certificate(der) => Some(der),
            _ => None,
        })
        .collect();
    if found.is_empty() { Err(format!("{} holds no certificate in PEM", path.display())) } else { Ok(found) }
}

/// The server's chain, leaf first.
pub(super) fn own_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = certificates(path)?;
    let leaf = chain.first().map(|leaf| Certificate::read(leaf));
    match leaf {
        Some(Err(Unreadable::Version1(_))) => Err(format!(
            "{} is X.509 v1, which no device accepts; issue it as v3 with a subjectAltName",
            path.display()
        )),
        Some(Err(Unreadable::NotX509)) => {
            Err(format!("{}: certificate 1 cannot be read as X.509", path.display()))
        }
        Some(Ok(_)) | None => Ok(chain),
    }
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let mode = fs::metadata(path).map_err(|fault| unreadable(path, &fault))?.mode();
    if mode & 0o007 != 0 {
        return Err(format!(
            "{0} is open to every user (mode {1:04o}): chmod 600 {0}",
            path.display(),
            mode & 0o7777
        ));
    }
    let key = pem(path)?.into_iter().find_map(|item| match item {
        Item::Pkcs8Key(key) => Some(PrivateKeyDer::Pkcs8(key)),
        Item::Sec1Key(key) => Some(PrivateKeyDer::Sec1(key)),
        Item::Pkcs1Key(key) => Some(PrivateKeyDer::Pkcs1(key)),
        _ => None,
    });
    key.ok_or_else(|| format!("{} holds no private key in PEM", path.display()))
}

fn read_lists(
    settings: &TlsSettings,
    authorities: &[CertificateDer<'static>],
    provider: &CryptoProvider,
) -> Result<Lists, String> {
    let Some(path) = &settings.crl else { return Ok(Lists::default()) };
    Lists::new(path, revocation_lists(path)?, authorities, &provider.signature_verification_algorithms)
}

pub(super) fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let found: Vec<_> = pem(path)?
        .into_iter()
        .filter_map(|item| match item {
            Item::Crl(der) => Some(der),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        Err(format!("{} holds no revocation list in PEM", path.display()))
    } else {
        Ok(found)
    }
}

/// The server's one reading of PEM.
fn pem(path: &Path) -> Result<Vec<Item>, String> {
    let file = fs::File::open(path).map_err(|fault| unreadable(path, &fault))?;
    let mut file = BufReader::new(file);
    let items = rustls_pemfile::read_all(&mut file).enumerate();
    items
        .map(|(index, item)| {
            item.map_err(|fault| format!("{}: section {} is not PEM: {fault}", path.display(), index + 1))
        })
        .collect()
}

fn unreadable(path: &Path, fault: &std::io::Error) -> String {
    format!("{} cannot be read: {fault}", path.display())
}
