//! One session with the server, from greeting to end. Pure: bytes, deadlines and `now` in; bytes, events and the next
//! deadline out. It knows no socket, no clock and no TLS; `run.rs` owns those.
//!
//! A session lives for one link: a new link gets a new one. After every input call [`Session::poll_transmit`] and
//! [`Session::poll_event`] until both give nothing, then wait for bytes or [`Session::poll_timeout`].

mod event;
mod pace;
mod wire;

use std::time::{Duration, Instant};

use heapless::{Deque, String};
use moorline_protocol::{Imei, Status, Time, Usage};

use crate::budget::Purpose;
use crate::clock::Now;
use crate::round_trip::RoundTrip;
pub use event::{End, Event};
use pace::{Break, GRACE, Silence};
pub use pace::{Echo, Pace};
pub use wire::{Dialect, PeerError};
use wire::{Heard, Say, Wire};

/// A buffer of this size holds whatever [`Session::poll_transmit`] writes at a time.
pub const MAX_TRANSMIT: usize = moorline_protocol::DeviceMessage::MAX_ENCODED;

/// How often the time is asked for after the first time.
const TIME_EVERY: Duration = Duration::from_secs(24 * 3600);

/// A server that grants less asks for a flood; it is taken as this.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// Who the device is, as it introduces itself.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// From the modem or the configuration.
    pub imei: Imei,
    /// The product or application, a UUID.
    pub app_id: [u8; 16],
    /// The agent's version.
    pub agent_version: String<16>,
    /// The kernel's boot id.
    pub boot_id: [u8; 16],
    /// Maker and model of the modem, empty when not known.
    pub modem: String<48>,
}

/// What the configuration asks of a session.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The longest silence wanted; a native server may grant another.
    pub interval: Duration,
    /// The longest that an answer may take before it is missed; it may take this long until something was measured.
    pub timeout: Duration,
    /// What was measured on this network before.
    pub round_trip: RoundTrip,
}

/// Whether TCP still holds bytes that the server's host has not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight(pub bool);

/// Where the session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// The greeting goes out or waits for its answer.
    Greeting,
    /// The server took the device in.
    Registered,
    /// The goodbye goes out.
    Closing,
    /// Over.
    Ended,
}

/// What is to be sent, one of each kind at most: so that nothing a server sends can make this grow.
#[derive(Debug, Default)]
struct Due {
    greeting: bool,
    echo: Option<u32>,
    time: bool,
    heartbeat: bool,
    status: Option<Status>,
    /// Goes along with any of these, and never by itself.
    usage: Option<Usage>,
    goodbye: Option<u8>,
}

impl Due {
    /// Whether there is something for `usage` to go along with.
    const fn has_company(&self) -> bool {
        self.echo.is_some() || self.time || self.heartbeat || self.status.is_some() || self.goodbye.is_some()
    }
}

/// An answer that the server owes.
#[derive(Clone, Copy, Debug)]
struct Owed {
    since: Instant,
    deadline: Instant,
    /// The first deadline, from the question on.
    patience: Duration,
    /// The first deadline has passed.
    missed: bool,
}

/// One session: see the module.
#[derive(Debug)]
pub struct Session {
    wire: Wire,
    /// What the last that was said is for.
    purpose: Option<Purpose>,
    greeting: Greeting,
    /// What the greeting asks for.
    wanted: Duration,
    timeout: Duration,
    round_trip: RoundTrip,
    state: State,
    due: Due,
    events: Deque<Event, 4>,
    owed: Option<Owed>,
    silence: Silence,
    /// When the question went out that the next matching answer is timed against.
    asked: Option<Instant>,
    /// When the time was asked for, while its answer is out.
    time_asked: Option<Instant>,
    next_time: Option<Instant>,
}

impl Session {
    /// The handshake is over: the greeting is due.
    #[must_use]
    pub fn new(dialect: Dialect, greeting: Greeting, terms: Terms, now: Now) -> Self {
        let wanted = terms.interval.max(LEAST_INTERVAL);
        Self {
            wire: Wire::new(dialect),
            purpose: None,
            greeting,
            wanted,
            timeout: terms.timeout,
            round_trip: terms.round_trip,
            state: State::Greeting,
            due: Due { greeting: true, ..Due::default() },
            events: Deque::new(),
            owed: None,
            silence: Silence::new(Pace::Fixed(wanted), now),
            asked: None,
            time_asked: None,
            next_time: None,
        }
    }

