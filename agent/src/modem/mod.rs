//! The modem: who it says it is, and how it stands with its network. `at.rs` and `survey.rs` are the dialogues, `answer.rs`
//! and `condition.rs` what an answer means, `port.rs` the device, `identity.rs` what is remembered of it, and `watch.rs`
//! reads it now and then. Here is [`Search`], which walks the ports until one tells an IMEI.
//!
//! It never blocks and never reads the clock: a loop polls what it offers and tells it the time.

pub mod answer;
pub mod at;
pub mod condition;
pub mod identity;
mod line;
pub mod manager;
mod port;
pub mod survey;
pub mod watch;

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use moorline_protocol::Imei;
use rustix::event::PollFlags;

use at::Dialogue;
pub use at::{Failure, Model};
pub use port::OpenError;
use port::{Opening, Port};

/// A node is root's for a moment after plugging, until udev gives it to its group.
const PERMISSION_GRACE: Duration = Duration::from_secs(2);
const PERMISSION_RETRY: Duration = Duration::from_millis(250);

/// A driver that takes longer has lost its device.
const OPEN_WAIT: Duration = Duration::from_secs(5);

/// A modem that told its IMEI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The IMEI.
    pub imei: Imei,
    /// The port that told it.
    pub port: PathBuf,
    /// The command that it answered.
    pub command: &'static str,
    /// Maker and model, empty when not told.
    pub modem: Model,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A modem told its IMEI. Nothing follows.
    Found(Found),
    /// This port, or no port of this pattern, told one.
    PortFailed {
        /// The port, or the pattern.
        port: PathBuf,
        /// Why.
        why: Why,
    },
    /// No port is left. Nothing follows.
    Exhausted,
}

/// Why a port told no IMEI.
#[derive(Debug)]
pub enum Why {
    /// It cannot be asked.
    Open(OpenError),
    /// It was asked in vain.
    Asked(Box<Failure>),
    /// It vanished while it was asked.
    Unplugged,
    /// The search's time was up before its turn.
    NotAsked,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Asked(failure) => failure.fmt(f),
            Self::Unplugged => f.write_str("the modem was unplugged while it was asked"),
            Self::NotAsked => f.write_str("not asked: the time is up"),
        }
    }
}

impl From<OpenError> for Why {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// Asks one port after the other. Wait for [`Self::interest`] or [`Self::poll_timeout`], call [`Self::handle_ready`] or
/// [`Self::handle_timeout`], then [`Self::poll_event`] until it gives nothing.
#[derive(Debug)]
pub struct Search {
    baud: u32,
    started: Instant,
    deadline: Instant,
    /// Front first; the port of `state` is no longer among them.
    ports: VecDeque<PathBuf>,
    state: State,
    events: VecDeque<Event>,
}

#[derive(Debug)]
enum State {
    /// The next port's turn.
    Idle,
    Opening {
        path: PathBuf,
        opening: Opening,
        deadline: Instant,
    },
    /// Permission was denied and may come.
    Waiting {
        path: PathBuf,
        until: Instant,
    },
    Asking(Box<Asking>),
    Over,
}

/// A port and the dialogue with it.
#[derive(Debug)]
struct Asking {
    path: PathBuf,
    port: Port,
    dialogue: Dialogue,
}

impl Search {
    /// Finds the ports of `patterns` and begins with the first. It is over after `limit`.
    #[must_use]
    pub fn new(patterns: &[String], baud: u32, limit: Duration, now: Instant) -> Self {
        let (ports, problems) = port::expand(patterns);
        let problem = |(port, error)| Event::PortFailed { port, why: Why::Open(error) };
        let mut search = Self {
            baud,
            started: now,
            deadline: now + limit,
            ports: ports.into(),
            state: State::Idle,
            events: problems.into_iter().map(problem).collect(),
        };
        search.advance(now);
        search
    }

    /// What to wait for, beside [`Self::poll_timeout`].
    #[must_use]
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.state {
            State::Opening { opening, .. } => Some((opening.as_fd(), PollFlags::IN)),
            State::Asking(asking) => Some((asking.port.as_fd(), asking.port.interest())),
            State::Idle | State::Waiting { .. } | State::Over => None,
        }
    }

