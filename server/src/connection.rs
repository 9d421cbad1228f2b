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

use std::future::{Future as _, poll_fn};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{debug, warn};

use crate::capacity::Capacity;
use crate::clock::{self, Now};
use crate::exit::{Exit, Order};
use crate::log::{self, ConnectionId};
use crate::metrics::Metrics;
use crate::proxy::Networks;
use crate::refusals::Refusals;
use crate::registry::Registry;
use crate::seats::{Seat, Seats};
use crate::session::{Cause, Policy};
use crate::threads::{self, Homes};
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
    /// Where sessions live once hands are shaken.
    pub homes: Homes<Newcomer>,
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
                shaken.cost.into_iter().for_each(|cost| link.capacity.note(cost));
            }
            let newcomer = Newcomer { socket, address, id, shaken, link: Arc::clone(&link), seat, exit };
            link.homes.settle(newcomer);
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

/// A device that has shaken hands, on its way to the thread that its session is to live on.
pub struct Newcomer {
    socket: TcpStream,
    address: SocketAddr,
    id: ConnectionId,
    shaken: Shaken,
    link: Arc<Link>,
    seat: Seat,
    exit: Arc<Exit>,
}

/// Leaves a connection to a task of its own, on the thread that this is called on.
pub(crate) fn live(newcomer: Newcomer) {
    let Newcomer { socket, address, id, shaken, link, seat, exit } = newcomer;
    let socket = match cared_for_here(socket) {
        Ok(socket) => socket,
        // As when the kernel has no memory; the device comes again by itself.
        Err(fault) => return log::about_now(id, || warn!(%address, "a connection was lost: {fault}")),
    };
    let begin = || Connection::new(socket, address, shaken, link, seat, exit);
    let mut connection = log::about_now(id, begin);
    // A block that captures, and no function that takes: a future keeps an argument and what it is moved to.
    tokio::spawn(log::about(id, async move {
        if let Some(cause) = connection.run().await {
            // Boxed, or every session kept room for it.
            Box::pin(connection.take_leave(cause)).await;
        }
    }));
}

/// The same socket, in the care of this thread and no longer of the one that shook hands.
fn cared_for_here(socket: TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(socket.into_std()?)
}

/// What a connection waits for.
enum Due {
    /// It was told to go.
    Order(Order),
    /// The socket can be read; or written, where something is unsent.
    Socket(io::Result<()>),
    /// The session's deadline has come.
    Alarm,
}

/// An open connection.
struct Connection {
    socket: TcpStream,
    tls: Box<Tls>,
    /// The beginning of a record that is not finished; there is none nearly always.
    rest: Option<Box<Unfinished>>,
    unsent: Option<Box<Unsent>>,
    conversation: Conversation,
}

/// The beginning of a record.
struct Unfinished(Vec<u8>);

