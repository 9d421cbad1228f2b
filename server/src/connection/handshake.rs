//! From an accepted socket to a device whose certificate has been judged.
//!
//! What costs the server time is bounded by permits; a permit is held for one synchronous step over bytes that are already
//! there, never while a peer is waited for. So a thousand connections that stall hold sockets, and nothing else.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{Link, Unfinished, farewell, kept, scratch};
use crate::client_hello::{self, Progress as Hello};
use crate::clock;
use crate::identity::NoImei;
use crate::session::{Binding, Cause, Dialect, MAX_TRANSMIT, Rejection, Session};
use crate::tls::{self, Device, Progress, Pump, Refusal, Tls};
use crate::turns::{Overload, Turn};

/// From accept to a complete ClientHello.
const CLIENT_HELLO: Duration = Duration::from_secs(10);
/// From a complete ClientHello to the end of the handshake: a round trip or two, over a line that may take seconds for one.
/// What the server itself makes the device wait comes on top.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// The most that a device's part of the handshake takes: four certificates with RSA-4096 keys are half of it.
const MAX_FLIGHT: usize = 32 * 1024;

/// A handshake that succeeded, in no more room than it takes: many may wait for the thread of their sessions.
pub(super) struct Shaken {
    pub(super) tls: Box<Tls>,
    pub(super) device: Box<Device>,
    /// What came behind the handshake, as it came.
    pub(super) rest: Option<Box<Unfinished>>,
    /// What the handshake has still to send. The device's first words come along with the end of its part, as a rule: their
    /// answer then goes with this, in one segment and by one system call.
    pub(super) unsent: Box<[u8]>,
    /// The processor time that its steps took, if that was measured.
    pub(super) cost: Option<Duration>,
}

/// A handshake that did not.
pub(super) enum Failure {
    /// The peer was refused or broke TLS, and has been told.
    Refused { refusal: Refusal, resumed: bool },
    /// The peer went away, without having sent anything (`quiet`) or in the middle.
    Gone { quiet: bool },
}

pub(super) async fn shake(socket: &TcpStream, address: SocketAddr, link: &Link) -> Result<Shaken, Failure> {
    let hello = timeout_at(after(CLIENT_HELLO), read_client_hello(socket, link)).await;
    let mut incoming = hello.unwrap_or_else(|_| Err(slow("no complete ClientHello came within 10 s")))?;
    let turn = begin(socket, address, link, &mut incoming).await?;
    let _begun = link.metrics.tables().handshake_begun();
    let internal = |fault: rustls::Error| refused("internal", fault.to_string());
    let mut pump = Box::new(link.tls.accept().map_err(internal)?);
    let Finished { cost, unsent } = finish(socket, link, turn, &mut pump, &mut incoming).await?;
    let judged = link.tls.judge(&mut pump, clock::now()).map_err(|refusal| (refusal, Rejection::Certificate));
    let (resumed, dialect) = (pump.is_resumed(), pump.dialect());
    let tls = Tls::open(*pump).map_err(internal)?;
    match judged.and_then(|device| named_well(device, link)) {
        Ok(device) => {
            let (tls, device) = (Box::new(tls), Box::new(device));
            Ok(Shaken { tls, device, rest: kept(&incoming), unsent: unsent.into_boxed_slice(), cost })
        }
        Err((refusal, rejection)) => {
            turn_away(socket, link, tls, dialect, unsent, rejection).await;
            Err(Failure::Refused { refusal, resumed })
        }
    }
}

async fn read_client_hello(socket: &TcpStream, link: &Link) -> Result<Vec<u8>, Failure> {
    let mut incoming = Vec::new();
    loop {
        read_more(socket, link, &mut incoming).await?;
        match client_hello::progress(&incoming) {
            Hello::Unfinished => {}
            Hello::Complete => return Ok(incoming),
            Hello::NotTls => {
                let begin = String::from_utf8_lossy(incoming.get(..16).unwrap_or(&incoming)).into_owned();
                return Err(refused(
                    "not_tls",
                    format!("this is no TLS handshake, it begins with {begin:?}"),
                ));
            }
            Hello::TooLong => return Err(refused("not_tls", "the ClientHello is longer than 16 KiB")),
        }
    }
}

/// Waits for the turn to begin; nothing has cost more than a few reads so far.
async fn begin(
    socket: &TcpStream,
    address: SocketAddr,
    link: &Link,
    incoming: &mut Vec<u8>,
) -> Result<Turn, Failure> {
    let turn = link.turns.begin(address.ip()).await.map_err(|Overload| {
        refused("overload", "more devices come than this machine can serve in time; it comes again by itself")
    })?;
    // Work for one that gave up while it waited would be taken from one that did not.
    match read_what_is_there(socket, link, incoming) {
        Ok(0) => Err(Failure::Gone { quiet: false }),
        Err(fault) if fault.kind() != io::ErrorKind::WouldBlock => Err(Failure::Gone { quiet: false }),
        Ok(_) | Err(_) => Ok(turn),
    }
}

/// How the steps of a handshake ended.
struct Finished {
    cost: Option<Duration>,
    unsent: Vec<u8>,
}

