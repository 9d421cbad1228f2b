//! The ports: for devices, for operators, and the operators' Unix socket. systemd's where it hands any over, else opened
//! here. The one place that opens them; `listener.rs` and `admin.rs` serve them.
//!
//! Sockets that are handed over outlive the server, so that a restart refuses nobody. They are told apart by port, and
//! `[listen]` and the socket unit have to agree: what is listened on stands in the configuration, in either case. The Unix
//! socket alone may be systemd's or the server's, as it likes.

mod socket;

use std::fmt;
use std::io;
use std::net::{self, SocketAddr};
use std::os::unix;
use std::path::Path;

use listenfd::ListenFd;
use moorline_config::Mistakes;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::app::Failure;
use crate::config::Config;
pub(crate) use socket::SocketFile;

/// As many as may knock in the instant between two accepts, as after a restart.
const BACKLOG: i32 = 4096;

/// What every mistake about a socket that was handed over ends with.
const AGREE: &str = "moorline-server.socket and [listen] have to agree";

/// See the module.
pub(crate) struct Ports {
    pub(crate) devices: TcpListener,
    pub(crate) operators: Option<TcpListener>,
    pub(crate) operators_socket: Option<(UnixListener, SocketFile)>,
}

/// What systemd hands over.
#[derive(Default)]
struct HandedOver {
    tcp: Vec<net::TcpListener>,
    unix: Vec<unix::net::UnixListener>,
}

/// Who a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Devices,
    Operators,
}

const ROLES: [Role; 2] = [Role::Devices, Role::Operators];

impl Role {
    /// Its key in the configuration.
    const fn key(self) -> &'static str {
        match self {
            Self::Devices => "listen.devices",
            Self::Operators => "listen.operators",
        }
    }
}

/// What `[listen]` says.
#[derive(Clone, Copy, Debug)]
struct Wanted<'c> {
    file: &'c Path,
    devices: SocketAddr,
    operators: Option<SocketAddr>,
}

/// A socket as systemd handed it over.
#[derive(Clone, Copy, Debug)]
struct Handed {
    address: SocketAddr,
    /// An IPv6 socket that does not take IPv4 connections too.
    only_v6: bool,
}

impl Ports {
    /// All ports, listening.
    ///
    /// # Errors
    /// What systemd handed over and the configuration disagree, or an address cannot be bound.
    pub(crate) fn open(config: &Config) -> Result<Self, Failure> {
        let wanted = Wanted { file: &config.file, devices: config.devices, operators: config.operators };
        let HandedOver { tcp, unix } = handed_over(&config.file)?;
        let (devices, operators) = if tcp.is_empty() { wanted.bind_all()? } else { wanted.take(tcp)? };
        let operators_socket = socket::open(config, unix)?;
        let unusable = |fault: io::Error| Failure::Start(format!("a port cannot be used: {fault}"));
        let ready = |port: net::TcpListener| {
            port.set_nonblocking(true).and_then(|()| TcpListener::from_std(port)).map_err(unusable)
        };
        Ok(Self { devices: ready(devices)?, operators: operators.map(ready).transpose()?, operators_socket })
    }
}

/// The sockets that systemd hands over (sd_listen_fds(3)); none where there is no systemd.
fn handed_over(file: &Path) -> Result<HandedOver, Mistakes> {
    let (mut descriptors, mut handed) = (ListenFd::from_env(), HandedOver::default());
    for index in 0..descriptors.len() {
        match descriptors.take_tcp_listener(index) {
            Ok(port) => handed.tcp.extend(port),
            Err(no_port) => match descriptors.take_unix_listener(index) {
                Ok(socket) => handed.unix.extend(socket),
                Err(no_socket) => {
                    let text = format!(
                        "systemd hands over what is neither a port nor a Unix socket: {no_port}, {no_socket}"
                    );
                    return Err(Mistakes::new(file, "listen", text));
                }
            },
        }
    }
    Ok(handed)
}

fn seen(socket: &net::TcpListener) -> io::Result<Handed> {
    let address = socket.local_addr()?;
    let only_v6 = address.is_ipv6() && SockRef::from(socket).only_v6()?;
    Ok(Handed { address, only_v6 })
}

