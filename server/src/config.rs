//! server.toml: what stands there, complete and checked. Every mistake is reported at once, those in the files that it
//! names too.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use jiff::tz::TimeZone;
use moorline_config::{Document, HumanDuration, Mistakes, Section};

use crate::access::Access;
use crate::clock;
use crate::cluster::ClusterSettings;
use crate::log::Format;
use crate::proxy::Networks;
use crate::session::{Binding, LEAST, LONGEST, Policy};
use crate::store::Retention;
use crate::tls::{self, TlsSettings};
use crate::webhook::WebhookSettings;

/// Where the configuration is when the command line names none.
pub const DEFAULT_FILE: &str = "/etc/moorline/server.toml";

/// The first message of a session has to come this soon after the handshake.
const FIRST_MESSAGE: Duration = Duration::from_secs(30);
/// What fits into an address of a Unix socket (unix(7)).
const LONGEST_SOCKET: usize = 107;
/// About 15 MB when it is full. A fleet that is larger than this sets `tls.sessions` to its size.
const RESUMABLE: usize = 16_384;

/// From a day, which the page's charts show, to ten years.
const HISTORY: RangeInclusive<Duration> =
    Duration::from_secs(24 * 60 * 60)..=Duration::from_secs(3653 * 24 * 60 * 60);

/// All that the server is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was read.
    pub file: PathBuf,
    /// Where devices connect, unless systemd hands the socket over.
    pub devices: SocketAddr,
    /// The load balancers' networks, whose PROXY protocol is believed.
    pub proxies: Networks,
    /// Where operators connect over TCP; `None`: nowhere.
    pub operators: Option<SocketAddr>,
    /// The Unix socket where they connect, if there is one.
    pub operators_socket: Option<PathBuf>,
    /// Who of them is let in.
    pub access: Access,
    /// Certificates and what TLS admits.
    pub tls: TlsSettings,
    /// How many handshakes may be in their cryptography at once.
    pub handshakes: usize,
    /// Who is taken in.
    pub register: Register,
    /// How sessions are.
    pub policy: Policy,
    /// The fleet's database.
    pub store: PathBuf,
    /// How much it keeps.
    pub retention: Retention,
    /// Where events are posted to, if anywhere.
    pub webhook: Option<WebhookSettings>,
    /// What several servers share the fleet by; `None`: this is the only one.
    pub cluster: Option<ClusterSettings>,
    /// How the log's lines look.
    pub log: Format,
    /// What is right, and yet worth a warning.
    pub warnings: Vec<String>,
}

/// Which devices are taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Any whose certificate the CA signed.
    Open,
    /// Only devices that the store knows: that were taken in before, while it was open, or that an operator added.
    Known,
}

impl Config {
    /// Reads `file` and looks into the files that it names. `credentials` is systemd's credentials folder, where there is
    /// one.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn read(file: &Path, credentials: Option<&Path>) -> Result<Self, Mistakes> {
        let document = Document::read(file)?;
        let (mut config, tls_is_right) = read_document(&document, file, credentials);
        let found = document.finish();
        // What a mistaken key should have named cannot be looked into.
        let material = if tls_is_right { tls::check(&config.tls, clock::now()) } else { Ok(Vec::new()) };
        match (found, material) {
            (Ok(()), Ok(warnings)) => {
                config.warnings.extend(warnings);
                Ok(config)
            }
            (Err(mistakes), Ok(_)) | (Ok(()), Err(mistakes)) => Err(mistakes),
            (Err(mut mistakes), Err(more)) => {
                mistakes.extend(more);
                Err(mistakes)
            }
        }
    }

    /// Names what a running server cannot take from `newer` without a restart.
    #[must_use]
    pub fn needs_restart(&self, newer: &Self) -> Vec<&'static str> {
        let changed = [
            ("listen.devices", self.devices != newer.devices),
            ("listen.proxy_from", self.proxies != newer.proxies),
            ("listen.operators", self.operators != newer.operators),
            ("listen.operators_socket", self.operators_socket != newer.operators_socket),
            ("tls.sessions", self.tls.resumable != newer.tls.resumable),
            ("tls.handshakes", self.handshakes != newer.handshakes),
            ("store.path", self.store != newer.store),
            ("store.events", self.retention.sessions != newer.retention.sessions),
            ("store.history", self.retention.history != newer.retention.history),
            ("log.format", self.log != newer.log),
            ("webhook", self.webhook != newer.webhook),
            ("cluster", self.cluster != newer.cluster),
        ];
        changed.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
    }
}

