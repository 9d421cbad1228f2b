//! Who may reach the operators' side: what `[operators]` says, and whether that suffices for the address of
//! `[listen] operators`.
//!
//! Whoever reaches that side reads and steers the fleet. On loopback, and at a Unix socket whose file has permissions, that
//! is this machine's users; any other address needs a secret, or a certificate, that tells operators from everybody else.

mod gate;
mod tokens;
mod tries;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moorline_config::Section;
use rustls::ServerConfig;

use crate::tls::OperatorsTls;
pub(crate) use gate::{Gate, Refused};
use tokens::Tokens;

/// What `[operators]` says, with all that its files hold.
#[derive(Clone, Debug, Default)]
pub struct Access {
    tokens: Tokens,
    tls: Option<Arc<ServerConfig>>,
    /// Operators show a certificate.
    asks_certificate: bool,
    /// Names, beside addresses and `localhost`, by which operators call this server.
    names: Vec<String>,
}

/// What is meant by a name in `operators.names`.
const NAME: &str = "a host's name, without scheme and port, as in \"fleet.example.com\"";

impl Access {
    /// Reads `[operators]` and the files that it names, and holds it against the address in `listen`. Mistakes are noted at
    /// their keys. `devices_ca` is who vouches for devices, and so must not vouch for operators.
    pub(crate) fn read(
        operators: &Section<'_>,
        listen: &Section<'_>,
        address: Option<SocketAddr>,
        credentials: Option<&Path>,
        devices_ca: &Path,
    ) -> Self {
        let token_file = operators.string("token_file").map(PathBuf::from);
        let credential = |name| credentials.map(|folder| folder.join(name)).filter(|file| file.exists());
        let token_file = token_file.or_else(|| credential("operators.token"));
        let tokens = token_file.as_deref().map(Tokens::read).transpose().unwrap_or_else(|text| {
            operators.mistake("token_file", text);
            None
        });
        let tls = read_tls(operators, credential("operators.key"), devices_ca);
        let asks_certificate = operators.contains("client_ca");
        if let Some(address) = address.filter(|address| is_exposed(*address))
            && token_file.is_none()
            && !asks_certificate
        {
            listen.mistake("operators", open_to_all(address));
        }
        let names = read_names(operators);
        Self { tokens: tokens.unwrap_or_default(), tls, asks_certificate, names }
    }

    /// What asks for one of these tokens, where there are any, and is called by these names.
    #[cfg(test)]
    pub(crate) fn of(tokens: &str, names: &[&str]) -> Self {
        let tokens = if tokens.is_empty() { Tokens::default() } else { Tokens::parse(tokens).unwrap() };
        Self { tokens, names: names.iter().map(|name| (*name).to_owned()).collect(), ..Self::default() }
    }

    /// What is right, and yet worth a warning.
    pub(crate) fn warning(&self, address: Option<SocketAddr>) -> Option<String> {
        let address = address.filter(|address| is_exposed(*address))?;
        self.tls.is_none().then(|| {
            format!(
                "listen.operators is {address}, without TLS: whoever listens on the way reads the token, and with it steers \
                 the fleet. Name certificate and key in [operators], or let only an encrypted network or a proxy on this \
                 machine reach that address"
            )
        })
    }

    /// Its URLs' scheme.
    pub(crate) const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// How operators show who they are, for people.
    pub(crate) const fn asks(&self) -> &'static str {
        match (self.tokens.is_empty(), self.asks_certificate) {
            (true, false) => "without being asked who they are",
            (false, false) => "with a token",
            (true, true) => "with a certificate",
            (false, true) => "with a certificate and a token",
        }
    }

    /// For TLS, where it is spoken.
    pub(crate) const fn tls(&self) -> Option<&Arc<ServerConfig>> {
        self.tls.as_ref()
    }

    /// Whether operators call this server by that name, in whatever case.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// The first token of an operator's file, to be shown.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn token_of(file: &Path) -> Result<String, String> {
    Tokens::read(file).map(Tokens::into_first)
}