impl Wanted<'_> {
    const fn of(&self, role: Role) -> Option<SocketAddr> {
        match role {
            Role::Devices => Some(self.devices),
            Role::Operators => self.operators,
        }
    }

    fn take(
        &self,
        sockets: Vec<net::TcpListener>,
    ) -> Result<(net::TcpListener, Option<net::TcpListener>), Failure> {
        let seen: io::Result<Vec<_>> = sockets.iter().map(seen).collect();
        let seen = seen.map_err(|fault| Failure::Start(format!("a socket of systemd's: {fault}")))?;
        let roles = self.tell_apart(&seen)?;
        let (mut devices, mut operators) = (None, None);
        for (socket, role) in sockets.into_iter().zip(roles) {
            match role {
                Role::Devices => devices = Some(socket),
                Role::Operators => operators = Some(socket),
            }
        }
        let devices = devices.ok_or_else(|| Failure::Start("a port is missing".to_owned()))?;
        Ok((devices, operators))
    }

    /// Who each socket is for: exactly one for each key, at that key's address.
    fn tell_apart(&self, sockets: &[Handed]) -> Result<Vec<Role>, Mistakes> {
        let mut notes = Notes { file: self.file, mistakes: None };
        let roles: Vec<_> = sockets.iter().map(|socket| self.role_of(socket.address)).collect();
        for (socket, role) in sockets.iter().zip(&roles) {
            match role {
                None => notes.add("listen", self.stranger(socket.address)),
                Some(role) => self.compare(*role, *socket, &mut notes),
            }
        }
        for (role, address) in ROLES.into_iter().filter_map(|role| Some((role, self.of(role)?))) {
            match roles.iter().filter(|found| **found == Some(role)).count() {
                0 => notes.add(
                    role.key(),
                    format!(
                        "systemd hands over sockets, and none of them has port {}; {AGREE}: ListenStream={address}",
                        address.port()
                    ),
                ),
                1 => {}
                _ => notes.add(role.key(), format!("systemd hands over more than one socket for it; {AGREE}")),
            }
        }
        match notes.mistakes {
            Some(mistakes) => Err(mistakes),
            None => Ok(roles.into_iter().flatten().collect()),
        }
    }

    fn compare(&self, role: Role, socket: Handed, notes: &mut Notes<'_>) {
        let Handed { address, only_v6 } = socket;
        let Some(wanted) = self.of(role) else { return };
        if address != wanted {
            notes.add(role.key(), format!("here it is {wanted}, and systemd hands over {address}; {AGREE}"));
        } else if only_v6 && address.ip().is_unspecified() {
            let text =
                "systemd's socket takes no IPv4 connections; set BindIPv6Only=both in moorline-server.socket";
            notes.add(role.key(), text);
        }
    }

    /// By port; where both keys have the same one, by address.
    fn role_of(&self, address: SocketAddr) -> Option<Role> {
        let has_port = |role: &Role| self.of(*role).is_some_and(|wanted| wanted.port() == address.port());
        let mut fitting = ROLES.into_iter().filter(has_port);
        let first = fitting.next()?;
        Some(if self.of(first) == Some(address) { first } else { fitting.next().unwrap_or(first) })
    }

    fn stranger(&self, address: SocketAddr) -> impl fmt::Display {
        let devices = self.devices;
        let operators = self.operators.map_or_else(|| "off".to_owned(), |operators| operators.to_string());
        format!(
            "systemd hands over {address}, a port of neither devices ({devices}) nor operators ({operators}); {AGREE}"
        )
    }

    fn bind_all(&self) -> Result<(net::TcpListener, Option<net::TcpListener>), Failure> {
        let devices = self.bind(Role::Devices, self.devices)?;
        let operators = self.operators.map(|address| self.bind(Role::Operators, address)).transpose()?;
        Ok((devices, operators))
    }

    /// For IPv4 too where the address is `[::]`.
    fn bind(&self, role: Role, address: SocketAddr) -> Result<net::TcpListener, Failure> {
        listen(address).map_err(|fault| {
            let (file, key) = (self.file.display(), role.key());
            Failure::Start(format!("{file}: {key}: cannot listen on {address}: {fault}"))
        })
    }
}