/// Asks for every key there is. A mistake gets the default in its place and is noted in the document; the flag says
/// whether `[tls]` is as its author meant it.
fn read_document(document: &Document, file: &Path, credentials: Option<&Path>) -> (Config, bool) {
    let root = document.root();
    let (listen, store) = (root.section("listen"), root.section("store"));
    let tls = root.section("tls");
    let (settings, tls_is_right) = read_tls(&tls, file, credentials);
    let register =
        root.section("identity").choice("register", &[("open", Register::Open), ("known", Register::Known)]);
    let proxies = read_networks(&listen, "proxy_from");
    let database = path(&store, "path").unwrap_or_else(|| "/var/lib/moorline-server/fleet.db".into());
    let webhook = WebhookSettings::read(&root.section("webhook"), credentials, &database);
    let exposing = webhook.as_ref().and_then(WebhookSettings::warning);
    let cluster = ClusterSettings::read(&root.section("cluster"));
    let plain = cluster.as_ref().and_then(ClusterSettings::warning);
    let log = root.section("log").choice("format", &[("text", Format::Text), ("json", Format::Json)]);
    let (operators, operators_socket) = read_operators(&listen);
    let access =
        Access::read(&root.section("operators"), &listen, operators, credentials, &settings.client_ca);
    let config = Config {
        file: file.to_owned(),
        devices: address(&listen, "devices").unwrap_or_else(|| (Ipv6Addr::UNSPECIFIED, 9089).into()),
        warnings: access
            .warning(operators)
            .into_iter()
            .chain(everybody(&proxies))
            .chain(exposing)
            .chain(plain)
            .collect(),
        proxies,
        operators,
        operators_socket,
        access,
        tls: settings,
        handshakes: count(&tls, "handshakes", 1..=1024).unwrap_or_else(cores),
        register: register.unwrap_or(Register::Open),
        policy: read_policy(&root.section("identity"), &root.section("session")),
        retention: read_retention(&store),
        store: database,
        webhook,
        cluster,
        log: log.unwrap_or(Format::Text),
    };
    (config, tls_is_right)
}

fn read_tls(tls: &Section<'_>, file: &Path, credentials: Option<&Path>) -> (TlsSettings, bool) {
    let named = ["certificate", "key", "client_ca", "crl"].map(|key| (tls.contains(key), path(tls, key)));
    let right = named.iter().all(|(there, path)| *there == path.is_some());
    let [certificate, key, client_ca, crl] = named.map(|(_, path)| path);
    let credential = credentials.map(|folder| folder.join("server.key")).filter(|key| key.exists());
    let min_version = tls.choice("min_version", &[("1.3", false), ("1.2", true)]);
    let settings = TlsSettings {
        file: file.to_owned(),
        certificate: certificate.unwrap_or_else(|| "/etc/moorline/server.pem".into()),
        key: key.or(credential).unwrap_or_else(|| "/etc/moorline/server.key".into()),
        client_ca: client_ca.unwrap_or_else(|| "/etc/moorline/ca.pem".into()),
        crl,
        admit_tls12: min_version.unwrap_or(false),
        resumable: count(tls, "sessions", 0..=10_000_000).unwrap_or(RESUMABLE),
    };
    (settings, right)
}

fn read_retention(store: &Section<'_>) -> Retention {
    let default = Retention::default();
    let events = store.integer("events", 1000..=100_000_000).and_then(|events| u64::try_from(events).ok());
    let history = store.duration("history", HISTORY);
    Retention {
        sessions: events.unwrap_or(default.sessions),
        history: history.unwrap_or(default.history),
        ..default
    }
}

fn read_policy(identity: &Section<'_>, session: &Section<'_>) -> Policy {
    let words = [("required", Binding::Required), ("if-present", Binding::IfPresent), ("off", Binding::Off)];
    let duration = |key, default| session.duration(key, LEAST..=LONGEST).unwrap_or(default);
    let policy = Policy {
        binding: identity.choice("binding", &words).unwrap_or(Binding::Required),
        heartbeat_min: duration("heartbeat_min", Duration::from_secs(10)),
        heartbeat_max: duration("heartbeat_max", Duration::from_secs(30 * 60)),
        classic_idle: duration("classic_idle", Duration::from_secs(90)),
        first_message: FIRST_MESSAGE,
        spread: duration("spread", Duration::from_secs(5)),
        time_zone: TimeZone::system(),
    };
    if policy.heartbeat_min > policy.heartbeat_max {
        let key = if session.contains("heartbeat_min") { "heartbeat_min" } else { "heartbeat_max" };
        session.mistake(
            key,
            format!(
                "heartbeat_min is {}, which is more than heartbeat_max, {}",
                HumanDuration(policy.heartbeat_min),
                HumanDuration(policy.heartbeat_max)
            ),
        );
    }
    policy
}