/// Goes on from the ClientHello to the end of the handshake; what came behind it is left in `incoming`.
async fn finish(
    socket: &TcpStream,
    link: &Link,
    first: Turn,
    pump: &mut Pump,
    incoming: &mut Vec<u8>,
) -> Result<Finished, Failure> {
    let mut until = after(HANDSHAKE);
    let mut cost = link.capacity.is_measured_now().then_some(Duration::ZERO);
    let mut turn = Some(first);
    loop {
        let asked = clock::now().instant;
        let (outgoing, progress) = {
            let _turn = match turn.take() {
                Some(first) => first,
                None => link.turns.go_on().await,
            };
            until += clock::now().instant.saturating_duration_since(asked);
            let before = cost.map(|_| clock::processor());
            let step = step(pump, incoming);
            if let (Some(cost), Some(before)) = (&mut cost, before) {
                *cost += clock::processor().saturating_sub(before);
            }
            step
        };
        match progress {
            Ok(Progress::Open) => return Ok(Finished { cost, unsent: outgoing }),
            Ok(Progress::PeerClosed) => return Err(Failure::Gone { quiet: false }),
            Ok(Progress::Handshaking) | Err(_) => {}
        }
        link.metrics.bytes_sent(outgoing.len());
        // A device that does not take it will not answer it either, which is seen below.
        let _ = farewell::write_all(socket, &outgoing).await;
        if let Err(refusal) = progress {
            return Err(Failure::Refused { refusal, resumed: false });
        }
        let read = timeout_at(until, read_record(socket, link, incoming)).await;
        read.unwrap_or_else(|_| Err(slow("the handshake was not over within 20 s")))?;
    }
}

/// One synchronous step: what has to go out, and where that leads.
fn step(pump: &mut Pump, incoming: &mut Vec<u8>) -> (Vec<u8>, Result<Progress, Refusal>) {
    let mut outgoing = Vec::new();
    // Nothing is said before it is over.
    let taken = pump.take(incoming, &mut outgoing, |_| {});
    let progress = taken.map_err(|error| tls::explain(&error)).map(|(taken, progress)| {
        incoming.drain(..taken);
        progress
    });
    (outgoing, progress)
}

/// Waits until there is one whole record more.
async fn read_record(socket: &TcpStream, link: &Link, incoming: &mut Vec<u8>) -> Result<(), Failure> {
    let before = whole_records(incoming);
    while whole_records(incoming) == before {
        if incoming.len() > MAX_FLIGHT {
            return Err(refused("handshake", "its part of the handshake is longer than 32 KiB"));
        }
        read_more(socket, link, incoming).await?;
    }
    Ok(())
}

fn whole_records(bytes: &[u8]) -> usize {
    let (mut rest, mut records) = (bytes, 0);
    while let Some(length) = tls::first_record(rest) {
        rest = rest.get(length..).unwrap_or_default();
        records += 1;
    }
    records
}

/// Waits for more and appends it.
async fn read_more(socket: &TcpStream, link: &Link, incoming: &mut Vec<u8>) -> Result<(), Failure> {
    loop {
        let gone = Failure::Gone { quiet: incoming.is_empty() };
        if socket.readable().await.is_err() {
            return Err(gone);
        }
        match read_what_is_there(socket, link, incoming) {
            Ok(0) => return Err(gone),
            Ok(_) => return Ok(()),
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(gone),
        }
    }
}

fn read_what_is_there(socket: &TcpStream, link: &Link, incoming: &mut Vec<u8>) -> io::Result<usize> {
    scratch::with(|scratch| {
        let len = super::read_what_is_there(socket, &mut scratch.read)?;
        incoming.extend_from_slice(scratch.read.get(..len).unwrap_or_default());
        link.metrics.bytes_received(len);
        Ok(len)
    })
}

/// A certificate that is wrong about its IMEI is not the same as one that names none.
fn named_well(device: Device, link: &Link) -> Result<Device, (Refusal, Rejection)> {
    match device.certificate.imei {
        Err(fault @ (NoImei::BadUrn(_) | NoImei::Ambiguous))
            if link.policy.load().binding != Binding::Off =>
        {
            let refusal = Refusal::about("bad_identity", &fault.to_string(), device.certificate);
            Err((refusal, Rejection::NoIdentity))
        }
        _ => Ok(device),
    }
}

/// Tells a device whose handshake is over that it is not taken in. TLS has no alert for that any more, so a native device
/// is told in its own words; a classic one, which has asked nothing yet, knows none.
async fn turn_away(
    socket: &TcpStream,
    link: &Link,
    mut tls: Tls,
    dialect: Dialect,
    mut records: Vec<u8>,
    rejection: Rejection,
) {
    let now = clock::now();
    let mut session = Session::new(dialect, None, link.policy.load_full(), now);
    match dialect {
        Dialect::Native => session.reject(rejection),
        Dialect::Classic => session.end(Cause::Refused(rejection), Duration::ZERO),
    }
    let mut frame = [0; MAX_TRANSMIT];
    if let Some(len) = session.poll_transmit(&mut frame, now) {
        let said = tls.say(frame.get(..len).unwrap_or_default(), &mut [], &mut records);
        said.unwrap_or_else(|fault| debug!("TLS failed: {fault}"));
    }
    tls.close(&mut [], &mut records);
    link.metrics.bytes_sent(records.len());
    // It goes in any case.
    let _ = farewell::write_all(socket, &records).await;
}

fn after(delay: Duration) -> Instant {
    Instant::from_std(clock::now().instant + delay)
}

fn slow(text: &str) -> Failure {
    refused("timeout", text)
}

fn refused(reason: &'static str, text: impl Into<String>) -> Failure {
    Failure::Refused { refusal: Refusal::new(reason, text), resumed: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_when_they_are_whole() {
        let record = [22, 3, 3, 0, 2, 7, 7];
        assert_eq!(whole_records(&[]), 0);
        for len in 0..record.len() {
            assert_eq!(whole_records(&record[..len]), 0, "{len}");
        }
        assert_eq!(whole_records(&record), 1);
        assert_eq!(whole_records(&[&record[..], &record, &record[..6]].concat()), 2);
    }
}