/// Whether an address is reached from other machines.
fn is_exposed(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

fn open_to_all(address: SocketAddr) -> String {
    format!(
        "{address} is reached from other machines, and whoever reaches it reads and steers the fleet: name a token_file in \
         [operators], or certificate, key and client_ca there, or listen on a loopback address, as 127.0.0.1:{}",
        address.port()
    )
}

fn read_tls(
    operators: &Section<'_>,
    credential: Option<PathBuf>,
    devices_ca: &Path,
) -> Option<Arc<ServerConfig>> {
    let [certificate, key, client_ca, crl] =
        ["certificate", "key", "client_ca", "crl"].map(|key| operators.string(key).map(PathBuf::from));
    let needs = |key: &str, other: &str| {
        if operators.contains(key) && !operators.contains(other) {
            operators.mistake(key, format!("is of use only with {other} in [operators]"));
        }
    };
    needs("client_ca", "certificate");
    needs("key", "certificate");
    needs("crl", "client_ca");
    let certificate = certificate?;
    let Some(key) = key.or(credential) else {
        needs("certificate", "key");
        return None;
    };
    let files = OperatorsTls { certificate, key, client_ca, crl, devices_ca };
    files.config(&mut |key, text| operators.mistake(key, text)).map(Arc::new)
}

fn read_names(operators: &Section<'_>) -> Vec<String> {
    if !operators.contains("names") {
        return Vec::new();
    }
    let names = operators.strings("names").unwrap_or_default();
    let is_name = |name: &&String| {
        let sign = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        name.bytes().all(sign) && name.len() <= 253
    };
    if let Some(wrong) = names.iter().find(|name| !is_name(name)) {
        operators.mistake("names", format!("\"{}\" is not {NAME}", wrong.escape_debug()));
    }
    names
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use moorline_config::Document;

    use super::*;

    fn read(address: &str, text: &str) -> (Access, Vec<String>) {
        let text = format!("[listen]\noperators = \"{address}\"\n[operators]\n{text}\n");
        let document = Document::parse(Path::new("server.toml"), &text).unwrap();
        let (listen, operators) = (document.root().section("listen"), document.root().section("operators"));
        let address = listen.string("operators").map(|address| address.parse().unwrap());
        let access = Access::read(&operators, &listen, address, None, Path::new("/nonexistent"));
        let mistakes = document.finish().err().into_iter().flatten();
        (access, mistakes.map(|mistake| mistake.to_string()).collect())
    }

    fn token_file(folder: &Path) -> PathBuf {
        let file = folder.join("token");
        fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        file
    }

    #[test]
    fn addresses_of_other_machines_need_more_than_an_address() {
        for address in ["0.0.0.0:9090", "[::]:9090", "192.0.2.1:9090", "[::ffff:192.0.2.1]:9090"] {
            let (_, mistakes) = read(address, "");
            assert_eq!(mistakes.len(), 1, "{address}: {mistakes:?}");
            let wanted = format!("server.toml:2: listen.operators: {address} is reached from other machines");
            assert!(mistakes[0].starts_with(&wanted), "{mistakes:?}");
        }
        for address in ["127.0.0.1:9090", "127.9.9.9:1", "[::1]:9090", "[::ffff:127.0.0.1]:9090"] {
            let (access, mistakes) = read(address, "");
            assert_eq!((mistakes, access.asks()), (vec![], "without being asked who they are"), "{address}");
        }
    }

    #[test]
    fn token_suffices_and_is_warned_about_without_tls() {
        let folder = tempfile::tempdir().unwrap();
        let line = format!("token_file = \"{}\"", token_file(folder.path()).display());
        let (access, mistakes) = read("0.0.0.0:9090", &line);
        assert_eq!((mistakes, access.asks(), access.scheme()), (vec![], "with a token", "http"));
        let warning = access.warning(Some("0.0.0.0:9090".parse().unwrap())).unwrap();
        assert!(warning.contains("without TLS: whoever listens on the way reads the token"), "{warning}");
        assert_eq!(access.warning(Some("127.0.0.1:9090".parse().unwrap())), None);
        assert_eq!(access.warning(None), None);
    }

    #[test]
    fn token_file_that_cannot_be_used_is_one_mistake() {
        let (_, mistakes) = read("0.0.0.0:9090", "token_file = \"/nonexistent/token\"");
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        let wanted = "server.toml:4: operators.token_file: /nonexistent/token cannot be read: ";
        assert!(mistakes[0].starts_with(wanted), "{mistakes:?}");
    }

    #[test]
    fn token_may_be_a_credential() {
        let folder = tempfile::tempdir().unwrap();
        let file = token_file(folder.path());
        fs::rename(&file, folder.path().join("operators.token")).unwrap();
        let document = Document::parse(Path::new("server.toml"), "").unwrap();
        let section = |name| document.root().section(name);
        let address = Some("0.0.0.0:9090".parse().unwrap());
        let (operators, listen) = (section("operators"), section("listen"));
        let access =
            Access::read(&operators, &listen, address, Some(folder.path()), Path::new("/nonexistent"));
        assert_eq!((access.asks(), document.finish()), ("with a token", Ok(())));
    }

    #[test]
    fn keys_of_tls_go_together() {
        for (text, wanted) in [
            (
                "client_ca = \"/x\"",
                "server.toml:4: operators.client_ca: is of use only with certificate in [operators]",
            ),
            (
                "certificate = \"/x\"",
                "server.toml:4: operators.certificate: is of use only with key in [operators]",
            ),
            ("key = \"/x\"", "server.toml:4: operators.key: is of use only with certificate in [operators]"),
            ("crl = \"/x\"", "server.toml:4: operators.crl: is of use only with client_ca in [operators]"),
        ] {
            assert_eq!(read("127.0.0.1:9090", text).1, [wanted]);
        }
    }

    #[test]
    fn names_are_names() {
        let (access, mistakes) = read("127.0.0.1:9090", "names = [\"fleet.example.com\", \"ops\"]");
        assert_eq!(mistakes, Vec::<String>::new());
        assert!(access.is_named("Fleet.Example.com") && access.is_named("ops"));
        assert!(!access.is_named("example.com") && !access.is_named(""));
        let (_, mistakes) = read("127.0.0.1:9090", "names = \"https://fleet.example.com\"");
        assert!(mistakes[0].contains("is not a host's name, without scheme and port"), "{mistakes:?}");
    }
}
