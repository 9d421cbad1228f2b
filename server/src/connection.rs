//! One device's connection: the shell around [`Session`]. It owns the socket and the waiting; what to say is the session's
//! matter, who may stay the registry's.
//!
//! ```text
//!   socket ─► records ─► Tls ─► plaintext ─► Session ─► Event ─► registry, metrics
//!   socket ◄─ records ◄─ Tls ◄─ frames ◄──── Session
//! ```
//!
//! While it waits, a connection owns no buffer: see `scratch`.

mod exit;
mod handshake;
mod scratch;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{debug, info};

use crate::clock::{self, Now};
use crate::identity::Certificate;
use crate::listener::Seat;
use crate::metrics::Metrics;
use crate::refusals::Refusals;
use crate::registry::{Peer, Presence, Registry};
use crate::session::{Cause, Dialect, Event, MAX_TRANSMIT, Policy, Registration, Session};
use crate::tls::{Device, Progress, Tls, TlsSource};
pub use exit::{Exit, Order};
use handshake::{Failure, Shaken};
use scratch::Scratch;

/// How long a device may leave what it is sent untaken.
const WRITE_STALL: Duration = Duration::from_secs(30);

/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What all connections share.
pub struct Link {
    /// TLS's configuration in force.
    pub tls: TlsSource,
    /// What every session is asked.
    pub policy: Arc<Policy>,
    /// Who is online.
    pub registry: Arc<Registry>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Handshake steps that run at once.
    pub crypto: Semaphore,
    /// Who was refused, said without flooding the log.
    pub refusals: Refusals,
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    socket: TcpStream,
    address: SocketAddr,
    link: Arc<Link>,
    seat: Seat,
    exit: Arc<Exit>,
) {
    // Boxed, so that what only a handshake needs is given back when it is over.
    let began = clock::now();
    let shaken = tokio::select! {
        shaken = Box::pin(handshake::shake(&socket, &link)) => shaken,
        order = exit.ordered() => return debug!(%address, "sent away before it said who it is: {}", order.cause),
    };
    let seconds = clock::now().instant.saturating_duration_since(began.instant).as_secs_f64();
    match shaken {
        Ok(shaken) => {
            link.metrics.handshake("ok", shaken.device.resumed, seconds);
            let mut connection = Connection::new(socket, address, shaken, link, seat, exit);
            let cause = connection.run().await;
            connection.conversation.leave(cause);
        }
        Err(Failure::Refused(refusal)) => {
            link.metrics.handshake(refusal.reason, false, seconds);
            link.refusals.handshake(address, &refusal, &link.registry);
        }
        // A connection that was opened and closed is a port check, as load balancers make them.
        Err(Failure::Gone { quiet: true }) => debug!(%address, "opened and closed without a word"),
        Err(Failure::Gone { quiet: false }) => {
            link.metrics.handshake("gone", false, seconds);
            debug!(%address, "went away during the handshake");
        }
    }
}

/// An open connection.
struct Connection {
    socket: TcpStream,
    tls: Tls,
    /// The beginning of a record that is not finished; empty nearly always.
    rest: Vec<u8>,
    /// Records that the socket did not take; while there are any, nothing is read.
    unsent: Vec<u8>,
    unsent_since: Option<std::time::Instant>,
    conversation: Conversation,
}

