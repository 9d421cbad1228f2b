//! Files that people write, and those that the agent left on a disk which may have been damaged since.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use moorline_agent::budget::{Limits, Spent};
use moorline_agent::clock;
use moorline_agent::config::Config as AgentConfig;
use moorline_agent::environment::Environment;
use moorline_agent::floor::{BUILT, FloorFile};
use moorline_agent::keepalive::networks::{Network, Networks};
use moorline_agent::ledger::Ledger;
use moorline_agent::modem::identity::IdentityFile;
use moorline_config::{BadLine, MAX_FILE, Mistakes, Row, read_table};
use moorline_protocol::Imei;
use moorline_server::config::{self, Config as ServerConfig};
use moorline_server::store::{MAX_LABEL, check_text};
use tempfile::TempDir;

use crate::certs::{Credentials, Pki};
use crate::failure::Failure;

/// In a configuration, the folder with certificates and keys that it may name.
const FOLDER: &str = "@";

pub(super) const AGENT_KEYS: &[&[u8]] = &both::<{ OF_AGENT.len() + TOML.len() }>(OF_AGENT, TOML);
pub(super) const SERVER_KEYS: &[&[u8]] = &both::<{ OF_SERVER.len() + TOML.len() }>(OF_SERVER, TOML);

const OF_AGENT: &[&[u8]] = &[
    b"[server]\n",
    b"address = ",
    b"name = ",
    b"trust = \"@/ca.pem\"\n",
    b"[identity]\n",
    b"certificate = \"@/device.pem\"\n",
    b"key = \"@/device.key\"\n",
    b"imei = \"490154203237518\"\n",
    b"[modem]\n",
    b"port = ",
    b"baud = ",
    b"[heartbeat]\n",
    b"interval = \"60s\"\n",
    b"[reconnect]\n",
    b"first = ",
    b"max = ",
    b"[budget]\n",
    b"[clock]\n",
    b"[state]\n",
    b"dir = ",
    b"\"gw.example.com:9089\"",
];

const OF_SERVER: &[&[u8]] = &[
    b"[listen]\n",
    b"devices = ",
    b"operators = ",
    b"proxy_from = ",
    b"\"10.0.0.0/8\"",
    b"\"::/0\"",
    b"[tls]\n",
    b"certificate = \"@/server.pem\"\n",
    b"key = \"@/server.key\"\n",
    b"client_ca = \"@/ca.pem\"\n",
    b"crl = \"@/ca.crl\"\n",
    b"sessions = ",
    b"[identity]\n",
    b"binding = \"off\"\n",
    b"[session]\n",
    b"heartbeat_min = ",
    b"heartbeat_max = ",
    b"[store]\n",
    b"path = ",
    b"history = ",
    b"[operators]\n",
    b"token_file = \"@/token\"\n",
    b"[webhook]\n",
    b"url = \"https://hooks.example.com/moorline\"\n",
    b"secret_file = \"@/secret\"\n",
    b"kinds = ",
    b"[log]\n",
    b"\"[::]:9089\"",
    b"[cluster]\n",
    b"nats = ",
    b"\"tls://n1.example:4222\"",
    b"node = ",
    b"replicas = ",
    b"credentials = \"@/token\"\n",
    b"user = ",
    b"password_file = \"@/secret\"\n",
];

/// What is special in every configuration.
const TOML: &[&[u8]] = &[
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"\"\"",
    b"'",
    b" = ",
    b"\n",
    b"-1",
    b"nan",
    b"1e999",
    b"9223372036854775808",
    b"18446744073709551616",
    b"\"\\u001b[2J\"",
    b"\"584942417355y\"",
    b"a.b.c.d = 1\n",
    b"[[server]]\n",
];

const fn both<const N: usize>(first: &[&'static [u8]], second: &[&'static [u8]]) -> [&'static [u8]; N] {
    let mut all: [&[u8]; N] = [b""; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < first.len() { first[at] } else { second[at - first.len()] };
        at += 1;
    }
    all
}

/// Of each file of the state folder what it begins with, and numbers about what fits.
pub(super) const STATE: &[&[u8]] = &[
    b"moorline keepalive 1\n",
    b"end\n",
    b"262-01 gw.example.com 580 684\n",
    b"- ",
    b"moorline modem identity 1\n",
    b"imei=490154203237518\n",
    b"port=",
    b"at_ms=",
    b"previous=",
    b"18446744073709551615",
    b"9223372036854775807",
    b"4294967295",
    b"4294967296",
    b" 0 0 0",
    b"\x1b[2J",
    b"-1",
    b"\r\n",
];

pub(super) const CELLS: &[&[u8]] = &[
    b"490154203237518",
    b"869731052403821",
    b"imei",
    b"IMEI;label\n",
    b"label",
    b",",
    b";",
    b"\t",
    b"\"",
    b"\"\"",
    b"\r\n",
    b"\n",
    b"\r",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"Crane, north",
    b"\x1b[2J",
];

pub(super) fn agent_config(text: &[u8]) {
    within_folder(text, |file| match AgentConfig::read(file, &Environment::default()) {
        Ok(config) => {
            assert!(!config.server.addresses.is_empty());
            assert!(config.keeps_session_of(&config));
        }
        Err(mistakes) => can_be_read(&mistakes),
    });
}

pub(super) fn server_config(text: &[u8]) {
    within_folder(text, |file| match ServerConfig::read(file, None) {
        Ok(config) => {
            assert!(config.policy.heartbeat_min <= config.policy.heartbeat_max);
            assert!(config.needs_restart(&config).is_empty());
            is_shown(&config::describe(&config));
        }
        Err(mistakes) => can_be_read(&mistakes),
    });
}