    /// Takes decrypted bytes off the front of `input`, until something is to be sent or told: drain both, then call again
    /// while `input` is not empty.
    pub fn handle_bytes(&mut self, input: &mut &[u8], now: Now) {
        while self.state < State::Closing && self.due.echo.is_none() && self.events.is_empty() {
            match self.wire.hear(input) {
                Ok(Some(heard)) => self.on_heard(heard, now),
                Ok(None) => return,
                Err(fault) => return self.on_peer_error(fault),
            }
        }
        if self.state >= State::Closing {
            *input = &[];
        }
    }

    /// Call at [`Self::poll_timeout`], or earlier without harm.
    pub fn handle_timeout(&mut self, now: Now, in_flight: InFlight) {
        if self.state >= State::Closing {
            return;
        }
        match self.owed {
            Some(owed) if now.instant >= owed.deadline => self.on_missed(owed, now, in_flight),
            Some(_) => {}
            None if self.state == State::Registered => self.on_quiet(now),
            None => {}
        }
    }

    /// Writes the next thing to send to the front of `out` ([`MAX_TRANSMIT`] bytes) and returns its length.
    pub fn poll_transmit(&mut self, out: &mut [u8], now: Now) -> Option<usize> {
        loop {
            let say = self.next_due(now)?;
            let written = self.wire.say(&say, &self.greeting, out);
            match say {
                Say::Goodbye { .. } => self.end(End::Closed),
                Say::Usage(_) if written.is_some() => self.emit(Event::UsageTold),
                _ => {}
            }
            if written.is_some() {
                self.purpose = say.purpose();
                self.silence.sent(now);
                return written;
            }
        }
    }