/// The session and those it speaks of, apart from the bytes.
struct Conversation {
    session: Session,
    /// Who it is, until the registry has heard of it.
    device: Box<Device>,
    address: SocketAddr,
    presence: Option<Arc<Presence>>,
    ended: Option<Cause>,
    link: Arc<Link>,
    seat: Seat,
    exit: Arc<Exit>,
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
        let Shaken { tls, device, rest, plaintext } = shaken;
        let now = clock::now();
        let imei = device.certificate.named_imei();
        let session = Session::new(device.dialect, imei, Arc::clone(&link.policy), now);
        let device = Box::new(device);
        let conversation =
            Conversation { session, device, address, presence: None, ended: None, link, seat, exit };
        let mut connection = Self { socket, tls, rest, unsent: Vec::new(), unsent_since: None, conversation };
        scratch::with(|scratch| {
            connection.conversation.hear(&plaintext, scratch, now);
            connection.send(scratch);
        });
        connection
    }

    /// Until the session is over; why it is.
    async fn run(&mut self) -> Cause {
        let mut alarm = pin!(sleep_until(self.deadline()));
        loop {
            if let Some(cause) = self.conversation.ended {
                self.take_leave().await;
                return cause;
            }
            if let Err(cause) = self.turn(alarm.as_mut()).await {
                return cause;
            }
        }
    }

    /// Waits for the next thing to happen and reacts to it.
    async fn turn(&mut self, mut alarm: std::pin::Pin<&mut Sleep>) -> Result<(), Cause> {
        let blocked = !self.unsent.is_empty();
        tokio::select! {
            biased;
            order = self.conversation.exit.ordered() => {
                self.conversation.session.end(order.cause, order.retry_after);
                self.speak();
            }
            ready = self.socket.writable(), if blocked => {
                ready.map_err(|_| Cause::Lost)?;
                self.flush()?;
            }
            ready = self.socket.readable(), if !blocked => {
                ready.map_err(|_| Cause::Lost)?;
                self.read()?;
            }
            () = &mut alarm => {
                self.on_alarm()?;
                // Deadlines only ever move on, so the alarm is set anew when it rings and not at each message.
                let next = self.deadline();
                alarm.as_mut().reset(next);
            }
        }
        Ok(())
    }

    fn deadline(&self) -> Instant {
        let session = self.conversation.session.poll_timeout();
        let stall = self.unsent_since.map(|since| since + WRITE_STALL);
        // A session without a deadline is over, which `run` sees first.
        let next = session.into_iter().chain(stall).min();
        Instant::from_std(next.unwrap_or_else(|| clock::now().instant + WRITE_STALL))
    }

    fn on_alarm(&mut self) -> Result<(), Cause> {
        let now = clock::now();
        if self.unsent_since.is_some_and(|since| now.instant >= since + WRITE_STALL) {
            return Err(Cause::Stalled);
        }
        self.conversation.session.handle_timeout(now);
        self.speak();
        Ok(())
    }

    /// Sends what the session has to say of itself.
    fn speak(&mut self) {
        scratch::with(|scratch| {
            self.conversation.drain(scratch, clock::now());
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
            self.conversation.link.metrics.bytes_received(len);
            let result = self.hear(len, scratch);
            self.send(scratch);
            result
        })
    }

    /// Takes the first `len` bytes of the read buffer, behind what is left of an unfinished record.
    fn hear(&mut self, len: usize, scratch: &mut Scratch) -> Result<(), Cause> {
        let now = clock::now();
        let mut read = std::mem::take(&mut scratch.read);
        let mut joined = std::mem::take(&mut self.rest);
        let incoming = if joined.is_empty() {
            read.get_mut(..len).unwrap_or_default()
        } else {
            joined.extend_from_slice(read.get(..len).unwrap_or_default());
            &mut joined
        };
        let mut records = std::mem::take(&mut scratch.records);
        let taken = self.tls.take(incoming, &mut records, |plaintext| {
            self.conversation.hear(plaintext, scratch, now);
        });
        scratch.records = records;
        if let Ok((taken, _)) = taken {
            self.rest = incoming.get(taken..).unwrap_or_default().to_vec();
        }
        scratch.read = read;
        match taken {
            Ok((_, Progress::PeerClosed)) if self.conversation.ended.is_none() => Err(Cause::Closed),
            Ok(_) => Ok(()),
            Err(_) => Err(Cause::Lost),
        }
    }

    /// Makes records of the frames and gives them to the socket.
    fn send(&mut self, scratch: &mut Scratch) {
        let Scratch { frames, records, .. } = scratch;
        for frame in frames.iter() {
            if self.tls.say(frame, records).is_err() {
                self.conversation.ended.get_or_insert(Cause::Internal);
            }
        }
        self.write(records);
    }

    /// Gives records to the socket; what it does not take waits.
    fn write(&mut self, records: &[u8]) {
        let written = if self.unsent.is_empty() && !records.is_empty() {
            self.socket.try_write(records).unwrap_or(0)
        } else {
            0
        };
        self.conversation.link.metrics.bytes_sent(records.len());
        if let Some(unsent) = records.get(written..).filter(|unsent| !unsent.is_empty()) {
            self.unsent.extend_from_slice(unsent);
            self.unsent_since.get_or_insert(clock::now().instant);
        }
    }

    fn flush(&mut self) -> Result<(), Cause> {
        match self.socket.try_write(&self.unsent) {
            Ok(written) => {
                self.unsent.drain(..written);
                self.unsent_since = (!self.unsent.is_empty()).then(|| clock::now().instant);
                if self.unsent.is_empty() {
                    self.unsent = Vec::new();
                }
                Ok(())
            }
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Cause::Lost),
        }
    }

    /// Sends what is still unsent and close_notify, as far as the device takes it in time.
    async fn take_leave(&mut self) {
        let mut records = Vec::new();
        self.tls.close(&mut records);
        self.write(&records);
        let until = Instant::from_std(clock::now().instant + LAST_WORDS);
        while !self.unsent.is_empty() {
            let ready = tokio::time::timeout_at(until, self.socket.writable()).await;
            if !matches!(ready, Ok(Ok(()))) || self.flush().is_err() {
                return;
            }
        }
    }
}

