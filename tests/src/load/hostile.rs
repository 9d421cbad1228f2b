//! Peers that mean no good to a server: they stall in the handshake, send it one byte after the other, or are devices that
//! have it take new keys with each heartbeat. Whoever is sent away comes again.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use moorline_protocol::{DeviceMessage, Imei};

use super::imei;
use crate::certs::Pki;
use crate::client::{Client, Settings};
use crate::failure::Failure;

/// The beginning of a ClientHello.
const HELLO: [u8; 9] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc];
/// As long as that ClientHello says it is; whoever has sent so much begins with a wrong one.
const WHOLE: usize = 400;
/// Between two bytes of those who send slowly.
const PACE: Duration = Duration::from_millis(50);
/// Their devices are none of a pool's, which begin with 0.
const FIRST_DEVICE: u32 = 900_000;

/// How many of each.
#[derive(Clone, Copy, Debug)]
pub struct Hostile {
    /// They say nothing, or the beginning of a ClientHello.
    pub stalled: usize,
    /// They send one byte after the other.
    pub dribbling: usize,
    /// They have the server take new keys with each heartbeat.
    pub renewing: usize,
}

/// What is seen of them, and when they are to stop.
#[derive(Debug, Default)]
pub struct Seen {
    over: AtomicBool,
    renewed: AtomicUsize,
    sent_away: AtomicUsize,
}

impl Seen {
    /// They stop.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// How often the server was made to take new keys.
    pub fn renewed(&self) -> usize {
        self.renewed.load(Ordering::SeqCst)
    }

    /// How often one of them was sent away.
    pub fn sent_away(&self) -> usize {
        self.sent_away.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn count_sent_away(&self) {
        self.sent_away.fetch_add(1, Ordering::SeqCst);
    }
}

impl Hostile {
    /// How many they are.
    #[must_use]
    pub const fn len(self) -> usize {
        self.stalled + self.dribbling + self.renewing
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Lets them loose on a server until they are to stop.
    ///
    /// # Errors
    /// One cannot even connect.
    pub fn trouble(self, pki: &Pki, server: SocketAddr, seen: &Seen) -> Result<(), Failure> {
        thread::scope(|scope| {
            let silent = scope.spawn(|| self.stall_and_dribble(server, seen));
            let renewed = self.renew(pki, server, seen);
            let silent = silent.join().map_err(|_| Failure::new("a silent one panicked"))?;
            renewed.and(silent)
        })
    }

    fn stall_and_dribble(self, server: SocketAddr, seen: &Seen) -> Result<(), Failure> {
        let stall = |number: usize| connect(server, &HELLO[..number % HELLO.len()]);
        let mut stalled = (0..self.stalled).map(stall).collect::<Result<Vec<_>, _>>()?;
        let mut dribbling =
            (0..self.dribbling).map(|_| connect(server, &[])).collect::<Result<Vec<_>, _>>()?;
        let (_silent, pace) = mpsc::channel::<()>();
        for place in 0.. {
            if seen.is_over() {
                return Ok(());
            }
            for (number, socket) in stalled.iter_mut().enumerate() {
                if !matches!(socket.read(&mut [0]), Err(fault) if fault.kind() == io::ErrorKind::WouldBlock) {
                    seen.count_sent_away();
                    *socket = stall(number)?;
                }
            }
            for socket in &mut dribbling {
                if socket.write_all(&[HELLO.get(place % WHOLE).copied().unwrap_or(0)]).is_err() {
                    seen.count_sent_away();
                    *socket = connect(server, &[])?;
                }
            }
            let _ = pace.recv_timeout(PACE);
        }
        Ok(())
    }

    fn renew(self, pki: &Pki, server: SocketAddr, seen: &Seen) -> Result<(), Failure> {
        let devices = (FIRST_DEVICE..).take(self.renewing).map(|number| {
            let imei = imei(number)?;
            let settings = Settings::new(pki, Some(&pki.device(imei)?))?;
            Ok(Renewing { imei, settings, client: None })
        });
        let mut devices = devices.collect::<Result<Vec<_>, Failure>>()?;
        while !seen.is_over() && !devices.is_empty() {
            for device in &mut devices {
                match device.renew(server) {
                    Ok(()) => drop(seen.renewed.fetch_add(1, Ordering::SeqCst)),
                    Err(_) => {
                        seen.count_sent_away();
                        device.client = None;
                    }
                }
            }
        }
        Ok(())
    }
}

struct Renewing {
    imei: Imei,
    settings: Settings,
    client: Option<Client>,
}

impl Renewing {
    /// New keys and a heartbeat, by one that has a session already or gets one now.
    fn renew(&mut self, server: SocketAddr) -> Result<(), Failure> {
        let client = match &mut self.client {
            Some(client) => client,
            none => {
                let mut client = self.settings.connect(server)?;
                client.say_hello(self.imei)?;
                client.hear()?;
                none.insert(client)
            }
        };
        client.renew_keys()?;
        client.send(&DeviceMessage::Heartbeat)?;
        client.hear()?.map(drop).ok_or_else(|| Failure::new("sent away"))
    }
}

/// A peer that speaks no TLS.
#[expect(clippy::disallowed_methods, reason = "a hostile peer's socket on loopback")]
fn connect(server: SocketAddr, said: &[u8]) -> Result<TcpStream, Failure> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_nonblocking(true)?;
    // One that is sent away at once is seen to be later.
    let _ = socket.write_all(said);
    Ok(socket)
}