fn listen(address: SocketAddr) -> io::Result<net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Mistakes as they are found.
struct Notes<'f> {
    file: &'f Path,
    mistakes: Option<Mistakes>,
}

impl Notes<'_> {
    fn add(&mut self, key: &str, text: impl fmt::Display) {
        match &mut self.mistakes {
            Some(mistakes) => mistakes.add(self.file, key, text.to_string()),
            None => self.mistakes = Some(Mistakes::new(self.file, key, text.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(devices: &str, operators: &str, handed: &[&str]) -> Result<Vec<Role>, Vec<String>> {
        let (devices, operators) = (devices.parse().unwrap(), operators.parse().ok());
        let wanted = Wanted { file: Path::new("server.toml"), devices, operators };
        let sockets: Vec<_> = handed
            .iter()
            .map(|address| Handed { address: address.parse().unwrap(), only_v6: false })
            .collect();
        let mistakes = |mistakes: Mistakes| mistakes.into_iter().map(|mistake| mistake.to_string()).collect();
        wanted.tell_apart(&sockets).map_err(mistakes)
    }

    const DEVICES: &str = "[::]:9089";
    const OPERATORS: &str = "127.0.0.1:9090";

    #[test]
    fn sockets_are_told_apart_whatever_their_order() {
        assert_eq!(
            judge(DEVICES, OPERATORS, &[DEVICES, OPERATORS]),
            Ok(vec![Role::Devices, Role::Operators])
        );
        assert_eq!(
            judge(DEVICES, OPERATORS, &[OPERATORS, DEVICES]),
            Ok(vec![Role::Operators, Role::Devices])
        );
    }

    #[test]
    fn keys_with_one_port_are_told_apart_by_address() {
        let (devices, operators) = ("192.0.2.1:443", "127.0.0.1:443");
        assert_eq!(
            judge(devices, operators, &[operators, devices]),
            Ok(vec![Role::Operators, Role::Devices])
        );
    }

    #[test]
    fn operators_without_a_port_are_handed_none() {
        assert_eq!(judge(DEVICES, "off", &[DEVICES]), Ok(vec![Role::Devices]));
        let mistakes = judge(DEVICES, "off", &[DEVICES, OPERATORS]).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].contains("systemd hands over 127.0.0.1:9090, a port of neither"), "{mistakes:?}");
    }

    #[test]
    fn every_disagreement_is_told() {
        let mistakes = judge(DEVICES, OPERATORS, &["0.0.0.0:9089", "127.0.0.1:80"]).unwrap_err();
        assert_eq!(
            mistakes,
            [
                "server.toml: listen.devices: here it is [::]:9089, and systemd hands over 0.0.0.0:9089; \
                 moorline-server.socket and [listen] have to agree",
                "server.toml: listen: systemd hands over 127.0.0.1:80, a port of neither devices ([::]:9089) nor operators \
                 (127.0.0.1:9090); moorline-server.socket and [listen] have to agree",
                "server.toml: listen.operators: systemd hands over sockets, and none of them has port 9090; \
                 moorline-server.socket and [listen] have to agree: ListenStream=127.0.0.1:9090",
            ]
        );
        let twice = judge(DEVICES, OPERATORS, &[DEVICES, "0.0.0.0:9089", OPERATORS]).unwrap_err();
        assert_eq!(twice.len(), 2, "{twice:?}");
        assert!(twice[1].contains("more than one socket"), "{twice:?}");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a real socket is what is looked at")]
    fn socket_that_takes_no_ipv4_is_told() {
        let alone = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        alone.set_only_v6(true).unwrap();
        alone.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        alone.listen(1).unwrap();
        let both = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let alone = seen(&alone.into()).unwrap();
        let wanted = Wanted {
            file: Path::new("server.toml"),
            devices: alone.address,
            operators: both.local_addr().ok(),
        };
        let mistakes = wanted.tell_apart(&[alone, seen(&both).unwrap()]).unwrap_err();
        assert!(mistakes.to_string().contains("BindIPv6Only=both"), "{mistakes}");
    }
}
