//! `agent.toml` to a complete [`Config`]: nothing is left to be found out later, and every mistake is reported at once,
//! those in the certificate files too.

mod budget;
mod clock;
mod heartbeat;
mod modem;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use moorline_config::{Document, Mistakes, Section};
use moorline_protocol::Imei;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;

use crate::address::Address;
use crate::backoff::Limits;
use crate::credentials;
use crate::crypto::provider;
use crate::environment::Environment;
use crate::keepalive::Settings;
use crate::tls::MinVersion;
pub use clock::Clock;
pub use modem::{Modem, Reset};

/// Where the configuration is unless `-c` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/moorline/agent.toml";

/// Everything the agent is told, checked and with its defaults filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[identity]`.
    pub identity: Identity,
    /// `[modem]`.
    pub modem: Modem,
    /// `[heartbeat]`.
    pub heartbeat: Settings,
    /// `[reconnect]`.
    pub reconnect: Limits,
    /// `[budget]`.
    pub budget: crate::budget::Limits,
    /// `[clock]`.
    pub clock: Clock,
    /// `state.dir`.
    pub state_dir: PathBuf,
}

/// Whom to connect to.
#[derive(Clone, Debug)]
pub struct Server {
    /// Tried in turn; at least one.
    pub addresses: Vec<Address>,
    /// Where the roots came from, for people.
    pub trust: String,
    /// The roots that may have issued its certificate.
    pub roots: Arc<RootCertStore>,
    /// What to speak.
    pub protocol: Protocol,
    /// The oldest TLS version.
    pub min_version: MinVersion,
}

/// What to speak with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Native when the server can, else classic.
    Auto,
    /// Native or nothing.
    Native,
    /// Classic, without offering anything else.
    Classic,
}

/// Who the device is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Names the product or application.
    pub app_id: Uuid,
    /// Its certificate chain and key. `Debug` shows no key.
    pub certified_key: Arc<CertifiedKey>,
    /// The device's certificate file, for people.
    pub certificate: PathBuf,
    /// The key's file, for people.
    pub key: PathBuf,
    /// The IMEI, or `None` when the modem is to be asked.
    pub imei: Option<Imei>,
}

impl Config {
    /// Reads a file and all that it names.
    ///
    /// # Errors
    /// Every mistake found, each with file and key.
    pub fn read(file: &Path, environment: &Environment) -> Result<Self, Mistakes> {
        let document = Document::read(file)?;
        let root = document.root();
        let server = server(&root.section("server"));
        let identity = identity(&root.section("identity"), environment);
        let modem = Modem::of(&root.section("modem"));
        let heartbeat = heartbeat::heartbeat(&root.section("heartbeat"));
        let reconnect = reconnect(&root.section("reconnect"));
        let budget = budget::read(&root.section("budget"));
        let clock = clock::clock(&root.section("clock"));
        let state_dir = root.section("state").string("dir").map(PathBuf::from);
        document.finish()?;
        let (Some(server), Some(identity)) = (server, identity) else {
            // Each reader that gives nothing has noted why.
            return Err(Mistakes::new(file, "", "is not complete"));
        };
        let state_dir =
            state_dir.or_else(|| environment.state_dir.clone()).unwrap_or_else(|| STATE_DIR.into());
        Ok(Self { server, identity, modem, heartbeat, reconnect, budget, clock, state_dir })
    }

    /// Whether a session of `other` may stand on under this configuration.
    #[must_use]
    pub fn keeps_session_of(&self, other: &Self) -> bool {
        let (server, identity) = (&self.server, &self.identity);
        server.addresses == other.server.addresses
            && server.protocol == other.server.protocol
            && server.min_version == other.server.min_version
            && server.roots.roots == other.server.roots.roots
            && identity.app_id == other.identity.app_id
            && identity.imei == other.identity.imei
            // A key fits its certificate or is refused, so the certificates speak for both.
            && identity.certified_key.cert == other.identity.certified_key.cert
            && self.heartbeat == other.heartbeat
    }
}

fn server(section: &Section<'_>) -> Option<Server> {
    let addresses = addresses(section);
    let trust = section.string("trust").unwrap_or_else(|| TRUST.to_owned());
    let roots = if trust == "webpki" { public_roots() } else { credentials::roots(Path::new(&trust)) };
    let roots = roots.map_err(|fault| section.mistake("trust", fault)).ok();
    let protocols = [("auto", Protocol::Auto), ("native", Protocol::Native), ("classic", Protocol::Classic)];
    let protocol = section.choice("protocol", &protocols).unwrap_or(Protocol::Auto);
    let min_version = min_version(section);
    Some(Server { addresses: addresses?, trust, roots: Arc::new(roots?), protocol, min_version })
}

/// All addresses, each with the name that its certificate must bear.
fn addresses(section: &Section<'_>) -> Option<Vec<Address>> {
    let name = section.string("name").and_then(|name| match ServerName::try_from(name) {
        Ok(name) => Some(name),
        Err(_) => {
            section.mistake("name", "is neither a DNS name nor an IP address");
            None
        }
    });
    let texts = section.require("address").strings("address")?;
    if texts.len() > MAX_SERVERS {
        section.mistake("address", format!("holds more than {MAX_SERVERS} addresses"));
    }
    // Not `collect` at once: every address's mistake is wanted.
    let read: Vec<_> = texts
        .iter()
        .map(|text| {
            let mut address = Address::from_str(text)
                .map_err(|fault| section.mistake("address", format!("{text:?} is not an address: {fault}")))
                .ok()?;
            if let Some(name) = &name {
                address.name = name.clone();
            }
            Some(address)
        })
        .collect();
    read.into_iter().collect()
}

