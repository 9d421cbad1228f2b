//! The road to the server, from offline to online and back: one state, one `set_state`. Owns the deadlines of each step;
//! the loop in `run.rs` owns the poll and the clock and calls [`Uplink::turn`].

mod failure;
mod keeping;
mod server_time;
mod spending;
mod state;
mod surroundings;

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moorline_config::HumanDuration;
use moorline_protocol::{Imei, device_goodbye};
use rustix::event::PollFlags;

use crate::address::Address;
use crate::backoff::Backoff;
use crate::clock::{Now, Utc};
use crate::config::Config;
use crate::diagnosis::{Diagnosis, Step as At};
use crate::dns::Resolver;
use crate::fault::{Fault, LONGEST_ABSENCE, Moment};
use crate::identification::Model;
use crate::ledger::Ledger;
use crate::link::{Link, LinkError};
use crate::log;
use crate::round::{Round, Step, Target};
use crate::session::{Event, Greeting};
use crate::tcp;
use crate::timekeeper::Timekeeper;
use crate::tls::Tls;
use crate::trusted_time::TrustedTime;
use keeping::Keeping;
use server_time::ServerTime;
use state::State;

/// The system's resolver asks two servers twice with 5 s each by default: this is the end of all that.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Four SYNs go out in this time, at 0, 1, 3 and 7 s, and the answer to the last has 8 s: a radio that wakes up, or a
/// congested cell, takes a few.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Two round trips and four signatures; more than this only on a line that would carry no session.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the Goodbye may take: the exit has one second in all.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(600);

/// See the module.
#[derive(Debug)]
pub struct Uplink {
    config: Config,
    tls: Tls,
    timekeeper: Timekeeper,
    backoff: Backoff,
    ledger: Ledger,
    /// The session that stands, or stood last, was begun to save bytes.
    thrifty: bool,
    resolver: Resolver,
    round: Round,
    greeting: Option<Greeting>,
    state: State,
    /// The state's name, also while it is taken apart.
    label: &'static str,
    /// What went wrong last, and when.
    last_fault: Option<(i64, String)>,
    diagnosis: Diagnosis,
    /// The wait for the next try is for a way that is gone, and may be cut short when the network changes.
    may_hurry: bool,
    round_trip: Option<Duration>,
    keeping: Keeping,
    /// Something happened that operators should see.
    news: bool,
}

impl Uplink {
    /// Stands still until [`Self::identify`].
    #[must_use]
    pub fn new(config: Config, tls: Tls, time: Arc<TrustedTime>, seed: u64) -> Self {
        Self {
            backoff: Backoff::new(config.reconnect, seed),
            ledger: Ledger::open(config.budget, &config.state_dir),
            thrifty: false,
            timekeeper: Timekeeper::new(&config, time),
            round: Round::new(0, config.server.protocol),
            resolver: Resolver::default(),
            greeting: None,
            state: State::Nameless,
            label: State::Nameless.label(),
            last_fault: None,
            diagnosis: Diagnosis::new(config.modem.reset),
            may_hurry: false,
            round_trip: None,
            keeping: Keeping::new(&config),
            news: true,
            config,
            tls,
        }
    }

    /// Who the device is is known now. A session under another IMEI ends.
    pub fn identify(&mut self, greeting: Greeting, now: Now) {
        let changed = self.greeting.as_ref().is_some_and(|old| old.imei != greeting.imei);
        self.greeting = Some(greeting);
        if matches!(self.state, State::Nameless) {
            self.set_state(State::offline(now, Duration::ZERO), format_args!(""));
        } else if changed {
            self.leave(device_goodbye::RELOADING, now);
        }
    }

    /// How the device introduces itself under the configuration in force.
    #[must_use]
    pub fn greeting(&self, imei: Imei, modem: Model, boot_id: [u8; 16]) -> Greeting {
        Greeting {
            imei,
            app_id: self.config.identity.app_id.0,
            agent_version: env!("CARGO_PKG_VERSION").try_into().unwrap_or_default(),
            boot_id,
            modem,
        }
    }