thread_local! {
    /// The folder that configurations name things in, and their own file. It goes with the thread.
    static NAMED: Pki = named().expect("a folder with certificates");
    /// A state folder, in memory where that can be: the agent has each of its files written to the disk.
    static STATE_DIR: TempDir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a folder");
}

fn named() -> Result<Pki, Failure> {
    let pki = Pki::new()?;
    let folder = pki.folder();
    let device = pki.device(Imei::try_from(490_154_203_237_518)?)?;
    for (Credentials { certificate, key, .. }, name) in [(device, "device"), (pki.server()?, "server")] {
        fs::copy(certificate, folder.join(name).with_extension("pem"))?;
        fs::copy(key, folder.join(name).with_extension("key"))?;
    }
    fs::copy(pki.ca(), folder.join("ca.pem"))
        .or_else(|fault| if pki.ca() == folder.join("ca.pem") { Ok(0) } else { Err(fault) })?;
    fs::write(folder.join("token"), "0123456789abcdef0123456789abcdef\n")?;
    fs::write(folder.join("secret"), "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n")?;
    Ok(pki)
}

fn within_folder(text: &[u8], read: impl FnOnce(&Path)) {
    // Whoever names a device or a pipe for a certificate waits for its end: that is his own file, and no peer's.
    if [&b"/dev"[..], b"/proc", b"/sys"].into_iter().any(|root| text.windows(root.len()).any(|at| at == root))
    {
        return;
    }
    NAMED.with(|pki| {
        let file = pki.folder().join("config.toml");
        let folder = pki.folder().to_str().expect("a name in UTF-8");
        let text = match str::from_utf8(text) {
            Ok(text) => text.replace(FOLDER, folder).into_bytes(),
            Err(_) => text.to_owned(),
        };
        fs::write(&file, text).expect("a file of the test's own");
        read(&file);
    });
}

/// Every mistake is one line of a reasonable length, names its file, and steers no terminal.
fn can_be_read(mistakes: &Mistakes) {
    let mut mistakes = mistakes.into_iter().peekable();
    assert!(mistakes.peek().is_some(), "refused without a word");
    for mistake in mistakes {
        let line = mistake.to_string();
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(line.len() < 2 * MAX_FILE && line.contains("config.toml"), "{line:?}");
    }
}

fn is_shown(text: &str) {
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

/// What any file of the agent's state folder may hold after a power cut, a bad block or another program.
pub(super) fn agent_state(bytes: &[u8]) {
    STATE_DIR.with(|folder| {
        let folder = folder.path();
        for file in ["budget", "keepalive", "modem", "time-floor"] {
            fs::write(folder.join(file), bytes).expect("a file of the test's own");
        }
        keepalive(folder);
        if let Ok(Some(kept)) = IdentityFile::new(folder).read() {
            is_shown(&kept.to_string());
        }
        assert!(FloorFile::new(folder).read() >= BUILT);
        budget(folder);
    });
}

fn keepalive(folder: &Path) {
    let network = Network { operator: None, server: "gw.example.com".to_owned() };
    let _ = Networks::read(folder).of(&network);
}

/// As the configuration's defaults are.
const LIMITS: Limits = Limits {
    attempts_per_hour: Some(60),
    attempts_per_day: Some(720),
    bytes_per_month: Some(10_000_000),
    spent: Spent::Trickle,
};

/// A budget from that file has to be able to go on: to be shown, to count, to let something through one day.
fn budget(folder: &Path) {
    let mut ledger = Ledger::open(LIMITS, folder);
    let now = clock::now();
    // A file that stands for what was used up is as good as any; only what comes of it may be no fault.
    let _ = ledger.may_attempt(now);
    let _ = ledger.attempt(now);
    let _ = (ledger.is_thrifty(), ledger.is_shut(), ledger.poll_usage(now), ledger.deadline());
    ledger.learn_time(1_767_225_600_000, now);
    ledger.turn(now);
    is_shown(&ledger.to_string());
}

/// A table of devices: what is read can be written and read again, and what is not is told line by line.
pub(super) fn table(bytes: &[u8]) {
    match read_table(bytes) {
        Ok(rows) => {
            let imeis: HashSet<_> = rows.iter().map(|row| row.imei).collect();
            assert_eq!(imeis.len(), rows.len(), "one of them stands there twice");
            assert!(rows.is_sorted_by_key(|row| row.line));
            rows.iter().for_each(imported);
            let written: String =
                std::iter::once("imei,label\n".to_owned()).chain(rows.iter().map(line)).collect();
            let again = read_table(written.as_bytes()).expect("a table that was written by the book");
            let plain = |rows: &[Row]| -> Vec<_> {
                rows.iter().map(|Row { imei, label, .. }| (*imei, label.clone())).collect()
            };
            assert_eq!(plain(&again), plain(&rows));
        }
        Err(bad) => {
            assert!(!bad.is_empty() && bad.is_sorted_by_key(|bad| bad.line));
            for BadLine { value, .. } in &bad {
                assert!(value.chars().count() <= 32);
            }
            bad.iter().for_each(|bad| is_shown(&bad.to_string()));
        }
    }
}

/// What the server makes of a row's label.
fn imported(row: &Row) {
    match check_text(&row.label, MAX_LABEL) {
        Ok(()) => assert!(row.label.len() <= MAX_LABEL && !row.label.chars().any(char::is_control)),
        Err(why) => is_shown(&BadLine::of(row, why).to_string()),
    }
}

/// By RFC 4180.
fn line(row: &Row) -> String {
    format!("{},\"{}\"\n", row.imei, row.label.replace('"', "\"\""))
}