    /// What the bytes that [`Self::poll_transmit`] wrote last are for, and their answer; `None` for the greeting, which
    /// belongs to the handshake.
    #[must_use]
    pub const fn purpose(&self) -> Option<Purpose> {
        self.purpose
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Self::handle_timeout`], at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.state, self.owed) {
            (State::Closing | State::Ended, _) => None,
            (_, Some(owed)) => Some(owed.deadline),
            (State::Greeting, None) => None,
            (State::Registered, None) => self.next_time.into_iter().chain([self.silence.deadline()]).min(),
        }
    }

    /// Ends the session from this side; `reason` is one of [`moorline_protocol::device_goodbye`].
    pub fn close(&mut self, reason: u8) {
        if self.due.greeting {
            // Nothing was said yet, so there is nothing to take leave of.
            self.end(End::Closed);
        } else if self.state < State::Closing {
            self.set_state(State::Closing);
            self.due = Due { goodbye: Some(reason), usage: self.due.usage.take(), ..Due::default() };
        }
    }

    /// Tells the server how the device and its line are, as soon as it has taken the device in; a report that has not gone
    /// out yet is replaced. It counts as a heartbeat. A classic server is told nothing: its dialect has no words for it.
    pub fn report(&mut self, status: Status) {
        if self.state < State::Closing {
            self.due.status = Some(status);
        }
    }

    /// Tells the server what the device has used, along with whatever is said next, the goodbye included: it wakes no radio
    /// and costs no headers of its own. [`Event::UsageTold`] says when; until then a later one replaces it.
    pub fn tell_usage(&mut self, usage: Usage) {
        if self.state == State::Registered {
            self.due.usage = Some(usage);
        }
    }

    /// How silences end from now on, instead of by a heartbeat after the interval granted. The server is told what it has to
    /// know. Only native servers understand any other pace than [`Pace::Fixed`].
    pub const fn set_pace(&mut self, pace: Pace) {
        self.silence.set_pace(pace);
    }

    /// Asks at once whether the way still stands, unless an answer is waited for already.
    pub fn check(&mut self) {
        self.due.heartbeat |= self.state == State::Registered && self.owed.is_none();
    }

    /// Whether the server owes an answer: only then does it matter what is in flight.
    #[must_use]
    pub const fn is_owed(&self) -> bool {
        self.owed.is_some()
    }

    /// Whether this side has just ended a silence in which a NAT may have forgotten the flow: its answer is owed, or there is
    /// none to what was said.
    #[must_use]
    pub fn is_ending_silence(&self, now: Now) -> bool {
        self.silence.was_long() && (self.owed.is_some() || self.silence.was_just_ended(now))
    }

    /// Whether something was heard to which nothing was said, in a session whose silences the server ends: the next that it
    /// says is a question, whose acknowledgement is to wait for the answer.
    pub const fn take_unanswered(&mut self) -> bool {
        self.silence.take_unanswered()
    }

    fn next_due(&mut self, now: Now) -> Option<Say> {
        if std::mem::take(&mut self.due.greeting) {
            self.ask(now);
            let heartbeat_s = u32::try_from(self.wanted.as_secs()).unwrap_or(u32::MAX);
            return Some(Say::Greeting { heartbeat_s });
        }
        // First, so that what comes back is counted as the answer to the rest.
        if self.due.has_company()
            && let Some(usage) = self.due.usage.take()
        {
            return Some(Say::Usage(usage));
        }
        if let Some(token) = self.due.echo.take() {
            return Some(Say::EchoAck { token });
        }
        if self.state == State::Registered
            && let Some(seconds) = self.silence.take_untold()
        {
            return Some(Say::Interval { seconds });
        }
        if std::mem::take(&mut self.due.time) {
            self.ask(now);
            self.time_asked = Some(now.instant);
            self.next_time = Some(now.instant + TIME_EVERY);
            return Some(Say::TimeRequest { t1: now.utc_ms });
        }
        if std::mem::take(&mut self.due.heartbeat) {
            self.ask(now);
            return Some(Say::Heartbeat);
        }
        if self.state == State::Registered
            && let Some(status) = self.due.status.take()
        {
            return Some(Say::Status(status));
        }
        self.due.goodbye.take().map(|reason| Say::Goodbye { reason })
    }

    /// A question goes out: the server owes an answer.
    fn ask(&mut self, now: Now) {
        match &self.owed {
            // Which of two questions an answer belongs to cannot be told, so it is not timed (Karn, RFC 6298 section 3).
            Some(_) => self.asked = None,
            None => {
                self.asked = Some(now.instant);
                let patience = self.patience();
                let deadline = now.instant + patience;
                self.owed = Some(Owed { since: now.instant, deadline, patience, missed: false });
            }
        }
    }

    /// How long the answer to the next question may take. A greeting's has the longest: a server that takes its fleet back in
    /// is busy, and giving it up early would make it busier.
    fn patience(&self) -> Duration {
        match self.state {
            // The Echo that did not come is before the answer in TCP's order, and it is sent again at long intervals by now.
            State::Registered if self.silence.misses_echo() => self.timeout.max(GRACE),
            State::Registered => self.round_trip.deadline(self.timeout),
            _ => self.timeout,
        }
    }

    fn on_heard(&mut self, heard: Heard, now: Now) {
        if let Heard::Echo { token } = heard {
            self.on_echo(token, now);
        }
        self.silence.heard(now);
        match (self.state, heard) {
            (_, Heard::Echo { .. }) => {}
            (_, Heard::Unknown { message }) => self.emit(Event::Skipped { message }),
            (_, Heard::Rejected(rejected)) => {
                self.end(End::Rejected { code: rejected.code, text: rejected.text });
            }
            (_, Heard::Goodbye(goodbye)) => self.end(End::Goodbye {
                reason: goodbye.reason,
                retry_after: Duration::from_secs(goodbye.retry_after_s.into()),
            }),
            (_, Heard::Forgotten) => self.end(End::Forgotten),
            (State::Greeting, Heard::Welcome(welcome)) => {
                let granted = Duration::from_secs(welcome.heartbeat_s.into()).max(LEAST_INTERVAL);
                let spread = Duration::from_secs(welcome.spread_s.into());
                self.on_registered(Some(welcome.session_id), granted, spread, now);
            }
            (State::Greeting, Heard::ClassicWelcome) => {
                self.on_registered(None, self.wanted, Duration::ZERO, now);
            }
            (State::Greeting, Heard::HeartbeatAck) => {
                self.on_peer_error(PeerError::Unexpected("an answer to a heartbeat"));
            }
            (State::Greeting, Heard::Time(_) | Heard::ClassicTime(_)) => {
                self.on_peer_error(PeerError::Unexpected("an answer to a time request"));
            }
            (_, Heard::Welcome(_) | Heard::ClassicWelcome) => {
                self.on_peer_error(PeerError::Unexpected("a second welcome"));
            }
            (_, Heard::HeartbeatAck | Heard::Nothing) => self.on_answer(now),
            (_, Heard::Time(time)) => {
                self.on_time(&time, now);
                self.on_answer(now);
            }
            (_, Heard::ClassicTime(server_ms)) => {
                self.emit(Event::Time { offset_ms: server_ms.saturating_sub(now.utc_ms), round_trip: None });
                self.on_answer(now);
            }
        }
    }

    fn on_registered(&mut self, session_id: Option<u64>, heartbeat: Duration, spread: Duration, now: Now) {
        self.set_state(State::Registered);
        self.silence.set_pace(Pace::Fixed(heartbeat));
        self.emit(Event::Registered { session_id, heartbeat, spread });
        self.on_answer(now);
        self.due.time = true;
    }

    /// Any answer proves life, whichever question it answers.
    fn on_answer(&mut self, now: Now) {
        self.owed = None;
        if let Some(asked) = self.asked.take() {
            let round_trip = now.instant.saturating_duration_since(asked);
            self.round_trip.measured(round_trip);
            self.emit(Event::Answered { round_trip });
        }
        if let Some(echo) = self.silence.answered() {
            self.emit(Event::Echo(echo));
        }
    }

    /// An Echo is no answer: it shows that the way down works, not that a question arrived.
    fn on_echo(&mut self, token: u32, now: Now) {
        let shown = self.silence.echoed(now);
        if self.silence.wants_word(shown) {
            self.due.echo = Some(token);
        }
        if let Some(echo) = shown {
            self.emit(Event::Echo(echo));
        }
    }

    /// NTP's offset and delay (RFC 5905 section 8). `t1` is reckoned back from `t4`, so that a clock that was set in
    /// between does no harm.
    fn on_time(&mut self, time: &Time, now: Now) {
        let Some(asked) = self.time_asked.take() else { return };
        let elapsed = now.instant.saturating_duration_since(asked);
        let t4 = now.utc_ms;
        let t1 = t4.saturating_sub(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX));
        let up = time.t2.saturating_sub(t1);
        let down = time.t3.saturating_sub(t4);
        let held = Duration::from_millis(u64::try_from(time.t3.saturating_sub(time.t2)).unwrap_or(0));
        self.emit(Event::Time {
            offset_ms: (up / 2).saturating_add(down / 2).saturating_add((up % 2 + down % 2) / 2),
            round_trip: Some(elapsed.saturating_sub(held)),
        });
    }

    fn on_missed(&mut self, owed: Owed, now: Now, InFlight(in_flight): InFlight) {
        if owed.missed {
            let waited = now.instant.saturating_duration_since(owed.since);
            return self.end(End::Silent { waited, acknowledged: !in_flight });
        }
        // Twice as long as before, as RFC 6298 section 5.5 has it; and a server whose host takes the questions in is given
        // all the time there is, since the way is not what keeps it.
        let patience = if in_flight { (owed.patience * 2).min(self.timeout) } else { self.timeout };
        let patience = patience.max(owed.patience);
        self.owed = Some(Owed { deadline: now.instant + patience, missed: true, ..owed });
        // A frame behind a lost frame tells nothing: TCP delivers neither. And a greeting is said once.
        self.due.heartbeat = !in_flight && self.state == State::Registered;
    }

    fn on_quiet(&mut self, now: Now) {
        if self.next_time.is_some_and(|at| now.instant >= at) {
            self.due.time = true;
            return;
        }
        match self.silence.over(now) {
            None => {}
            Some(Break::Time) => self.due.time = true,
            Some(Break::Heartbeat) => self.due.heartbeat = true,
            Some(Break::MissedEcho) => {
                self.due.heartbeat = true;
                self.emit(Event::Echo(Echo::Missing));
            }
        }
    }

    fn on_peer_error(&mut self, fault: PeerError) {
        self.end(End::Protocol(fault));
    }

    fn end(&mut self, end: End) {
        if self.state < State::Ended {
            self.set_state(State::Ended);
            self.due = Due::default();
            self.emit(Event::Ended(end));
        }
    }

    /// The one place where the state changes; it never goes back.
    fn set_state(&mut self, state: State) {
        debug_assert!(state > self.state, "{:?} -> {state:?}", self.state);
        self.state = state;
    }

    /// At most three events come of one input, and the shell drains them before the next.
    fn emit(&mut self, event: Event) {
        let _ = self.events.push_back(event);
    }
}
