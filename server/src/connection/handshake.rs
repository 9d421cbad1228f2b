//! From an accepted socket to a device whose certificate has been judged.
//!
//! What costs the server time is bounded by permits; a permit is held for one synchronous step over bytes that are already
//! there, never while a peer is waited for. So a thousand connections that stall hold sockets, and nothing else.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::{Link, scratch};
use crate::client_hello::{self, Progress as Hello};
use crate::clock;
use crate::tls::{self, Device, Progress, Refusal, Tls};

/// From accept to a complete ClientHello.
const CLIENT_HELLO: Duration = Duration::from_secs(10);
/// From a complete ClientHello to the end of the handshake: a round trip or two, over a line that may take seconds for one.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// A handshake that succeeded.
pub(super) struct Shaken {
    pub(super) tls: Tls,
    pub(super) device: Device,
    /// What came behind the handshake and is not a whole record yet.
    pub(super) rest: Vec<u8>,
    /// What came behind the handshake, decrypted.
    pub(super) plaintext: Vec<u8>,
}

/// A handshake that did not.
pub(super) enum Failure {
    /// The peer was refused or broke TLS.
    Refused(Refusal),
    /// The peer went away, without having sent anything (`quiet`) or in the middle.
    Gone { quiet: bool },
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Gone { quiet: false }
    }
}

pub(super) async fn shake(socket: &TcpStream, link: &Link) -> Result<Shaken, Failure> {
    let mut incoming = timeout_at(after(CLIENT_HELLO), read_client_hello(socket))
        .await
        .unwrap_or_else(|_| Err(slow("no complete ClientHello came within 10 s")))?;
    let (tls, plaintext) = timeout_at(after(HANDSHAKE), finish(socket, link, &mut incoming))
        .await
        .unwrap_or_else(|_| Err(slow("the handshake was not over within 20 s")))?;
    match link.tls.judge(&tls, clock::now()) {
        Ok(device) => Ok(Shaken { tls, device, rest: incoming, plaintext }),
        Err(refusal) => Err(Failure::Refused(refusal)),
    }
}

async fn read_client_hello(socket: &TcpStream) -> Result<Vec<u8>, Failure> {
    let mut incoming = Vec::new();
    loop {
        read_more(socket, &mut incoming).await?;
        match client_hello::progress(&incoming) {
            Hello::Unfinished => {}
            Hello::Complete => return Ok(incoming),
            Hello::NotTls => return Err(refused("not_tls", "the bytes received are no TLS handshake")),
            Hello::TooLong => return Err(refused("not_tls", "the ClientHello is longer than 16 KiB")),
        }
    }
}

async fn finish(socket: &TcpStream, link: &Link, incoming: &mut Vec<u8>) -> Result<(Tls, Vec<u8>), Failure> {
    let mut tls = Tls::new(link.tls.config()).map_err(|fault| refused("internal", &fault.to_string()))?;
    let mut plaintext = Vec::new();
    loop {
        let (outgoing, progress) = {
            let _permit = link.crypto.acquire().await;
            step(&mut tls, incoming, &mut plaintext)
        };
        write_all(socket, &outgoing).await?;
        match progress.map_err(Failure::Refused)? {
            Progress::Open => return Ok((tls, plaintext)),
            Progress::PeerClosed => return Err(Failure::Gone { quiet: false }),
            Progress::Handshaking => read_more(socket, incoming).await?,
        }
    }
}

/// One synchronous step: what came in, what has to go out, and where that leads.
fn step(
    tls: &mut Tls,
    incoming: &mut Vec<u8>,
    plaintext: &mut Vec<u8>,
) -> (Vec<u8>, Result<Progress, Refusal>) {
    let mut outgoing = Vec::new();
    let taken = tls.take(incoming, &mut outgoing, |said| plaintext.extend_from_slice(said));
    let progress = taken.map_err(|error| tls::explain(&error)).map(|(taken, progress)| {
        incoming.drain(..taken);
        progress
    });
    (outgoing, progress)
}

/// Waits for more and appends it.
async fn read_more(socket: &TcpStream, incoming: &mut Vec<u8>) -> Result<(), Failure> {
    loop {
        socket.readable().await?;
        let read = scratch::with(|scratch| {
            let len = socket.try_read(&mut scratch.read)?;
            incoming.extend_from_slice(scratch.read.get(..len).unwrap_or_default());
            io::Result::Ok(len)
        });
        match read {
            Ok(0) => return Err(Failure::Gone { quiet: incoming.is_empty() }),
            Ok(_) => return Ok(()),
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Failure::Gone { quiet: incoming.is_empty() }),
        }
    }
}

async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

fn after(delay: Duration) -> Instant {
    Instant::from_std(clock::now().instant + delay)
}

fn slow(text: &str) -> Failure {
    refused("timeout", text)
}

fn refused(reason: &'static str, text: &str) -> Failure {
    Failure::Refused(Refusal::new(reason, text))
}
