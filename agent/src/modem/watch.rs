//! Reads now and then how the modem stands with its network: opens its port, asks, and closes it at once, so that the port
//! is another program's for all but some seconds of a quarter of an hour.
//!
//! The port is looked for anew each time, by the configuration's patterns, beginning with the one that answered last: so a
//! modem that comes back under another name is found, and one that is gone keeps nothing open. Where another program has
//! the port, its commands are seen, or nobody answers, the readings become rarer.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use heapless::String;
use moorline_protocol::Imei;
use rustix::event::PollFlags;

use super::condition::Condition;
use super::port::{self, Opening, Port};
use super::survey::{Name, Outcome, Purpose, Survey};
use super::{OPEN_WAIT, OpenError, Why, at};

/// No reading follows another sooner than this, however much it is asked for.
const SOONEST: Duration = Duration::from_secs(120);

/// How much rarer readings become, at the most.
const MOST_STRETCH: u32 = 8;

/// A modem that starts anew is off its bus for some seconds, and searches for its network for some more.
const AFTER_RESET: Duration = Duration::from_secs(60);

/// What came of a reading.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    /// The modem answered.
    Told(Condition),
    /// It was told to start anew.
    Reset,
    /// No port leads to it: each with its reason.
    Unreachable(Vec<std::string::String>),
}

/// Where the modem is, and who it should be.
#[derive(Clone, Debug)]
pub struct Place {
    /// Globs.
    pub patterns: Vec<std::string::String>,
    /// Bits per second.
    pub baud: u32,
    /// Its IMEI; `None` when it need not be that of the device.
    pub imei: Option<Imei>,
    /// Maker and model, empty when not known.
    pub modem: String<48>,
    /// The port that answered last.
    pub port: Option<PathBuf>,
}

/// See the module. Wait for [`Self::interest`] or [`Self::deadline`], then call [`Self::turn`].
#[derive(Debug)]
pub struct Watch {
    place: Place,
    every: Duration,
    stretch: u32,
    /// When the last reading began.
    begun: Option<Instant>,
    due: Instant,
    reset: bool,
    purpose: Purpose,
    state: State,
    /// The ports whose turn is still to come.
    left: VecDeque<PathBuf>,
    name: Option<Name>,
    /// Another program seems to use the modem.
    contended: bool,
    problems: Vec<std::string::String>,
}

#[derive(Debug)]
enum State {
    Idle,
    Opening { path: PathBuf, opening: Opening, deadline: Instant },
    Asking { path: PathBuf, port: Port, survey: Box<Survey> },
}

impl Watch {
    /// The first reading is due at once.
    #[must_use]
    pub const fn new(place: Place, every: Duration, now: Instant) -> Self {
        Self {
            place,
            every,
            stretch: 1,
            begun: None,
            due: now,
            reset: false,
            purpose: Purpose::Read,
            state: State::Idle,
            left: VecDeque::new(),
            name: None,
            contended: false,
            problems: Vec::new(),
        }
    }

    /// Reads sooner than planned, though not right after the last time.
    pub fn look(&mut self, now: Instant) {
        let soonest = self.begun.map_or(now, |begun| begun + SOONEST * self.stretch);
        self.due = self.due.min(soonest.max(now));
    }

    /// Tells the modem to start anew.
    pub const fn reset(&mut self, now: Instant) {
        self.reset = true;
        self.due = now;
    }