/// Records that the socket did not take; while there are any, nothing is read.
struct Unsent {
    records: Vec<u8>,
    since: std::time::Instant,
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
        let Shaken { tls, device, rest, unsent, cost: _ } = shaken;
        let now = clock::now();
        let conversation = Conversation::new(device, address, link, seat, exit, now);
        let mut connection = Self { socket, tls, rest, unsent: None, conversation };
        scratch::with(|scratch| {
            scratch.records.extend_from_slice(&unsent);
            // What came behind the handshake is there already.
            match connection.take(0, scratch, now) {
                Ok(()) => connection.send(scratch),
                Err(cause) => connection.conversation.end_by(cause),
            }
        });
        connection
    }

    /// Until the session ends; with the cause for which leave is to be taken, if there is anybody left to take it of.
    #[expect(clippy::disallowed_methods, reason = "the one place that waits for a session's deadline")]
    async fn run(&mut self) -> Option<Cause> {
        let mut alarm = pin!(sleep_until(self.deadline()));
        loop {
            if let Some(cause) = self.conversation.ended() {
                self.conversation.leave(cause);
                return Some(cause);
            }
            let due = poll_fn(|context| self.poll_due(alarm.as_mut(), context)).await;
            if let Err(cause) = self.turn(due, alarm.as_mut()) {
                self.conversation.leave(cause);
                return None;
            }
            // Messages move the deadline on, and the alarm is set anew when it rings; a shorter patience moves it back.
            let next = self.deadline();
            if next < alarm.deadline() {
                alarm.as_mut().reset(next);
            }
        }
    }

    /// The next thing that happens. By hand and not by `select!`, whose futures every session would keep room for.
    fn poll_due(&mut self, alarm: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<Due> {
        if let Poll::Ready(order) = self.conversation.poll_ordered(context) {
            return Poll::Ready(Due::Order(order));
        }
        let socket = if self.unsent.is_none() {
            self.socket.poll_read_ready(context)
        } else {
            self.socket.poll_write_ready(context)
        };
        if let Poll::Ready(ready) = socket {
            return Poll::Ready(Due::Socket(ready));
        }
        alarm.poll(context).map(|()| Due::Alarm)
    }

    /// Reacts to it.
    fn turn(&mut self, due: Due, alarm: Pin<&mut Sleep>) -> Result<(), Cause> {
        match due {
            Due::Order(order) => {
                self.conversation.end(order.cause, order.retry_after);
                self.speak();
            }
            Due::Socket(ready) => {
                threads::worked();
                ready.map_err(|_| Cause::Lost)?;
                if self.unsent.is_none() { self.read()? } else { self.flush()? }
            }
            Due::Alarm => {
                self.on_alarm()?;
                let next = self.deadline();
                alarm.reset(next);
            }
        }
        Ok(())
    }

    fn deadline(&self) -> Instant {
        let stall = self.unsent.as_ref().map(|unsent| unsent.since + WRITE_STALL);
        let next = self.conversation.deadline().into_iter().chain(stall).min();
        // A session without a deadline is over, which `run` sees before it waits.
        Instant::from_std(next.unwrap_or_else(|| clock::now().instant + WRITE_STALL))
    }

    fn on_alarm(&mut self) -> Result<(), Cause> {
        let now = clock::now();
        if self.unsent.as_ref().is_some_and(|unsent| now.instant >= unsent.since + WRITE_STALL) {
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
            let len = match read_what_is_there(&self.socket, &mut scratch.read) {
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
        let mut joined = self.rest.take();
        let incoming = match &mut joined {
            Some(joined) => {
                joined.0.extend_from_slice(read);
                joined.0.as_mut_slice()
            }
            None => read,
        };
        let conversation = &mut self.conversation;
        let taken = self.tls.take(incoming, records, |plaintext| conversation.hear(plaintext, frames, now));
        let (taken, progress) = taken.map_err(|fault| {
            debug!("TLS failed: {fault}");
            // The alert that tells the device why.
            self.write(records);
            Cause::Lost
        })?;
        let rest = incoming.get(taken..).unwrap_or_default();
        if progress == Progress::PeerClosed {
            // In good order.
            self.conversation.end_by(Cause::Closed);
        }
        if rest.len() > MAX_REST {
            return Err(Cause::Lost);
        }
        self.rest = kept(rest);
        Ok(())
    }

    /// Makes records of the frames and gives them to the socket.
    fn send(&mut self, scratch: &mut Scratch) {
        let Scratch { frames, records, .. } = scratch;
        for frame in frames.records(self.conversation.dialect()) {
            if let Err(fault) = self.tls.say(frame, rest_of(&mut self.rest), records) {
                debug!("TLS failed: {fault}");
                self.conversation.end_by(Cause::Internal);
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
        let written = if self.unsent.is_none() { self.socket.try_write(records).unwrap_or(0) } else { 0 };
        let left = records.get(written..).unwrap_or_default();
        if !left.is_empty() {
            let begin = || Box::new(Unsent { records: Vec::new(), since: clock::now().instant });
            self.unsent.get_or_insert_with(begin).records.extend_from_slice(left);
        }
    }

    fn flush(&mut self) -> Result<(), Cause> {
        let Some(unsent) = &mut self.unsent else { return Ok(()) };
        match self.socket.try_write(&unsent.records) {
            Ok(written) => {
                unsent.records.drain(..written);
                unsent.since = clock::now().instant;
                if unsent.records.is_empty() {
                    self.unsent = None;
                }
                Ok(())
            }
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Cause::Lost),
        }
    }

    /// Sends what is still unsent and close_notify, as far as the device takes it in time.
    async fn take_leave(&mut self, cause: Cause) {
        let mut records = self.unsent.take().map_or_else(Vec::new, |unsent| unsent.records);
        let before = records.len();
        self.tls.close(rest_of(&mut self.rest), &mut records);
        self.conversation.count_sent(records.len() - before);
        let _ = farewell::write_all(&self.socket, &records).await;
        // One that was sent away for its descriptor has to give it back now.
        if cause != Cause::NoHello {
            farewell::hear_out(&self.socket).await;
        }
    }
}

/// What is left of what came, in no more room than it takes.
fn kept(rest: &[u8]) -> Option<Box<Unfinished>> {
    (!rest.is_empty()).then(|| Box::new(Unfinished(rest.to_vec())))
}

fn rest_of(kept: &mut Option<Box<Unfinished>>) -> &mut [u8] {
    kept.as_mut().map_or(&mut [], |rest| &mut rest.0)
}

/// Reads once. A read that fell short has emptied the socket, and readiness comes as an edge: so it is over, and a second
/// read for each heartbeat would only find that out.
fn read_what_is_there(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = None;
    let tried = socket.try_io(Interest::READABLE, || {
        let len = (&*SockRef::from(socket)).read(buffer)?;
        read = Some(len);
        let is_short = (1..buffer.len()).contains(&len);
        if is_short { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    read.ok_or_else(|| tried.err().unwrap_or_else(|| io::ErrorKind::WouldBlock.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a future holds that `make` makes.
    const fn size<F>(_: fn(Connection) -> F) -> usize {
        size_of::<F>()
    }

    /// With tokio's own part and the log's, the task of a session that waits fits five blocks of 128 bytes, as tokio aligns it.
    #[test]
    fn waiting_session_is_small() {
        let size = size(|mut connection| async move { connection.run().await });
        assert!(size <= 504, "{size}");
    }
}
