//! A server's address as the configuration writes it: `host:port`, `192.0.2.1:9089` or `[2001:db8::1]:9089`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// Where a server is, and how its certificate names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// What its certificate has to say.
    pub name: ServerName<'static>,
}

impl Address {
    /// The IP address, when that is what is written: then nothing has to be looked up.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").ok_or("an IPv6 address is written [2001:db8::1]:9089")?,
            None => text.rsplit_once(':').ok_or("the port is missing, as in gw.example.com:9089")?,
        };
        if host.contains(':') && !text.starts_with('[') {
            return Err("an IPv6 address is written in brackets: [2001:db8::1]:9089");
        }
        if text.starts_with('[') && host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("what stands in brackets is no IPv6 address");
        }
        let port = match port.parse() {
            Ok(0) | Err(_) => return Err("the port must be a number from 1 to 65535"),
            Ok(port) => port,
        };
        let name = ServerName::try_from(host).map_err(|_| "the host is neither a name nor an IP address")?;
        Ok(Self { host: host.to_owned(), port, name: name.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_read_and_shown_alike() {
        for text in ["gw.example.com:9089", "192.0.2.1:1", "[2001:db8::1]:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn faults_say_what_is_meant() {
        for (text, part) in [
            ("gw.example.com", "port is missing"),
            ("gw.example.com:0", "from 1 to 65535"),
            ("gw.example.com:65536", "from 1 to 65535"),
            ("gw.example.com:port", "from 1 to 65535"),
            ("2001:db8::1", "in brackets"),
            ("[2001:db8::1]", "is written ["),
            ("[gw]:9089", "no IPv6 address"),
            ("gw example:9089", "neither a name"),
            (":9089", "neither a name"),
        ] {
            let fault = text.parse::<Address>().unwrap_err();
            assert!(fault.contains(part), "{text}: {fault}");
        }
    }
}