impl Conversation {
    fn hear(&mut self, plaintext: &[u8], scratch: &mut Scratch, now: Now) {
        let mut input = plaintext;
        while !input.is_empty() {
            self.session.handle_bytes(&mut input, now);
            self.drain(scratch, now);
        }
        if let Some(presence) = &self.presence {
            presence.heard(now);
        }
    }

    /// Takes out of the session what it has to say and to tell.
    fn drain(&mut self, scratch: &mut Scratch, now: Now) {
        let mut frame = [0; MAX_TRANSMIT];
        loop {
            if let Some(len) = self.session.poll_transmit(&mut frame, now) {
                scratch.frames.push(frame.get(..len).unwrap_or_default());
            } else if let Some(event) = self.session.poll_event() {
                self.on_event(event, now);
            } else {
                return;
            }
        }
    }

    fn on_event(&mut self, event: Event, now: Now) {
        let metrics = &self.link.metrics;
        match event {
            Event::Registering(registration) => self.on_registering(*registration, now),
            Event::Heartbeat => metrics.heartbeat(),
            Event::TimeAsked => metrics.time_asked(),
            Event::Skipped { .. } => metrics.skipped(),
            Event::Status(_) | Event::EchoAck { .. } => {}
            Event::Ended(cause) => self.ended = Some(cause),
        }
    }

    fn on_registering(&mut self, registration: Registration, now: Now) {
        // A classic device that was taken in by its certificate and registers now leaves its first entry for another.
        let former = self.presence.take();
        let ender: Arc<Exit> = Arc::clone(&self.exit);
        let taken_in = self.link.registry.register(registration, self.peer(), ender, former, now);
        match taken_in {
            Ok(presence) => {
                self.seat.register();
                self.session.accept(presence.session_id);
                self.presence = Some(presence);
            }
            Err(rejection) => self.session.reject(rejection),
        }
    }

    fn peer(&self) -> Peer {
        let Device { dialect, certificate, version, .. } = &*self.device;
        Peer { address: self.address, dialect: *dialect, tls: version, certificate: certificate.clone() }
    }

    /// The connection is over.
    fn leave(&mut self, cause: Cause) {
        let now = clock::now();
        match (self.presence.take(), cause) {
            (Some(presence), cause) => self.link.registry.leave(&presence, cause, now),
            (None, Cause::Refused(rejection)) => {
                self.link.refusals.device(
                    self.address,
                    rejection,
                    &self.device.certificate,
                    &self.link.registry,
                );
            }
            (None, cause) => info!(address = %self.address, "ended before it registered: {cause}"),
        }
    }
}

impl Drop for Conversation {
    /// A task that panicked must not leave its device online.
    fn drop(&mut self) {
        if self.presence.is_some() {
            self.leave(Cause::Internal);
        }
    }
}