    /// What to wait for, beside [`Self::deadline`].
    #[must_use]
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.state {
            State::Idle => None,
            State::Opening { opening, .. } => Some((opening.as_fd(), PollFlags::IN)),
            State::Asking { port, .. } => Some((port.as_fd(), port.interest())),
        }
    }

    /// When [`Self::turn`] is due.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        match &self.state {
            State::Idle => self.due,
            State::Opening { deadline, .. } => *deadline,
            State::Asking { survey, .. } => survey.poll_timeout().unwrap_or(self.due),
        }
    }

    /// Does what is ready or due.
    pub fn turn(&mut self, ready: PollFlags, now: Instant) -> Option<Reading> {
        match &mut self.state {
            State::Idle if now >= self.due => self.begin(now),
            State::Idle => None,
            State::Opening { opening, deadline, .. } => match opening.poll() {
                Some(Ok(port)) => {
                    self.on_opened(port, now);
                    None
                }
                Some(Err(error)) => {
                    self.contended |= matches!(error, OpenError::Busy);
                    self.on_failed(&Why::Open(error), now)
                }
                None if now >= *deadline => self.on_failed(&Why::Open(OpenError::Hangs), now),
                None => None,
            },
            State::Asking { port, survey, .. } => match exchange(port, survey, ready, now) {
                Ok(()) => self.on_exchanged("nobody answers", now),
                Err(port::Unplugged) => {
                    survey.handle_end();
                    self.on_exchanged(&Why::Unplugged.to_string(), now)
                }
            },
        }
    }

    fn begin(&mut self, now: Instant) -> Option<Reading> {
        self.begun = Some(now);
        self.due = now + self.every * self.stretch;
        self.purpose = if std::mem::take(&mut self.reset) { Purpose::Reset } else { Purpose::Read };
        self.contended = false;
        let (ports, problems) = port::expand(&self.place.patterns);
        let describe = |(pattern, why): (PathBuf, OpenError)| format!("{}: {why}", pattern.display());
        self.problems = problems.into_iter().map(describe).collect();
        self.left = ports.into();
        if let Some(at) = self.left.iter().position(|port| Some(port) == self.place.port.as_ref()) {
            self.left.swap(0, at);
        }
        self.next(now)
    }

    fn next(&mut self, now: Instant) -> Option<Reading> {
        while let Some(path) = self.left.pop_front() {
            match Opening::start(&path, self.place.baud) {
                Ok(opening) => {
                    self.state = State::Opening { path, opening, deadline: now + OPEN_WAIT };
                    return None;
                }
                Err(error) => self.problems.push(format!("{}: {error}", path.display())),
            }
        }
        let problems = std::mem::take(&mut self.problems);
        self.end(Reading::Unreachable(problems), now)
    }

    fn on_opened(&mut self, port: Port, now: Instant) {
        let State::Opening { path, .. } = &mut self.state else { return };
        let path = std::mem::take(path);
        let Place { imei, modem, .. } = &self.place;
        let survey = Box::new(Survey::new(self.purpose, *imei, modem.clone(), self.name.take(), now));
        self.state = State::Asking { path, port, survey };
    }

    fn on_exchanged(&mut self, silence: &str, now: Instant) -> Option<Reading> {
        let State::Asking { path, survey, .. } = &mut self.state else { return None };
        let outcome = survey.poll_event()?;
        self.name = survey.name();
        self.contended |= survey.is_shared() || outcome == Outcome::Silent;
        let path = std::mem::take(path);
        match outcome {
            Outcome::Told(condition) => {
                self.place.port = Some(path);
                self.end(Reading::Told(condition), now)
            }
            Outcome::Reset => self.end(Reading::Reset, now),
            Outcome::Silent => self.fail(&path, silence, now),
            Outcome::Other(imei) => self.fail(&path, &format!("another modem answers, {imei}"), now),
        }
    }

    fn on_failed(&mut self, why: &Why, now: Instant) -> Option<Reading> {
        let path = match &mut self.state {
            State::Idle => return None,
            State::Opening { path, .. } | State::Asking { path, .. } => std::mem::take(path),
        };
        self.fail(&path, &why.to_string(), now)
    }

    fn fail(&mut self, path: &std::path::Path, why: &str, now: Instant) -> Option<Reading> {
        self.problems.push(format!("{}: {why}", path.display()));
        self.state = State::Idle;
        self.next(now)
    }

    /// Closes the port and plans the next reading.
    fn end(&mut self, reading: Reading, now: Instant) -> Option<Reading> {
        self.state = State::Idle;
        self.stretch = if self.contended { (self.stretch * 2).min(MOST_STRETCH) } else { 1 };
        self.due = match reading {
            _ if self.reset => now,
            Reading::Reset => now + AFTER_RESET,
            Reading::Told(_) | Reading::Unreachable(_) => now + self.every * self.stretch,
        };
        Some(reading)
    }
}

/// Reads what is there, one buffer at a time, so that a port that spews does not keep the loop; writes what is due.
fn exchange(
    port: &mut Port,
    survey: &mut Survey,
    ready: PollFlags,
    now: Instant,
) -> Result<(), port::Unplugged> {
    let mut buffer = [0; 256];
    if !ready.is_empty()
        && let Some(bytes) = port.read(&mut buffer)?
    {
        survey.handle_bytes(bytes, now);
    }
    survey.handle_timeout(now);
    let mut out = [0; at::MAX_TRANSMIT];
    let length = survey.poll_transmit(&mut out);
    port.send(length.and_then(|length| out.get(..length)))
}