    /// A new configuration is in force. What it does not touch goes on.
    pub fn reconfigure(&mut self, config: Config, tls: Tls, now: Now) {
        let keeps = config.keeps_session_of(&self.config);
        self.backoff.set_limits(config.reconnect);
        self.ledger.reconfigure(config.budget, &config.state_dir);
        self.timekeeper.reconfigure(&config);
        self.keeping.configure(&config);
        self.diagnosis.set_policy(config.modem.reset);
        self.config = config;
        if keeps {
            log::info(format_args!("server and identity are as before: the session stands"));
            return;
        }
        self.tls = tls;
        self.leave(device_goodbye::RELOADING, now);
    }

    /// Something happened to the system clock: another time may count, and shown times stand for others.
    pub fn handle_clock_set(&mut self) {
        self.timekeeper.tell();
        self.news = true;
    }

    /// Which time counts, in words that follow "clock".
    #[must_use]
    pub const fn timekeeper(&self) -> &Timekeeper {
        &self.timekeeper
    }

    /// What to wait for, beside [`Self::deadline`].
    #[must_use]
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.state.interest()
    }

    /// When [`Self::turn`] has something to do, whatever comes.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.state.deadline().into_iter().chain(self.ledger.deadline()).min()
    }

    /// Does all that is ready or due. `ready` is what the poll found at [`Self::interest`].
    pub fn turn(&mut self, mut ready: PollFlags, now: Now) {
        loop {
            let before = self.label;
            self.advance(ready, now);
            if self.label == before {
                return self.settle(now);
            }
            // What was ready belonged to the state before; the new one may have something to say at once.
            ready = PollFlags::empty();
        }
    }

    /// Says Goodbye, if there is somebody to say it to; [`Self::is_gone`] once that is over.
    pub fn leave(&mut self, reason: u8, now: Now) {
        match mem::take(&mut self.state) {
            State::Registering { link, .. } | State::Online { link, .. } => {
                let deadline = now.instant + LEAVE_TIMEOUT;
                self.set_state(State::Leaving { link, reason, sent: false, deadline }, format_args!(""));
                self.turn(PollFlags::empty(), now);
            }
            leaving @ State::Leaving { .. } => self.state = leaving,
            _ => self.set_state(State::Left, format_args!("")),
        }
    }

    /// Whether [`Self::leave`] has come to its end.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.state, State::Left)
    }

    /// Comes back after [`Self::leave`].
    pub fn come_back(&mut self, now: Now) {
        let state = match self.greeting {
            Some(_) => State::offline(now, Duration::ZERO),
            None => State::Nameless,
        };
        self.set_state(state, format_args!(""));
    }

    /// Whether something happened since the last call that [`fmt::Display`] shows.
    pub fn take_news(&mut self) -> bool {
        mem::take(&mut self.news)
    }

    fn advance(&mut self, ready: PollFlags, now: Now) {
        match &mut self.state {
            State::Nameless | State::Left => {}
            State::Offline { until, .. } => {
                if now.instant >= *until {
                    self.begin_round(now);
                }
            }
            State::Resolving { server, lookup, deadline } => {
                let (server, late) = (*server, now.instant >= *deadline);
                match lookup.poll() {
                    Some(Ok(addresses)) => {
                        self.round.resolved(addresses);
                        self.next_step(now);
                    }
                    Some(Err(error)) => self.on_unresolved(server, &error.to_string(), now),
                    None if late => self.on_unresolved(server, "no answer from the name servers", now),
                    None => {}
                }
            }
            State::Connecting { socket, deadline, .. } => {
                if !ready.is_empty() {
                    let outcome = tcp::finish(socket);
                    self.on_connected(outcome, now);
                } else if now.instant >= *deadline {
                    self.on_connected(Err(io::Error::other("no answer")), now);
                }
            }
            State::Handshaking { .. } => self.shake_hands(ready, now),
            State::Registering { .. } | State::Online { .. } => self.serve(ready, now),
            State::Leaving { link, reason, sent, deadline } => {
                *sent = *sent || link.take_leave(*reason, now);
                if now.instant >= *deadline || (*sent && link.is_left()) {
                    self.set_state(State::Left, format_args!(""));
                }
            }
        }
    }

    /// Takes the round's next step; several when some fail at once.
    fn next_step(&mut self, now: Now) {
        loop {
            match self.round.next(&self.config.server.addresses) {
                Step::Resolve(server) => {
                    let Address { host, port, .. } = &self.config.server.addresses[server];
                    match self.resolver.look_up(host, *port) {
                        Ok(lookup) => {
                            self.ledger.count_lookup();
                            let detail = host.clone();
                            let deadline = now.instant + RESOLVE_TIMEOUT;
                            let state = State::Resolving { server, lookup, deadline };
                            return self.set_state(state, format_args!(": {detail}"));
                        }
                        Err(error) => {
                            self.note(now, At::Name, &format!("{host}: cannot be looked up: {error}"));
                        }
                    }
                }
                Step::Connect(target) => {
                    if let Err(wait) = self.ledger.attempt(now) {
                        return self.wait(wait, now);
                    }
                    match tcp::begin(target.address, self.config.heartbeat.timeout * 2) {
                        Ok(socket) => {
                            let deadline = now.instant + CONNECT_TIMEOUT;
                            let state = State::Connecting { target, socket, deadline };
                            return self.set_state(state, format_args!(" to {}", target.address));
                        }
                        Err(error) => self.on_failed(target, &Fault::of_connect(&error), now),
                    }
                }
                Step::Exhausted(cause) => return self.go_offline(cause, Duration::ZERO, None, now),
            }
        }
    }

    fn on_unresolved(&mut self, server: usize, why: &str, now: Now) {
        self.keeping.on_unreachable();
        let host = &self.config.server.addresses[server].host;
        self.note(now, At::Name, &format!("{host}: cannot be looked up: {why}"));
        self.next_step(now);
    }

    fn on_connected(&mut self, outcome: io::Result<()>, now: Now) {
        let State::Connecting { target, socket, .. } = mem::take(&mut self.state) else { return };
        let name = self.config.server.addresses[target.server].name.clone();
        self.timekeeper.tell();
        let opened = match outcome {
            Ok(()) => self
                .tls
                .connection(name, target.native)
                .map_err(|error| Fault::network(At::Tls, error.to_string())),
            Err(error) => {
                self.ledger.count_unanswered(target.address);
                Err(Fault::of_connect(&error))
            }
        };
        match opened {
            Ok(tls) => {
                let link = Box::new(Link::new(socket, target.address, tls, self.ledger.tally()));
                let deadline = now.instant + HANDSHAKE_TIMEOUT;
                self.set_state(State::Handshaking { target, link, deadline }, format_args!(""));
            }
            Err(fault) => self.on_tried(target, &fault, now),
        }
    }

    fn shake_hands(&mut self, ready: PollFlags, now: Now) {
        let State::Handshaking { target, link, deadline } = &mut self.state else { return };
        let target = *target;
        let moved = move_bytes(link, ready, now).and_then(|()| link.poll(now));
        match moved {
            Err(error) => self.on_tried(target, &Fault::of_link(&error, Moment::Handshake, now.utc_ms), now),
            Ok(_) if link.is_secured() => self.register(now),
            Ok(_) if now.instant >= *deadline => {
                let text = "no TLS handshake within 30 s: what accepts the connection says nothing";
                self.on_tried(target, &Fault::network(At::Tls, text), now);
            }
            Ok(_) => {}
        }
    }

    /// Moves bytes and hears the session's events.
    fn serve(&mut self, ready: PollFlags, now: Now) {
        let mut moved = match &mut self.state {
            State::Registering { link, .. } | State::Online { link, .. } => move_bytes(link, ready, now),
            _ => return,
        };
        while moved.is_ok() {
            let (State::Registering { link, .. } | State::Online { link, .. }) = &mut self.state else {
                return;
            };
            match link.poll(now) {
                Ok(None) => return,
                Ok(Some(event)) => {
                    self.news |= self.keeping.on_event(&event, link, now.instant);
                    match event {
                        Event::Ended(end) => return self.on_lost(&Fault::of_session(&end), now),
                        event => self.on_event(&event, now),
                    }
                }
                Err(error) => moved = Err(error),
            }
        }
        if let Err(error) = moved {
            self.keeping.on_broken(&error);
            let moment = match &self.state {
                State::Online { link, .. } if link.is_ending_silence(now) => Moment::SilenceEnded,
                State::Online { .. } => Moment::Online,
                _ => Moment::Greeted,
            };
            self.on_lost(&Fault::of_link(&error, moment, now.utc_ms), now);
        }
    }

    fn on_event(&mut self, event: &Event, now: Now) {
        match *event {
            Event::Registered { session_id, heartbeat, spread } => {
                self.on_registered(session_id, heartbeat, spread, now);
            }
            Event::Answered { round_trip } => self.round_trip = Some(round_trip),
            Event::Time { offset_ms, round_trip } => {
                self.on_time(offset_ms, round_trip, now);
            }
            Event::Skipped { message } => {
                log::info(format_args!("skipped message {message}, which is not known here"));
            }
            Event::UsageTold => self.ledger.handle_told(now),
            // The caller has taken them.
            Event::Echo(_) | Event::Ended(_) => {}
        }
    }

    fn on_registered(&mut self, session: Option<u64>, heartbeat: Duration, spread: Duration, now: Now) {
        let State::Registering { link, .. } = mem::take(&mut self.state) else { return };
        self.diagnosis.handle_online();
        let state = State::Online { link, since: now, spread };
        let heartbeat = HumanDuration(heartbeat);
        match session {
            Some(id) => {
                self.set_state(state, format_args!(": registered as session {id}, heartbeat {heartbeat}"));
            }
            None => self.set_state(state, format_args!(": registered, heartbeat {heartbeat}")),
        }
        self.ledger.handle_session();
        self.book(now);
    }

    fn on_time(&mut self, offset_ms: i64, round_trip: Option<Duration>, now: Now) {
        log::info(format_args!("{}", ServerTime { utc_ms: now.utc_ms, offset_ms, round_trip }));
        // A classic server's text says neither zone nor way.
        if let (Some(_), State::Online { link, .. }) = (round_trip, &self.state) {
            self.ledger.learn_time(now.utc_ms.saturating_add(offset_ms), now);
            self.timekeeper.handle_server_time(link.server_chain(), offset_ms, now);
        }
    }

    /// The link under a session that was begun is over.
    fn on_lost(&mut self, fault: &Fault, now: Now) {
        match mem::take(&mut self.state) {
            // Asked to come back later, or judged by the server: its other addresses would say the same.
            State::Registering { target, .. } if fault.retry_after.is_none() => {
                self.on_tried(target, fault, now);
            }
            State::Online { since, spread, .. } => {
                let healthy = now.instant.saturating_duration_since(since.instant);
                self.note(now, At::Session, &fault.text);
                if fault.server_lost {
                    let delay = self.backoff.server_lost(healthy, spread.min(LONGEST_ABSENCE));
                    self.rest(delay, false, now);
                } else {
                    self.go_offline(fault.cause, healthy, fault.retry_after, now);
                }
            }
            _ => {
                self.note(now, fault.step, &fault.text);
                self.go_offline(fault.cause, Duration::ZERO, fault.retry_after, now);
            }
        }
    }

    /// Nothing came of a target: on to the next one.
    fn on_tried(&mut self, target: Target, fault: &Fault, now: Now) {
        self.on_failed(target, fault, now);
        self.next_step(now);
    }

    fn set_state(&mut self, state: State, detail: fmt::Arguments<'_>) {
        let (old, new) = (self.label, state.label());
        log::info(format_args!("{old} -> {new}{detail}"));
        self.label = new;
        self.state = state;
        self.news = true;
    }
}

/// The state in words, for `systemctl status` and the status file: one line each for what there is to say.
impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)?;
        if let (State::Online { .. }, Some(round_trip)) = (&self.state, self.round_trip) {
            write!(f, ", round trip {}, {}", HumanDuration(round_trip), self.keeping)?;
            write!(f, ", {}", self.ledger.month())?;
        }
        if let Some((at, text)) = &self.last_fault {
            write!(f, "; last fault at {}: {text}", Utc(*at))?;
        }
        Ok(())
    }
}

/// What the poll found, and what time has brought.
fn move_bytes(link: &mut Link, ready: PollFlags, now: Now) -> Result<(), LinkError> {
    if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
        link.handle_readable(now)?;
    }
    link.handle_timeout(now)
}