/// An address, a Unix socket, or both.
fn read_operators(listen: &Section<'_>) -> (Option<SocketAddr>, Option<PathBuf>) {
    let socket = path(listen, "operators_socket");
    if let Some(path) = &socket
        && !(path.is_absolute() && path.as_os_str().len() <= LONGEST_SOCKET)
    {
        let text = format!("is not an absolute path of at most {LONGEST_SOCKET} bytes");
        listen.mistake("operators_socket", format!("\"{}\" {text}", path.display()));
    }
    if listen.says("operators", "off") {
        // It is known now.
        let _ = listen.string("operators");
        if !listen.contains("operators_socket") {
            listen.mistake(
                "operators",
                "is \"off\", and there is no operators_socket: nobody could ask this server",
            );
        }
        return (None, socket);
    }
    let default = (Ipv4Addr::LOCALHOST, 9090).into();
    (Some(address(listen, "operators").unwrap_or(default)), socket)
}

fn address(section: &Section<'_>, key: &str) -> Option<SocketAddr> {
    section.parsed(key, "an IP address with a port, as in \"[::]:9089\" or \"127.0.0.1:9090\"")
}

fn read_networks(section: &Section<'_>, key: &str) -> Networks {
    let read = Networks::read(&section.strings(key).unwrap_or_default());
    read.unwrap_or_else(|faults| {
        for (text, fault) in faults {
            section.mistake(key, format!("{text:?} {fault}"));
        }
        Networks::default()
    })
}

/// Whoever is believed can be anybody.
fn everybody(proxies: &Networks) -> Option<String> {
    let text =
        format!("listen.proxy_from is {proxies}: whoever connects may say that it comes from anywhere");
    proxies.are_everything().then_some(text)
}

fn path(section: &Section<'_>, key: &str) -> Option<PathBuf> {
    section.string(key).map(PathBuf::from)
}

fn count(section: &Section<'_>, key: &str, range: RangeInclusive<i64>) -> Option<usize> {
    section.integer(key, range).and_then(|number| usize::try_from(number).ok())
}

/// How many processors this program may use.
pub(crate) fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// What `check` says about a configuration that is right.
#[must_use]
pub fn describe(config: &Config) -> String {
    let tls = &config.tls;
    let crl = tls.crl.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    format!(
        "{file} is right.\n\
         devices connect to {devices} over TLS {versions}\n\
         operators are let in {operators}\n\
         certificate {certificate}, key {key}\n\
         {balancers}devices' certificates come from {ca}, revocation list: {crl}\n\
         devices are known in {known}{events}",
        file = config.file.display(),
        devices = config.devices,
        versions = if tls.admit_tls12 { "1.3 and 1.2" } else { "1.3" },
        balancers = if config.proxies.is_empty() {
            String::new()
        } else {
            format!("load balancers in {} say where devices come from (PROXY protocol 2)\n", config.proxies)
        },
        events = config
            .webhook
            .as_ref()
            .map_or_else(String::new, |webhook| format!("\nevents are posted to {}", webhook.shown())),
        operators = describe_operators(config),
        certificate = tls.certificate.display(),
        key = tls.key.display(),
        ca = tls.client_ca.display(),
        known = describe_store(config),
    )
}

fn describe_store(config: &Config) -> String {
    if let Some(cluster) = &config.cluster {
        return format!("NATS at {}, where this is node {}", cluster.shown(), cluster.node());
    }
    let state = if fs::exists(&config.store).unwrap_or(false) { "" } else { ", which is made at the start" };
    format!("{}{state}", config.store.display())
}