#[cfg(feature = "webpki-roots")]
#[expect(clippy::unnecessary_wraps, reason = "the twin without the feature refuses")]
fn public_roots() -> Result<RootCertStore, String> {
    Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
}

#[cfg(not(feature = "webpki-roots"))]
fn public_roots() -> Result<RootCertStore, String> {
    Err("this agent was built without the public roots: build it with the cargo feature webpki-roots, or name a PEM \
         bundle"
        .to_owned())
}

fn min_version(section: &Section<'_>) -> MinVersion {
    match section.choice("min_version", &[("1.3", true), ("1.2", false)]) {
        Some(true) | None => MinVersion::Tls13,
        #[cfg(feature = "tls12")]
        Some(false) => MinVersion::Tls12,
        #[cfg(not(feature = "tls12"))]
        Some(false) => {
            section.mistake(
                "min_version",
                "this agent was built without TLS 1.2: build it with the cargo feature tls12",
            );
            MinVersion::Tls13
        }
    }
}

fn identity(section: &Section<'_>, environment: &Environment) -> Option<Identity> {
    let app_id = section.parsed("app_id", "a UUID").unwrap_or_default();
    let certificate = PathBuf::from(section.string("certificate").unwrap_or_else(|| CERTIFICATE.to_owned()));
    let key = section.string("key").map_or_else(|| default_key(environment), PathBuf::from);
    let chain = credentials::chain(&certificate).map_err(|fault| section.mistake("certificate", fault)).ok();
    let private_key = credentials::private_key(&key).map_err(|fault| section.mistake("key", fault)).ok();
    let imei = imei(section);
    let certified_key = credentials::certified_key(chain?, private_key?, &provider())
        .map_err(|fault| section.mistake("key", format!("{}: {fault}", key.display())))
        .ok()?;
    Some(Identity { app_id, certified_key, certificate, key, imei })
}

/// systemd's credential when there is one: the key may then belong to root alone.
fn default_key(environment: &Environment) -> PathBuf {
    let credential = environment.credentials_dir.as_ref().map(|folder| folder.join(CREDENTIAL));
    credential.filter(|file| credentials::is_there(file)).unwrap_or_else(|| KEY.into())
}

fn imei(section: &Section<'_>) -> Option<Imei> {
    let text = section.string("imei")?;
    if text == "modem" {
        return None;
    }
    text.parse()
        .map_err(|fault| {
            section.mistake("imei", format!("{text:?} is neither \"modem\" nor an IMEI: {fault}"));
        })
        .ok()
}

fn reconnect(section: &Section<'_>) -> Limits {
    let range = Duration::from_millis(100)..=seconds(24 * 3600);
    let first = section.duration("first", range.clone()).unwrap_or(seconds(1));
    let max = section.duration("max", range).unwrap_or(seconds(600));
    if max < first {
        section.mistake("max", "is less than `first`");
    }
    let stable_after = section.duration("stable_after", seconds(1)..=seconds(24 * 3600));
    Limits { first, max, stable_after: stable_after.unwrap_or(seconds(300)) }
}

/// A UUID (RFC 9562), the nil one by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uuid(pub [u8; 16]);

impl FromStr for Uuid {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "it is written as 996da38d-a7be-4947-aa4c-f8208b5f4ade";
        let mut uuid = [0; 16];
        let mut digits = 0;
        for (index, c) in text.chars().enumerate() {
            if matches!(index, 8 | 13 | 18 | 23) {
                if c != '-' {
                    return Err(FORM);
                }
                continue;
            }
            let (digit, byte) = (c.to_digit(16).ok_or(FORM)?, uuid.get_mut(digits / 2).ok_or(FORM)?);
            *byte = *byte << 4 | digit as u8;
            digits += 1;
        }
        if digits == 32 { Ok(Self(uuid)) } else { Err(FORM) }
    }
}

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// More than this is a mistake: they are tried in turn, each with its deadlines.
const MAX_SERVERS: usize = 8;
const TRUST: &str = "/etc/moorline/ca.pem";
const CERTIFICATE: &str = "/etc/moorline/device.pem";
const KEY: &str = "/etc/moorline/device.key";
/// The key's name in `LoadCredential=`.
const CREDENTIAL: &str = "device.key";
const STATE_DIR: &str = "/var/lib/moorline-agent";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_both_ways() {
        let text = "996da38d-a7be-4947-aa4c-f8208b5f4ade";
        let uuid: Uuid = text.parse().unwrap();
        assert_eq!(uuid.to_string(), text);
        assert_eq!(uuid.0[..3], [0x99, 0x6d, 0xa3]);
        for wrong in
            ["", "996da38d", "996da38da7be4947aa4cf8208b5f4ade", &text[1..], &format!("{text}0"), "é"]
        {
            assert!(wrong.parse::<Uuid>().is_err(), "{wrong}");
        }
    }
}
