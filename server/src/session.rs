//! One device's session, from its first message to its end: the twin of the agent's. Pure: bytes, deadlines and `now` in;
//! bytes, events and the next deadline out. It knows no socket, no clock, no TLS and no registry; `connection.rs` is the
//! shell around it.
//!
//! The shell hands bytes to [`Session::handle_bytes`], which stops as soon as something is to be told or sent; then it
//! drains [`Session::poll_transmit`] and [`Session::poll_event`] until both give nothing, and goes on. So nothing is ever
//! queued here, and a device that does not read its answers is not read from.
//!
//! [`Event::Registering`] is a question: the shell asks the registry and answers by [`Session::accept`] or
//! [`Session::reject`].

mod bounds;
mod refusal;
mod silence;
mod uuid;
mod wire;

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use heapless::String;
use jiff::tz::TimeZone;
use moorline_protocol::{Hello, Imei, Status, Usage, classic, device_goodbye};

use crate::clock::Now;
pub use bounds::{Bounds, LEAST, LONGEST, Wish};
pub use refusal::{Cause, Rejection};
use silence::{Due, Silence, patience};
use uuid::uuid;
pub use wire::{Dialect, PeerError};
use wire::{Heard, Say, Wire};

/// A buffer of this size holds whatever [`Session::poll_transmit`] writes at a time.
pub const MAX_TRANSMIT: usize = moorline_protocol::ServerMessage::MAX_ENCODED;

/// What the configuration asks of every session; shared by all.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How a device's certificate and its IMEI belong together.
    pub binding: Binding,
    /// The shortest heartbeat interval granted, but for devices with [`Bounds`] of their own.
    pub heartbeat_min: Duration,
    /// The longest.
    pub heartbeat_max: Duration,
    /// How long a classic device may be silent.
    pub classic_idle: Duration,
    /// How long after the handshake the first message may take.
    pub first_message: Duration,
    /// The least window over which devices spread their return when the server stops or is lost; what handshakes are
    /// measured to cost widens it.
    pub spread: Duration,
    /// The zone in which classic devices are told the time.
    pub time_zone: TimeZone,
}

/// How a device's certificate and its IMEI belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The certificate names the IMEI that the device registers.
    Required,
    /// If the certificate names one, it is that.
    IfPresent,
    /// The certificate's IMEI is not looked at.
    Off,
}

/// A device that wants to be taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Who it is: as registered, or as its certificate says when a classic device has not registered (yet).
    pub imei: Imei,
    /// The product or application, a UUID; `None` while a classic device has not registered.
    pub app_id: Option<[u8; 16]>,
    /// The agent's version; empty from a classic device.
    pub agent_version: String<16>,
    /// The modem's maker and model, where the device said it.
    pub modem: String<48>,
    /// The kernel's boot id; a classic device has none.
    pub boot_id: Option<[u8; 16]>,
    /// How long it wishes to be silent at most; a classic device keeps its own interval.
    pub heartbeat: Option<Wish>,
}

/// What happened. The large ones are boxed: they are rare, and a session keeps room for any of them.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A device wants in: answer by `accept` or `reject`. A classic one that was taken in by its certificate's IMEI and
    /// registers afterwards asks again, with its `app_id`.
    Registering(Box<Registration>),
    /// A heartbeat came.
    Heartbeat,
    /// The time was asked for.
    TimeAsked,
    /// The device told how it is.
    Status(Box<Status>),
    /// The device told what it has used of its budget.
    Usage(Box<Usage>),
    /// The device told how long it may be silent from now on, within this server's bounds.
    Interval(Duration),
    /// An Echo came back.
    EchoAck {
        /// The token of that Echo.
        token: u32,
    },
    /// A message that this version does not know was skipped.
    Skipped {
        /// Its discriminant, or a classic message id.
        message: u32,
    },
    /// The session is over: flush, then close. Nothing follows.
    Ended(Cause),
}

/// Where the session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing came yet that tells who this is.
    ExpectHello,
    /// [`Event::Registering`] waits for its answer; `then` is the classic request that brought it up.
    ExpectVerdict { wanted_s: Option<u32>, then: Option<Then> },
    /// The device is taken in. `registered`: by a message of its own, not by its certificate alone.
    Registered { registered: bool },
    /// A classic device that nobody knows, since its certificate names no IMEI and need not: served, not listed.
    Anonymous,
    /// The last words go out.
    Closing(Cause),
    /// Over.
    Ended,
}

