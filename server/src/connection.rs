//! One device's connection: the shell around its session. It owns the socket and the waiting; what to say is the session's
//! matter, who may stay the registry's.
//!
//! ```text
//!   socket ─► records ─► Tls ─► plaintext ─► Session ─► Event ─► registry, metrics
//!   socket ◄─ records ◄─ Tls ◄─ frames ◄──── Session
//! ```
//!
//! While it waits, a connection owns no buffer: see `scratch`.

mod conversation;
mod farewell;
mod handshake;
mod scratch;

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use crate::capacity::Capacity;
use crate::clock::{self, Now};
use crate::exit::Exit;
use crate::log::{self, ConnectionId};
use crate::metrics::Metrics;
use crate::proxy::Networks;
use crate::refusals::Refusals;
use crate::registry::Registry;
use crate::seats::{Seat, Seats};
use crate::session::{Cause, Policy};
use crate::tls::{Progress, Tls, TlsSource};
use crate::turns::Turns;
use conversation::Conversation;
use handshake::{Failure, Shaken};
use scratch::Scratch;

/// How long a device may leave what it is sent untaken.
const WRITE_STALL: Duration = Duration::from_secs(30);

/// The most that is kept of what came and cannot be taken yet: a TLS record is at most 18,437 bytes long, and after the
/// handshake no message of TLS itself is longer than one.
const MAX_REST: usize = 20 * 1024;

/// What all connections share.
pub struct Link {
    /// TLS's configuration in force.
    pub tls: TlsSource,
    /// What new sessions are asked; those that stand keep theirs.
    pub policy: ArcSwap<Policy>,
    /// Who is online.
    pub registry: Arc<Registry>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What handshakes cost, and how fast a fleet may return.
    pub capacity: Arc<Capacity>,
    /// Whose handshake is worked on.
    pub turns: Arc<Turns>,
    /// Who holds a descriptor.
    pub seats: Arc<Seats>,
    /// Whose word on where a device comes from is believed.
    pub proxies: Networks,
    /// Who was refused, said without flooding the log.
    pub refusals: Refusals,
}

impl Link {
    /// The window over which this server's devices are to return, should it be lost.
    pub(crate) fn window(&self) -> Duration {
        self.capacity.window(self.registry.most_online(), self.policy.load().spread)
    }
}

/// Shakes hands, and leaves a device that is let in to a task of its own: what only a handshake needs is given back then.
pub(crate) async fn serve(
    socket: TcpStream,
    address: SocketAddr,
    id: ConnectionId,
    link: Arc<Link>,
    seat: Seat,
    exit: Arc<Exit>,
) {
    let began = clock::now();
    let shaken = tokio::select! {
        biased;
        order = exit.ordered() => return debug!(%address, "sent away during the handshake: {}", order.cause),
        shaken = handshake::shake(&socket, address, &link) => shaken,
    };
    let seconds = clock::now().instant.saturating_duration_since(began.instant).as_secs_f64();
    match shaken {
        Ok(shaken) => {
            link.metrics.shaken(shaken.device.resumed, seconds);
            if !shaken.device.resumed {
                link.capacity.note(shaken.cost);
            }
            let mut connection = Connection::new(socket, address, shaken, link, seat, exit);
            // A block that captures, and no function that takes: a future keeps an argument and what it is moved to.
            tokio::spawn(log::about(id, async move { connection.run().await }));
        }
        Err(Failure::Refused { refusal, resumed }) => {
            link.metrics.not_shaken(refusal.reason, resumed, seconds);
            link.refusals.handshake(address, &refusal, &link);
            farewell::hear_out(&socket).await;
        }
        // A connection that was opened and closed is a port check, as load balancers make them.
        Err(Failure::Gone { quiet: true }) => debug!(%address, "opened and closed without a word"),
        Err(Failure::Gone { quiet: false }) => {
            link.metrics.not_shaken("gone", false, seconds);
            debug!(%address, "went away during the handshake");
        }
    }
}

/// An open connection.
struct Connection {
    socket: TcpStream,
    tls: Box<Tls>,
    /// The beginning of a record that is not finished; empty nearly always.
    rest: Vec<u8>,
    /// Records that the socket did not take; while there are any, nothing is read.
    unsent: Vec<u8>,
    unsent_since: Option<std::time::Instant>,
    conversation: Conversation,
}

