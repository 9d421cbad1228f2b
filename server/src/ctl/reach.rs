//! How the server is reached: a Unix socket, or an address with or without TLS; and what is shown there.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::Uri;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::failure::Failure;
use super::{Environment, Reaching};
use crate::{access, tls};

/// Where the server has its socket under systemd, when server.toml says so.
const DEFAULT_SOCKET: &str = "/run/moorline-server/operators.sock";
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:9090";
/// Debian's and most others': whom this machine trusts.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// See the module.
pub(super) struct Reach {
    way: Way,
    /// As people name it.
    shown: String,
    token: Option<String>,
}

enum Way {
    Socket(PathBuf),
    Address { host: String, port: u16, authority: String, tls: Option<(TlsConnector, ServerName<'static>)> },
}

/// What both kinds of sockets are, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Reach {
    /// From the command line, else from the environment, else a socket or an address on this machine.
    pub(super) fn new(options: &Reaching, environment: &Environment) -> Result<Self, Failure> {
        let said = options.server.as_deref().or(environment.server.as_deref());
        let shown = said.map_or_else(default_server, str::to_owned);
        let way = match shown.strip_prefix("unix:") {
            Some(path) => Way::Socket(socket(path)?),
            None => address(&shown, options)?,
        };
        let shown = match &way {
            Way::Socket(path) => format!("unix:{}", path.display()),
            Way::Address { authority, tls: None, .. } => format!("http://{authority}"),
            Way::Address { authority, tls: Some(_), .. } => format!("https://{authority}"),
        };
        let file = options.token_file.as_deref().or(environment.token_file.as_deref());
        let token = file.map(access::token_of).transpose().map_err(Failure::Address)?;
        Ok(Self { way, shown, token })
    }

    /// What the request's Host says.
    pub(super) fn host(&self) -> &str {
        match &self.way {
            Way::Socket(_) => "localhost",
            Way::Address { authority, .. } => authority,
        }
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    #[expect(clippy::disallowed_methods, reason = "the tool's one way out")]
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match &self.way {
            Way::Socket(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Way::Address { host, port, tls, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                match tls {
                    None => Ok(Box::new(stream)),
                    Some((tls, name)) => Ok(Box::new(tls.connect(name.clone(), stream).await?)),
                }
            }
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// The socket, where this user can see one.
fn default_server() -> String {
    if Path::new(DEFAULT_SOCKET).exists() {
        format!("unix:{DEFAULT_SOCKET}")
    } else {
        DEFAULT_ADDRESS.to_owned()
    }
}

fn socket(path: &str) -> Result<PathBuf, Failure> {
    if path.is_empty() {
        return Err(no_address("unix:"));
    }
    Ok(path.into())
}

/// `text` is a URL, or only host and port.
fn address(text: &str, options: &Reaching) -> Result<Way, Failure> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = url.parse().map_err(|_| no_address(text))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(no_address(text)),
    };
    let (Some(authority), "/", None) = (uri.authority(), uri.path(), uri.query()) else {
        return Err(no_address(text));
    };
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
    if host.is_empty() || authority.as_str().contains('@') {
        return Err(no_address(text));
    }
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let tls = if tls { Some(secure(&host, options)?) } else { None };
    Ok(Way::Address { host, port, authority: authority.to_string(), tls })
}

fn secure(host: &str, options: &Reaching) -> Result<(TlsConnector, ServerName<'static>), Failure> {
    let ca = options.ca.as_deref().unwrap_or_else(|| Path::new(SYSTEM_CA));
    let own = options.client_certificate.as_deref().zip(options.client_key.as_deref());
    let config = tls::operator_config(ca, own).map_err(Failure::Address)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| no_address(host))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

fn no_address(text: &str) -> Failure {
    Failure::Address(format!(
        "\"{}\" is not a server's address: it is of the form http://127.0.0.1:9090, https://fleet.example.com:9090 or \
         unix:{DEFAULT_SOCKET}",
        text.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(server: &str) -> Result<Reach, Failure> {
        let options = Reaching { server: Some(server.to_owned()), ..Reaching::default() };
        Reach::new(&options, &Environment::default())
    }

    #[test]
    fn addresses_need_no_scheme() {
        for server in ["127.0.0.1:9090", "http://127.0.0.1:9090", "http://127.0.0.1:9090/"] {
            let reach = reach(server).ok().unwrap();
            assert_eq!(
                (reach.to_string().as_str(), reach.host()),
                ("http://127.0.0.1:9090", "127.0.0.1:9090")
            );
        }
        assert_eq!(reach("unix:/run/x.sock").ok().unwrap().to_string(), "unix:/run/x.sock");
        let Way::Address { host, port, .. } = reach("[::1]:9090").ok().unwrap().way else {
            panic!("no address")
        };
        assert_eq!((host.as_str(), port), ("::1", 9090));
    }

    #[test]
    fn option_comes_before_the_environment_and_that_before_the_default() {
        let environment = Environment { server: Some("b:1".to_owned()), token_file: None };
        let option = Reaching { server: Some("a:1".to_owned()), ..Reaching::default() };
        let shown = |options: &Reaching| Reach::new(options, &environment).ok().unwrap().to_string();
        assert_eq!(shown(&option), "http://a:1");
        assert_eq!(shown(&Reaching::default()), "http://b:1");
    }

    #[test]
    fn other_addresses_are_usage_errors() {
        for server in
            ["", "http://", "http://host/path", "http://a b", "ftp://host", "unix:", "http://me@host"]
        {
            assert_eq!(reach(server).err().unwrap().exit_code(), 2, "{server}");
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_usage_errors() {
        let server = Some("https://127.0.0.1:1".to_owned());
        let missing = || Some(PathBuf::from("/nonexistent/file"));
        for options in [
            Reaching { server: server.clone(), ca: missing(), ..Reaching::default() },
            Reaching { token_file: missing(), ..Reaching::default() },
        ] {
            let failure = Reach::new(&options, &Environment::default()).err().unwrap();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().starts_with("/nonexistent/file cannot be read: "), "{failure}");
        }
    }
}