    /// When [`Self::handle_timeout`] is due; `None` when it is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = match &self.state {
            State::Over => return None,
            State::Idle => self.deadline,
            State::Opening { deadline, .. } => *deadline,
            State::Waiting { until, .. } => *until,
            State::Asking(asking) => asking.dialogue.poll_timeout().unwrap_or(self.deadline),
        };
        Some(next.min(self.deadline))
    }

    /// What happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The descriptor of [`Self::interest`] is ready.
    pub fn handle_ready(&mut self, now: Instant) {
        match &mut self.state {
            State::Opening { opening, .. } => {
                if let Some(result) = opening.poll() {
                    self.on_opened(result, now);
                }
            }
            State::Asking(asking) => {
                let result = asking.exchange(now);
                self.on_exchanged(result, now);
            }
            State::Idle | State::Waiting { .. } | State::Over => {}
        }
    }

    /// The deadline of [`Self::poll_timeout`] may have come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.deadline {
            return self.on_time_up();
        }
        match &mut self.state {
            State::Opening { deadline, .. } if now >= *deadline => self.fail(OpenError::Hangs.into(), now),
            State::Waiting { path, until } if now >= *until => {
                let path = std::mem::take(path);
                self.open(path, now);
            }
            State::Asking(asking) => {
                asking.dialogue.handle_timeout(now);
                let result = asking.send();
                self.on_exchanged(result, now);
            }
            State::Idle | State::Opening { .. } | State::Waiting { .. } | State::Over => {}
        }
    }

    /// Begins with the next port, if there is one.
    fn advance(&mut self, now: Instant) {
        match self.ports.pop_front() {
            Some(path) => self.open(path, now),
            None => self.end(Event::Exhausted),
        }
    }

    fn open(&mut self, path: PathBuf, now: Instant) {
        match Opening::start(&path, self.baud) {
            Ok(opening) => self.state = State::Opening { path, opening, deadline: now + OPEN_WAIT },
            Err(error) => {
                self.events.push_back(Event::PortFailed { port: path, why: error.into() });
                self.advance(now);
            }
        }
    }

    fn on_opened(&mut self, result: Result<Port, OpenError>, now: Instant) {
        let State::Opening { path, .. } = &mut self.state else { return };
        match result {
            Ok(port) => {
                let (path, dialogue) = (std::mem::take(path), Dialogue::new(now));
                self.state = State::Asking(Box::new(Asking { path, port, dialogue }));
            }
            Err(OpenError::Permission) if now < self.started + PERMISSION_GRACE => {
                self.state = State::Waiting { path: std::mem::take(path), until: now + PERMISSION_RETRY };
            }
            Err(error) => self.fail(error.into(), now),
        }
    }

    fn on_exchanged(&mut self, result: Result<(), port::Unplugged>, now: Instant) {
        let State::Asking(asking) = &mut self.state else { return };
        if result.is_err() {
            asking.dialogue.handle_end();
        }
        match (asking.dialogue.poll_event(), result) {
            (Some(at::Event::Found { imei, command, model }), _) => self.on_found(imei, command, model),
            (_, Err(port::Unplugged)) => self.fail(Why::Unplugged, now),
            (Some(at::Event::Failed(failure)), Ok(())) => self.fail(Why::Asked(failure), now),
            (None, Ok(())) => {}
        }
    }

    /// What was told until now counts; whatever is left has no turn.
    fn on_time_up(&mut self) {
        match &mut self.state {
            State::Asking(asking) => {
                asking.dialogue.handle_end();
                match asking.dialogue.poll_event() {
                    Some(at::Event::Found { imei, command, model }) => {
                        return self.on_found(imei, command, model);
                    }
                    Some(at::Event::Failed(failure)) => self.report(Why::Asked(failure)),
                    None => {}
                }
            }
            State::Opening { .. } => self.report(OpenError::Hangs.into()),
            State::Waiting { .. } => self.report(OpenError::Permission.into()),
            State::Idle => {}
            State::Over => return,
        }
        for port in std::mem::take(&mut self.ports) {
            self.events.push_back(Event::PortFailed { port, why: Why::NotAsked });
        }
        self.end(Event::Exhausted);
    }

    fn on_found(&mut self, imei: Imei, command: &'static str, modem: Model) {
        let port = self.take_path();
        self.end(Event::Found(Found { imei, port, command, modem }));
    }

    fn fail(&mut self, why: Why, now: Instant) {
        self.report(why);
        self.advance(now);
    }

    fn report(&mut self, why: Why) {
        let port = self.take_path();
        self.state = State::Idle;
        self.events.push_back(Event::PortFailed { port, why });
    }

    fn end(&mut self, event: Event) {
        self.state = State::Over;
        self.events.push_back(event);
    }

    /// The path of the port whose turn it is.
    fn take_path(&mut self) -> PathBuf {
        match &mut self.state {
            State::Opening { path, .. } | State::Waiting { path, .. } => std::mem::take(path),
            State::Asking(asking) => std::mem::take(&mut asking.path),
            State::Idle | State::Over => PathBuf::new(),
        }
    }
}

impl Asking {
    /// Reads what is there, one buffer at a time, so that a port that spews does not keep the loop; writes what is due.
    fn exchange(&mut self, now: Instant) -> Result<(), port::Unplugged> {
        let mut buffer = [0; 256];
        if let Some(bytes) = self.port.read(&mut buffer)? {
            self.dialogue.handle_bytes(bytes, now);
        }
        self.send()
    }

    fn send(&mut self) -> Result<(), port::Unplugged> {
        let mut out = [0; at::MAX_TRANSMIT];
        let length = self.dialogue.poll_transmit(&mut out);
        self.port.send(length.and_then(|length| out.get(..length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn search() -> (Search, Instant) {
        let now = crate::clock::now().instant;
        (Search::new(&["/dev/null".to_owned()], 115_200, LIMIT, now), now)
    }

    #[test]
    fn port_that_is_still_roots_is_tried_again() {
        let (mut search, now) = search();
        search.on_opened(Err(OpenError::Permission), now);
        assert!(search.interest().is_none());
        assert_eq!(search.poll_timeout(), Some(now + PERMISSION_RETRY));
        search.handle_timeout(now + PERMISSION_RETRY);
        assert!(search.interest().is_some(), "it is opened anew");
        assert!(search.poll_event().is_none());
        search.on_opened(Err(OpenError::Permission), now + PERMISSION_GRACE);
        let why = search.poll_event();
        assert!(
            matches!(why, Some(Event::PortFailed { why: Why::Open(OpenError::Permission), .. })),
            "{why:?}"
        );
    }

    #[test]
    fn port_that_does_not_open_is_left() {
        let (mut search, now) = search();
        assert_eq!(search.poll_timeout(), Some(now + OPEN_WAIT));
        search.handle_timeout(now + OPEN_WAIT);
        let why = search.poll_event();
        assert!(matches!(why, Some(Event::PortFailed { why: Why::Open(OpenError::Hangs), .. })), "{why:?}");
        assert!(matches!(search.poll_event(), Some(Event::Exhausted)));
        assert_eq!(search.poll_timeout(), None);
    }
}
