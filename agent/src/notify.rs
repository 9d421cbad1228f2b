//! Tells systemd how the service is (sd_notify(3)): one datagram to the socket that it named. Without one, nothing.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::clock;
use crate::environment::Environment;
use crate::log;

/// The way to systemd, and when its watchdog is to hear of us next.
#[derive(Debug)]
pub struct Notifier {
    systemd: Option<(UnixDatagram, SocketAddr)>,
    /// Half of what the watchdog grants, so that one late turn of the loop is no death.
    period: Option<Duration>,
    next: Instant,
}

impl Notifier {
    /// Opens the way, if there is one.
    #[must_use]
    pub fn new(environment: &Environment, now: Instant) -> Self {
        let systemd = environment.notify_socket.as_deref().and_then(|name| {
            open(name)
                .inspect_err(|error| log::warning(format_args!("cannot reach NOTIFY_SOCKET: {error}")))
                .ok()
        });
        let period = environment.watchdog.filter(|_| systemd.is_some()).map(|granted| granted / 2);
        Self { systemd, period, next: now }
    }

    /// The loop runs. Whether the server can be reached is another matter: offline is normal.
    pub fn ready(&self) {
        self.send(format_args!("READY=1"));
    }

    /// Configuration and certificates are being read anew; followed by [`Self::ready`].
    pub fn reloading(&self) {
        self.send(format_args!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_micros()));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.send(format_args!("STOPPING=1"));
    }

    /// How things are, in words, for `systemctl status`.
    pub fn status(&self, words: impl fmt::Display) {
        self.send(format_args!("STATUS={words}"));
    }

    /// When to call [`Self::turn`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.period.map(|_| self.next)
    }

    /// The loop has come round: says so to the watchdog when that is due, and then returns true.
    pub fn turn(&mut self, now: Instant) -> bool {
        let Some(period) = self.period.filter(|_| now >= self.next) else { return false };
        self.next = now + period;
        self.send(format_args!("WATCHDOG=1"));
        true
    }

    fn send(&self, text: fmt::Arguments<'_>) {
        if let Some((socket, systemd)) = &self.systemd {
            // systemd restarting is no reason to stop; the next word gets through.
            let _ = socket.send_to_addr(text.to_string().as_bytes(), systemd);
        }
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A full queue must not stop the loop.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn environment(name: &str) -> Environment {
        Environment {
            notify_socket: Some(name.into()),
            watchdog: Some(Duration::from_secs(30)),
            ..Environment::default()
        }
    }

    #[test]
    fn systemd_hears_through_an_abstract_socket_and_a_path() {
        let abstract_name = format!("moorline-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&abstract_name);
        let by_name = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let listeners = [
            (format!("@{abstract_name}"), UnixDatagram::bind_addr(&by_name).unwrap()),
            (path.to_str().unwrap().to_owned(), UnixDatagram::bind(&path).unwrap()),
        ];
        let now = clock::now().instant;
        for (name, systemd) in listeners {
            let notifier = Notifier::new(&environment(&name), now);
            notifier.ready();
            notifier.status("online, \u{fc}ber LTE");
            notifier.reloading();
            assert_eq!(heard(&systemd), "READY=1");
            assert_eq!(heard(&systemd), "STATUS=online, \u{fc}ber LTE");
            assert!(heard(&systemd).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn watchdog_hears_at_half_its_period() {
        let name = format!("moorline-watchdog-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        let now = clock::now().instant;
        let mut notifier = Notifier::new(&environment(&format!("@{name}")), now);
        assert!(notifier.turn(now));
        assert_eq!(heard(&systemd), "WATCHDOG=1");
        assert_eq!(notifier.deadline(), Some(now + Duration::from_secs(15)));
        assert!(!notifier.turn(now + Duration::from_secs(14)));
        assert!(notifier.turn(now + Duration::from_secs(15)));
    }

    #[test]
    fn without_systemd_nothing_is_due() {
        let now = clock::now().instant;
        let without = Environment { watchdog: Some(Duration::from_secs(30)), ..Environment::default() };
        let mut notifier = Notifier::new(&without, now);
        notifier.ready();
        assert_eq!(notifier.deadline(), None);
        assert!(!notifier.turn(now));
    }
}