fn describe_operators(config: &Config) -> String {
    let access = &config.access;
    let address =
        config.operators.map(|address| format!("at {}://{address} {}", access.scheme(), access.asks()));
    let socket = config.operators_socket.as_ref();
    let socket = socket.map(|path| format!("at unix:{} as the file's permissions say", path.display()));
    address.into_iter().chain(socket).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Config, Vec<String>) {
        let file = Path::new("server.toml");
        let document = Document::parse(file, text).unwrap();
        let (config, _) = read_document(&document, file, None);
        let mistakes = document.finish().err().into_iter().flatten();
        (config, mistakes.map(|mistake| mistake.to_string()).collect())
    }

    #[test]
    fn empty_file_is_a_configuration() {
        let (config, mistakes) = read("");
        assert_eq!(mistakes, Vec::<String>::new());
        assert_eq!(config.devices.to_string(), "[::]:9089");
        assert_eq!(config.operators.map(|address| address.to_string()).as_deref(), Some("127.0.0.1:9090"));
        assert_eq!(config.operators_socket, None);
        assert_eq!(config.policy.binding, Binding::Required);
        assert_eq!(config.tls.key, Path::new("/etc/moorline/server.key"));
        assert!(!config.tls.admit_tls12);
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let (_, mistakes) = read(
            "[listen]\ndevices = \"9089\"\noperators = \"127.0.0.1:99999\"\n[tls]\nsessions = -1\nmin_version = \"1.1\"\n\
             [identity]\nbinding = \"maybe\"\n[session]\nclassic_idle = 90\nheartbeat_mim = \"5s\"\n[sotre]\npath = \"x\"\n",
        );
        let wanted = [
            "2: listen.devices: ",
            "3: listen.operators: ",
            "5: tls.sessions: ",
            "6: tls.min_version: ",
            "8: identity.binding: ",
            "10: session.classic_idle: ",
            "11: session.heartbeat_mim: ",
            "12: sotre: ",
        ];
        assert_eq!(mistakes.len(), wanted.len(), "{mistakes:#?}");
        for (mistake, wanted) in mistakes.iter().zip(wanted) {
            assert!(mistake.starts_with(&format!("server.toml:{wanted}")), "{mistake}");
        }
    }

    #[test]
    fn heartbeat_bounds_may_not_cross() {
        let (_, mistakes) = read("[session]\nheartbeat_min = \"2h\"\n");
        assert_eq!(
            mistakes,
            [
                "server.toml:2: session.heartbeat_min: heartbeat_min is 2h, which is more than heartbeat_max, 30m"
            ]
        );
    }

    #[test]
    fn networks_are_read_and_their_mistakes_told() {
        let (config, mistakes) = read("[listen]\nproxy_from = [\"10.0.0.0/8\", \"fd00::1\"]\n");
        assert_eq!((config.proxies.to_string().as_str(), mistakes.len()), ("10.0.0.0/8, fd00::1/128", 0));
        let (_, mistakes) = read("[listen]\nproxy_from = [\"10.0.0.1/8\", \"balancer\"]\n");
        assert_eq!(
            mistakes,
            [
                "server.toml:2: listen.proxy_from: \"10.0.0.1/8\" lies inside its network, which is 10.0.0.0/8",
                "server.toml:2: listen.proxy_from: \"balancer\" is no network, as in \"10.0.0.0/8\" or \"2001:db8::1\"",
            ]
        );
        let (config, _) = read("[listen]\nproxy_from = \"0.0.0.0/0\"\n");
        assert_eq!(config.warnings.len(), 1);
    }

    #[test]
    fn operators_need_some_way_in() {
        let socket = "operators_socket = \"/run/moorline-server/operators.sock\"\n";
        let (config, mistakes) = read(&format!("[listen]\n{socket}"));
        assert_eq!(
            (mistakes.len(), config.operators.is_some(), config.operators_socket.is_some()),
            (0, true, true)
        );
        let (config, mistakes) = read(&format!("[listen]\noperators = \"off\"\n{socket}"));
        assert_eq!((mistakes.len(), config.operators, config.operators_socket.is_some()), (0, None, true));
        for (text, wanted) in [
            ("operators = \"off\"", "operators: is \"off\", and there is no operators_socket"),
            (
                "operators_socket = \"run/s\"",
                "operators_socket: \"run/s\" is not an absolute path of at most 107",
            ),
            (
                &format!("operators_socket = \"/{}\"", "x".repeat(107)),
                "is not an absolute path of at most 107 bytes",
            ),
        ] {
            let (_, mistakes) = read(&format!("[listen]\n{text}\n"));
            assert!(mistakes.len() == 1 && mistakes[0].contains(wanted), "{mistakes:?}");
        }
    }

    #[test]
    fn mistaken_path_is_not_looked_into() {
        let document = Document::parse(Path::new("server.toml"), "[tls]\nkey = 7\n").unwrap();
        assert!(!read_document(&document, Path::new("server.toml"), None).1);
        assert_eq!(document.finish().unwrap_err().into_iter().count(), 1);
    }

    #[test]
    fn what_cannot_change_in_a_running_server_is_named() {
        let (old, _) = read("");
        let (new, _) = read("[listen]\noperators = \"127.0.0.1:1\"\n[session]\nclassic_idle = \"1m\"\n");
        assert_eq!(old.needs_restart(&new), ["listen.operators"]);
    }
}