impl Connection {
    fn new(
        socket: TcpStream,
        address: SocketAddr,
        shaken: Shaken,
        link: Arc<Link>,
        seat: Seat,
        exit: Arc<Exit>,
    ) -> Self {
        let Shaken { tls, device, rest, plaintext, closed, cost: _ } = shaken;
        let now = clock::now();
        let conversation = Conversation::new(device, address, link, seat, exit, now);
        let mut connection = Self { socket, tls, rest, unsent: Vec::new(), unsent_since: None, conversation };
        scratch::with(|scratch| {
            connection.conversation.hear(&plaintext, &mut scratch.frames, now);
            if closed {
                connection.conversation.closed();
            }
            connection.send(scratch);
        });
        connection
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that waits for a session's deadline")]
    async fn run(&mut self) {
        let mut alarm = pin!(sleep_until(self.deadline()));
        loop {
            if let Some(cause) = self.conversation.ended() {
                self.conversation.leave(cause);
                return self.take_leave(cause).await;
            }
            if let Err(cause) = self.turn(alarm.as_mut()).await {
                return self.conversation.leave(cause);
            }
            // Messages move the deadline on, and the alarm is set anew when it rings; a shorter patience moves it back.
            let next = self.deadline();
            if next < alarm.deadline() {
                alarm.as_mut().reset(next);
            }
        }
    }

    /// Waits for the next thing to happen and reacts to it.
    async fn turn(&mut self, mut alarm: Pin<&mut Sleep>) -> Result<(), Cause> {
        let blocked = !self.unsent.is_empty();
        let interest = if blocked { Interest::WRITABLE } else { Interest::READABLE };
        tokio::select! {
            biased;
            order = self.conversation.ordered() => {
                self.conversation.end(order.cause, order.retry_after);
                self.speak();
            }
            ready = self.socket.ready(interest) => {
                ready.map_err(|_| Cause::Lost)?;
                if blocked { self.flush()? } else { self.read()? }
            }
            () = alarm.as_mut() => {
                self.on_alarm()?;
                let next = self.deadline();
                alarm.reset(next);
            }
        }
        Ok(())
    }

    fn deadline(&self) -> Instant {
        let stall = self.unsent_since.map(|since| since + WRITE_STALL);
        let next = self.conversation.deadline().into_iter().chain(stall).min();
        // A session without a deadline is over, which `run` sees before it waits.
        Instant::from_std(next.unwrap_or_else(|| clock::now().instant + WRITE_STALL))
    }

    fn on_alarm(&mut self) -> Result<(), Cause> {
        let now = clock::now();
        if self.unsent_since.is_some_and(|since| now.instant >= since + WRITE_STALL) {
            return Err(Cause::Stalled);
        }
        self.conversation.on_timeout(now);
        self.speak();
        Ok(())
    }

    /// Sends what the session has to say of itself.
    fn speak(&mut self) {
        scratch::with(|scratch| {
            self.conversation.drain(&mut scratch.frames, clock::now());
            self.send(scratch);
        });
    }

    fn read(&mut self) -> Result<(), Cause> {
        scratch::with(|scratch| {
            let len = match self.socket.try_read(&mut scratch.read) {
                Ok(0) => return Err(Cause::Lost),
                Ok(len) => len,
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Cause::Lost),
            };
            let now = clock::now();
            if self.conversation.may_stay(&mut self.tls, len, now) {
                self.take(len, scratch, now)?;
            } else {
                self.conversation.drain(&mut scratch.frames, now);
            }
            self.send(scratch);
            Ok(())
        })
    }

    /// Takes the first `len` bytes of the read buffer, behind what is left of an unfinished record.
    fn take(&mut self, len: usize, scratch: &mut Scratch, now: Now) -> Result<(), Cause> {
        let Scratch { read, records, frames } = scratch;
        let read = read.get_mut(..len).unwrap_or_default();
        let mut joined = mem::take(&mut self.rest);
        let continued = !joined.is_empty();
        if continued {
            joined.extend_from_slice(read);
        }
        let incoming = if continued { joined.as_mut_slice() } else { &mut *read };
        let conversation = &mut self.conversation;
        let taken = self.tls.take(incoming, records, |plaintext| conversation.hear(plaintext, frames, now));
        let (taken, progress) = taken.map_err(|fault| {
            debug!("TLS failed: {fault}");
            // The alert that tells the device why.
            self.write(records);
            Cause::Lost
        })?;
        if continued {
            joined.drain(..taken);
            self.rest = if joined.is_empty() { Vec::new() } else { joined };
        } else {
            self.rest = read.get(taken..).unwrap_or_default().to_vec();
        }
        if progress == Progress::PeerClosed {
            self.conversation.closed();
        }
        if self.rest.len() > MAX_REST { Err(Cause::Lost) } else { Ok(()) }
    }

    /// Makes records of the frames and gives them to the socket.
    fn send(&mut self, scratch: &mut Scratch) {
        let Scratch { frames, records, .. } = scratch;
        for frame in frames.records(self.conversation.dialect()) {
            if let Err(fault) = self.tls.say(frame, &mut self.rest, records) {
                debug!("TLS failed: {fault}");
                self.conversation.failed();
            }
        }
        self.write(records);
    }

    /// Gives records to the socket; what it does not take waits.
    fn write(&mut self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        self.conversation.count_sent(records.len());
        // A fault shows again when the rest is flushed.
        let written = if self.unsent.is_empty() { self.socket.try_write(records).unwrap_or(0) } else { 0 };
        let unsent = records.get(written..).unwrap_or_default();
        if !unsent.is_empty() {
            self.unsent.extend_from_slice(unsent);
            self.unsent_since.get_or_insert_with(|| clock::now().instant);
        }
    }

    fn flush(&mut self) -> Result<(), Cause> {
        match self.socket.try_write(&self.unsent) {
            Ok(written) => {
                self.unsent.drain(..written);
                if self.unsent.is_empty() {
                    self.unsent = Vec::new();
                    self.unsent_since = None;
                } else {
                    self.unsent_since = Some(clock::now().instant);
                }
                Ok(())
            }
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Cause::Lost),
        }
    }

    /// Sends what is still unsent and close_notify, as far as the device takes it in time.
    async fn take_leave(&mut self, cause: Cause) {
        let before = self.unsent.len();
        self.tls.close(&mut self.rest, &mut self.unsent);
        self.conversation.count_sent(self.unsent.len() - before);
        let _ = farewell::write_all(&self.socket, &self.unsent).await;
        // One that was sent away for its descriptor has to give it back now.
        if cause != Cause::NoHello {
            farewell::hear_out(&self.socket).await;
        }
    }
}