/// The request of a classic device that is answered once its certificate's IMEI is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Heartbeat,
    Time,
    Unknown(i8),
}

/// One session: see the module.
#[derive(Debug)]
pub struct Session {
    policy: Arc<Policy>,
    wire: Wire,
    certified: Option<Imei>,
    bounds: Bounds,
    state: State,
    say: Option<Say>,
    /// Two at the most, the first one first.
    events: [Option<Event>; 2],
    silence: Silence,
    /// Frames since they were last asked for.
    heard: u32,
}

impl Session {
    /// The handshake is over. `certified` is the IMEI that the client's certificate names.
    #[must_use]
    pub fn new(dialect: Dialect, certified: Option<Imei>, policy: Arc<Policy>, now: Now) -> Self {
        Self {
            wire: Wire::new(dialect),
            certified,
            bounds: Bounds::NONE,
            state: State::ExpectHello,
            say: None,
            events: [None, None],
            silence: Silence::new(now.instant, policy.first_message),
            policy,
            heard: 0,
        }
    }

    /// Takes decrypted bytes off the front of `input`, until something is to be told or sent or all is taken.
    pub fn handle_bytes(&mut self, input: &mut &[u8], now: Now) {
        while self.is_listening() && self.say.is_none() && self.events[0].is_none() {
            match self.wire.hear(input) {
                Ok(Some(heard)) => {
                    self.heard = self.heard.saturating_add(1);
                    self.on_heard(heard, now);
                }
                Ok(None) => return,
                Err(fault) => self.on_peer_error(fault),
            }
        }
        if matches!(self.state, State::Closing(_) | State::Ended) {
            *input = &[];
        }
    }

    /// How many frames came since the last call.
    pub const fn take_heard(&mut self) -> u32 {
        mem::replace(&mut self.heard, 0)
    }

    /// Call at [`Self::poll_timeout`], or earlier without harm.
    pub fn handle_timeout(&mut self, now: Now) {
        if matches!(self.state, State::Closing(_) | State::Ended) {
            return;
        }
        match self.silence.due(now.instant) {
            Some(Due::Echo(token)) => self.echo(token.into()),
            Some(Due::End) => {
                let cause = if self.state == State::ExpectHello { Cause::NoHello } else { Cause::Idle };
                self.end(cause, Duration::ZERO);
            }
            None => {}
        }
    }

    /// Writes the next thing to send to the front of `out` ([`MAX_TRANSMIT`] bytes) and returns its length.
    pub fn poll_transmit(&mut self, out: &mut [u8], now: Now) -> Option<usize> {
        let written = self.say.take().and_then(|say| self.wire.say(say, &self.policy.time_zone, now, out));
        if let State::Closing(cause) = self.state {
            self.state = State::Ended;
            self.emit(Event::Ended(cause));
        }
        written
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        let [first, second] = &mut self.events;
        mem::replace(first, second.take())
    }

    /// When to call [`Self::handle_timeout`], at the latest. Every message moves it, so look again when it has come.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Closing(_) | State::Ended => None,
            _ => Some(self.silence.deadline()),
        }
    }

    /// An operator bounded this device apart from the fleet. Call it before [`Self::accept`].
    pub const fn bound(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// The registry took the device in. `spread` is the window over which it returns, should this server be lost.
    pub fn accept(&mut self, session_id: u64, spread: Duration) {
        let State::ExpectVerdict { wanted_s, then } = self.state else { return };
        let heartbeat = wanted_s.map(|seconds| self.wish(seconds).granted(self.bounds));
        self.silence.wait_out(heartbeat.map_or(self.policy.classic_idle, patience));
        self.state = State::Registered { registered: then.is_none() };
        self.say = Some(match then {
            None => Say::Welcome {
                session_id,
                heartbeat_s: heartbeat.map_or(0, whole_seconds),
                spread_s: whole_seconds(spread),
            },
            Some(then) => self.answer(then),
        });
    }

    /// The registry does not take the device in.
    pub fn reject(&mut self, rejection: Rejection) {
        self.say = Some(match self.state {
            State::ExpectVerdict { then: Some(Then::Heartbeat), .. } => {
                Say::ClassicError { message: classic::id::HEARTBEAT }
            }
            State::ExpectVerdict { then: Some(Then::Time), .. } => {
                Say::ClassicError { message: classic::id::DATETIME }
            }
            _ => Say::Rejected(rejection),
        });
        self.state = State::Closing(Cause::Refused(rejection));
    }

    /// Asks whether the way down works.
    pub fn echo(&mut self, token: u32) {
        if matches!(self.state, State::Registered { .. }) {
            self.say = Some(Say::Echo { token });
        }
    }

    /// Ends the session from this side, with a Goodbye where the device understands one.
    pub fn end(&mut self, cause: Cause, retry_after: Duration) {
        if matches!(self.state, State::Closing(_) | State::Ended) {
            return;
        }
        self.say =
            cause.goodbye().map(|reason| Say::Goodbye { reason, retry_after_s: whole_seconds(retry_after) });
        self.state = State::Closing(cause);
    }

    const fn is_listening(&self) -> bool {
        !matches!(self.state, State::ExpectVerdict { .. } | State::Closing(_) | State::Ended)
    }

    fn on_heard(&mut self, heard: Heard, now: Now) {
        self.silence.broken(now.instant);
        match self.wire.dialect() {
            Dialect::Native => self.on_native(heard, now),
            Dialect::Classic => self.on_classic(&heard),
        }
    }

    fn on_native(&mut self, heard: Heard, now: Now) {
        match (&self.state, heard) {
            (State::ExpectHello, Heard::Hello(hello)) => self.on_hello(hello),
            (_, Heard::Unknown { message }) => self.emit(Event::Skipped { message }),
            (State::ExpectHello, _) => self.on_peer_error(PeerError::BeforeHello),
            (_, Heard::Hello(_)) => self.on_peer_error(PeerError::SecondHello),
            (_, Heard::Heartbeat) => self.say = Some(self.answer(Then::Heartbeat)),
            (_, Heard::TimeRequest { t1 }) => {
                self.emit(Event::TimeAsked);
                self.say = Some(Say::Time { t1, t2: now.utc_ms });
            }
            (_, Heard::Status(status)) => self.emit(Event::Status(Box::new(status))),
            (_, Heard::Usage(usage)) => self.emit(Event::Usage(Box::new(usage))),
            (_, Heard::Interval { seconds }) => {
                let longest = self.wish(seconds).granted(self.bounds);
                self.silence.told(longest);
                self.emit(Event::Interval(longest));
            }
            (_, Heard::EchoAck { token }) => self.emit(Event::EchoAck { token }),
            (_, Heard::Goodbye { reason }) => {
                self.state = State::Closing(Cause::Goodbye { reason });
            }
            // The native decoder makes none of these.
            (_, Heard::Register { .. } | Heard::ClassicUnknown { .. }) => {}
        }
    }

    fn on_hello(&mut self, hello: Hello) {
        match self.identify(Imei::try_from(hello.imei).map_err(Rejection::BadImei)) {
            Err(rejection) => self.reject(rejection),
            Ok(imei) => {
                self.state = State::ExpectVerdict { wanted_s: Some(hello.heartbeat_s), then: None };
                self.emit(Event::Registering(Box::new(Registration {
                    imei,
                    app_id: Some(hello.app_id),
                    agent_version: hello.agent_version,
                    modem: hello.modem,
                    boot_id: Some(hello.boot_id),
                    heartbeat: Some(self.wish(hello.heartbeat_s)),
                })));
            }
        }
    }

    fn on_classic(&mut self, heard: &Heard) {
        let then = match heard {
            Heard::Register { app_id, imei } => return self.on_register(app_id, imei),
            Heard::Heartbeat => Then::Heartbeat,
            Heard::TimeRequest { .. } => Then::Time,
            Heard::ClassicUnknown { message } => Then::Unknown(*message),
            // The classic decoder makes none of the others.
            _ => return,
        };
        match self.state {
            State::ExpectHello => self.on_unregistered(then),
            _ => self.say = Some(self.answer(then)),
        }
    }

    fn on_register(&mut self, app_id: &[u8], imei: &[u8]) {
        if self.state == (State::Registered { registered: true }) {
            self.say = Some(Say::ClassicError { message: classic::id::REGISTER });
            return;
        }
        let claimed = std::str::from_utf8(imei)
            .map_err(|_| moorline_protocol::ImeiError::NotDigits)
            .and_then(str::parse)
            .map_err(Rejection::BadImei);
        let known = self.identify(claimed).and_then(|imei| match uuid(app_id) {
            Some(app_id) => Ok((imei, app_id)),
            None => Err(Rejection::BadAppId),
        });
        match known {
            Err(rejection) => self.reject(rejection),
            Ok((imei, app_id)) => {
                self.state = State::ExpectVerdict { wanted_s: None, then: None };
                self.emit(Event::Registering(classic_registration(imei, Some(app_id))));
            }
        }
    }

    /// A classic device registers once per process and not again after a reconnect, so it is known by its certificate.
    fn on_unregistered(&mut self, then: Then) {
        match (self.policy.binding, self.certified) {
            (_, Some(imei)) => {
                self.state = State::ExpectVerdict { wanted_s: None, then: Some(then) };
                self.emit(Event::Registering(classic_registration(imei, None)));
            }
            (Binding::Required, None) => {
                self.state = State::ExpectVerdict { wanted_s: None, then: Some(then) };
                self.reject(Rejection::NoIdentity);
            }
            (Binding::IfPresent | Binding::Off, None) => {
                self.silence.wait_out(self.policy.classic_idle);
                self.state = State::Anonymous;
                self.say = Some(self.answer(then));
            }
        }
    }

    fn answer(&mut self, then: Then) -> Say {
        match then {
            Then::Heartbeat => {
                self.emit(Event::Heartbeat);
                Say::HeartbeatAck
            }
            Then::Time => {
                self.emit(Event::TimeAsked);
                Say::Time { t1: 0, t2: 0 }
            }
            Then::Unknown(message) => {
                self.emit(Event::Skipped { message: u32::from(message.cast_unsigned()) });
                Say::ClassicError { message }
            }
        }
    }

    /// Holds the IMEI that a device claims against the one that its certificate names.
    fn identify(&self, claimed: Result<Imei, Rejection>) -> Result<Imei, Rejection> {
        let claimed = claimed?;
        match (self.policy.binding, self.certified) {
            (Binding::Off, _) | (Binding::IfPresent, None) => Ok(claimed),
            (Binding::Required, None) => Err(Rejection::NoIdentity),
            (_, Some(certified)) if certified == claimed => Ok(claimed),
            (_, Some(certified)) => Err(Rejection::Mismatch { certified, claimed }),
        }
    }

    /// What a device says of its longest silence.
    fn wish(&self, seconds: u32) -> Wish {
        let Policy { heartbeat_min: min, heartbeat_max: max, .. } = *self.policy;
        Wish { wanted: Duration::from_secs(seconds.into()), min, max }
    }

    fn on_peer_error(&mut self, fault: PeerError) {
        self.end(Cause::Protocol(fault), Duration::ZERO);
    }

    /// At most two events come of one input, and the shell drains them before the next.
    fn emit(&mut self, event: Event) {
        if let Some(free) = self.events.iter_mut().find(|event| event.is_none()) {
            *free = Some(event);
        }
    }
}

fn classic_registration(imei: Imei, app_id: Option<[u8; 16]>) -> Box<Registration> {
    Box::new(Registration {
        imei,
        app_id,
        agent_version: String::new(),
        modem: String::new(),
        boot_id: None,
        heartbeat: None,
    })
}

fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Whether a device said goodbye because it was asked to stop, rather than because something went wrong.
#[must_use]
pub const fn is_planned(reason: u8) -> bool {
    matches!(reason, device_goodbye::STOPPING | device_goodbye::RELOADING)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a session costs beside TLS: SPECIFICATION.md promises the sum.
    #[test]
    fn session_is_small() {
        assert!(size_of::<Session>() <= 184, "{}", size_of::<Session>());
    }
}
