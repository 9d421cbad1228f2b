//! The dialogue that asks one port for its modem's IMEI. Pure: bytes and the time in; bytes, one event and the next
//! deadline out. It knows no port; `mod.rs` joins it with one. What an answer means is in `answer.rs`.
//!
//! The order covers what is in the field: `AT` until somebody answers, `ATE0` (whose result means nothing: echo may stay or
//! come back), `AT+CGSN`, `AT+CGSN=1` (by TS 27.007 the bare form gives the maker's serial number), `AT+GSN`, `ATI`. With
//! the IMEI known, `AT+CGMI` and `AT+CGMM` ask for maker and model.

use std::fmt;
use std::time::{Duration, Instant};

use moorline_protocol::Imei;

use super::answer::{Exchange, Progress};
pub use super::answer::{Refusal, Seen, Verdict, judge};

/// The end of every dialogue, whatever the port does.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A buffer of this size holds whatever [`Dialogue::poll_transmit`] writes.
pub const MAX_TRANSMIT: usize = 16;

/// Maker and model as a session's greeting carries them.
pub type Model = heapless::String<48>;

/// The questions for the IMEI, in their order.
const QUERIES: [&str; 4] = ["AT+CGSN", "AT+CGSN=1", "AT+GSN", "ATI"];

/// What was sent before this is no answer. The first wait is longer: a port that was just opened may hold old answers.
const QUIET_AT_FIRST: Duration = Duration::from_millis(200);
const QUIET: Duration = Duration::from_millis(60);
/// A port that is never quiet is asked all the same.
const QUIET_MOST: Duration = Duration::from_secs(1);

/// A modem that finds the baud rate by itself needs some `AT` to do so.
const PROBES: u8 = 3;
const PROBE_WAIT: Duration = Duration::from_millis(600);
/// The last probe is a question: a modem may be deaf to `AT` alone.
const LAST_PROBE_WAIT: Duration = Duration::from_millis(1200);
/// A modem that talks while it boots (`RDY`, `SMS DONE`) answers only after this.
const BOOT: Duration = Duration::from_secs(12);

/// As `ModemManager` waits for the equipment identifier.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// How long the answer may follow an OK that came without it.
const BARE_OK_WAIT: Duration = Duration::from_secs(1);
const MODEL_WAIT: Duration = Duration::from_millis(1500);

/// A SIM is busy for some seconds after power on.
const BUSY_WAIT: Duration = Duration::from_secs(1);
const BUSY_TRIES: u8 = 5;

/// More bytes than these that are no text: a port for diagnostics. Each of them is bounded, however fast a port spews.
const NOISE_MOST: usize = 256;
const BYTES_MOST: usize = 16 * 1024;

/// How a dialogue ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The modem told its IMEI.
    Found {
        /// The IMEI.
        imei: Imei,
        /// The command that it answered.
        command: &'static str,
        /// Maker and model, empty when it does not tell them.
        model: Model,
    },
    /// No IMEI came of this port.
    Failed(Box<Failure>),
}

/// Why no IMEI came, and what was seen instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What ended the dialogue.
    pub cause: Cause,
    /// What was asked and what came of it.
    pub asked: heapless::Vec<Asked, 4>,
}

/// What ended a dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody answered `AT`.
    Silent(Heard),
    /// The port sends what is no dialogue.
    Spew,
    /// Every question was asked.
    NoImei,
    /// [`LIMIT`] was reached, or the shell's.
    TimeUp,
}

/// What a silent port is not quite silent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// No byte.
    Nothing,
    /// Bytes that are no text.
    Noise,
    /// Text, such as the echo of the command.
    Text,
}

/// One question for the IMEI that brought none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The command.
    pub command: &'static str,
    /// What came of it.
    pub verdict: Verdict,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.cause {
            Cause::Silent(Heard::Nothing) => {
                "nobody answers AT; modems have several ports, this may be another one"
            }
            Cause::Silent(Heard::Noise) => {
                "noise answers AT; is the baud rate right, and is this the AT port?"
            }
            Cause::Silent(Heard::Text) => "it sends text and does not answer AT; is this the AT port?",
            Cause::Spew => "it sends data that is no answer to AT, as a port for diagnostics does",
            Cause::NoImei if self.asked.is_empty() => "it answers AT and tells no IMEI",
            Cause::NoImei => "",
            Cause::TimeUp => "the time is up",
        })?;
        let mut between = if self.cause == Cause::NoImei { "" } else { "; " };
        for asked in &self.asked {
            f.write_str(between)?;
            asked.fmt(f)?;
            between = "; ";
        }
        Ok(())
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = self.command;
        match &self.verdict {
            Verdict::Imei(imei) => write!(f, "answered {imei} to {command}"),
            Verdict::Refused(Refusal::Number(digits, fault)) => {
                write!(f, "answered {digits} to {command}: {fault}")
            }
            Verdict::Refused(refusal) => write!(f, "answered {command} with {refusal}"),
            Verdict::Error(seen) if seen.is_empty() => {
                write!(f, "answered {command} with OK and nothing else")
            }
            Verdict::Error(seen) => write!(f, "answered {command} with \"{seen}\", which holds no IMEI"),
            Verdict::NoAnswer => write!(f, "did not answer {command}"),
            Verdict::SimOrBusy(seen) => {
                write!(f, "is not ready: it keeps answering {command} with \"{seen}\"")
            }
        }
    }
}

/// Asks one port. After every input call [`Self::poll_transmit`] and [`Self::poll_event`], then wait for bytes or
/// [`Self::poll_timeout`].
#[derive(Debug)]
pub struct Dialogue {
    started: Instant,
    state: State,
    transmit: Option<&'static str>,
    over: bool,
    event: Option<Event>,
    asked: heapless::Vec<Asked, 4>,
    busy_left: u8,
    found: Option<(Imei, &'static str)>,
    model: Model,
    heard: Heard,
    noise: usize,
    bytes: usize,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one dialogue at a time, and the large variant is the rule"
)]
enum State {
    /// Nothing is out; `next` is asked when the port is quiet, or at `latest`.
    ExpectQuiet {
        until: Instant,
        latest: Instant,
        quiet: Duration,
        next: Step,
    },
    /// A command is out.
    ExpectAnswer {
        step: Step,
        exchange: Exchange<'static>,
        deadline: Instant,
    },
    Ended,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Whether anybody answers; counted from 0.
    Probe(u8),
    EchoOff,
    /// One of [`QUERIES`].
    Query(u8),
    Maker,
    Model,
}

impl Step {
    fn command(self) -> &'static str {
        match self {
            Self::Probe(PROBES..) => QUERIES[0],
            Self::Probe(_) => "AT",
            Self::EchoOff => "ATE0",
            Self::Query(at) => QUERIES.get(usize::from(at)).copied().unwrap_or("ATI"),
            Self::Maker => "AT+CGMI",
            Self::Model => "AT+CGMM",
        }
    }

    const fn wait(self) -> Duration {
        match self {
            Self::Probe(PROBES..) => LAST_PROBE_WAIT,
            Self::Probe(_) => PROBE_WAIT,
            Self::EchoOff | Self::Query(_) => ANSWER_WAIT,
            Self::Maker | Self::Model => MODEL_WAIT,
        }
    }
}

impl Dialogue {
    /// The port has just been opened.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            state: State::ExpectQuiet {
                until: now + QUIET_AT_FIRST,
                latest: now + QUIET_MOST,
                quiet: QUIET_AT_FIRST,
                next: Step::Probe(0),
            },
            transmit: None,
            over: false,
            event: None,
            asked: heapless::Vec::new(),
            busy_left: BUSY_TRIES,
            found: None,
            model: Model::new(),
            heard: Heard::Nothing,
            noise: 0,
            bytes: 0,
        }
    }

    /// Takes what the port sent.
    pub fn handle_bytes(&mut self, input: &[u8], now: Instant) {
        self.count(input);
        match &mut self.state {
            State::Ended => return,
            State::ExpectQuiet { until, latest, quiet, .. } => *until = (now + *quiet).clamp(*until, *latest),
            State::ExpectAnswer { exchange, .. } => exchange.handle_bytes(input),
        }
        if self.noise > NOISE_MOST || self.bytes > BYTES_MOST {
            return self.finish(Cause::Spew);
        }
        self.on_progress(now);
    }

    /// The deadline of [`Self::poll_timeout`] may have come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.started + LIMIT {
            return self.finish(Cause::TimeUp);
        }
        match &self.state {
            State::ExpectQuiet { until, next, .. } if now >= *until => self.ask(*next, now),
            State::ExpectAnswer { deadline, .. } if now >= *deadline => self.on_exchange_over(now),
            State::ExpectQuiet { .. } | State::ExpectAnswer { .. } | State::Ended => {}
        }
    }

    /// Ends it: the port is gone or the time is up. An IMEI that was told stays told.
    pub fn handle_end(&mut self) {
        self.finish(Cause::TimeUp);
    }

    /// Writes what is to be sent into `out` and returns its length.
    pub fn poll_transmit(&mut self, out: &mut [u8; MAX_TRANSMIT]) -> Option<usize> {
        self.transmit.take().map(|command| write_command(command, out))
    }

    /// How it ended, once.
    pub const fn poll_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// When [`Self::handle_timeout`] is due; `None` when it is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = match &self.state {
            State::ExpectQuiet { until, .. } => *until,
            State::ExpectAnswer { deadline, .. } => *deadline,
            State::Ended => return None,
        };
        Some(next.min(self.started + LIMIT))
    }

    fn count(&mut self, input: &[u8]) {
        let is_text = |b: &u8| matches!(b, b' '..=b'~' | b'\t' | b'\r' | b'\n');
        let noise = input.iter().filter(|b| !is_text(b)).count();
        self.noise = self.noise.saturating_add(noise);
        self.bytes = self.bytes.saturating_add(input.len());
        match self.heard {
            Heard::Nothing | Heard::Noise if noise < input.len() => self.heard = Heard::Text,
            Heard::Nothing if noise > 0 => self.heard = Heard::Noise,
            Heard::Nothing | Heard::Noise | Heard::Text => {}
        }
    }

    fn ask(&mut self, step: Step, now: Instant) {
        let command = step.command();
        self.transmit = Some(command);
        self.state =
            State::ExpectAnswer { step, exchange: Exchange::new(command), deadline: now + step.wait() };
    }

    fn on_progress(&mut self, now: Instant) {
        let State::ExpectAnswer { exchange, deadline, .. } = &mut self.state else { return };
        match exchange.progress() {
            Progress::Open => {}
            Progress::BareOk => *deadline = (*deadline).min(now + BARE_OK_WAIT),
            Progress::Ended => self.on_exchange_over(now),
        }
    }

    /// The exchange that is out has its result, or its time is up.
    fn on_exchange_over(&mut self, now: Instant) {
        let State::ExpectAnswer { step, exchange, .. } = std::mem::replace(&mut self.state, State::Ended)
        else {
            return;
        };
        let answered = exchange.progress() != Progress::Open;
        match step {
            Step::Probe(at) if !answered && at < PROBES => {
                let booting = exchange.heard_text() && now < self.started + BOOT;
                self.ask(Step::Probe(if booting { at } else { at + 1 }), now);
            }
            Step::Probe(PROBES..) => match exchange.verdict() {
                Verdict::NoAnswer => self.finish(Cause::Silent(self.heard)),
                verdict => self.on_answer(0, verdict, answered, now),
            },
            Step::Probe(_) => self.ask_when_quiet(Step::EchoOff, answered, now),
            Step::EchoOff => self.ask_when_quiet(Step::Query(0), answered, now),
            Step::Query(at) => self.on_answer(at, exchange.verdict(), answered, now),
            Step::Maker => self.on_maker(&exchange, answered, now),
            Step::Model => {
                self.add_to_model(exchange.text());
                self.finish(Cause::NoImei);
            }
        }
    }

    fn on_answer(&mut self, at: u8, verdict: Verdict, answered: bool, now: Instant) {
        let command = Step::Query(at).command();
        match verdict {
            Verdict::Imei(imei) => {
                self.found = Some((imei, command));
                self.ask_when_quiet(Step::Maker, answered, now);
            }
            Verdict::SimOrBusy(_) if self.busy_left > 0 => {
                self.busy_left -= 1;
                let until = now + BUSY_WAIT;
                let (next, quiet) = (Step::Query(at), Duration::ZERO);
                self.state = State::ExpectQuiet { until, latest: until, quiet, next };
            }
            verdict => {
                // There is room for every query.
                let _ = self.asked.push(Asked { command, verdict });
                if usize::from(at) + 1 < QUERIES.len() {
                    self.ask_when_quiet(Step::Query(at + 1), answered, now);
                } else {
                    self.finish(Cause::NoImei);
                }
            }
        }
    }

    fn on_maker(&mut self, exchange: &Exchange<'static>, answered: bool, now: Instant) {
        self.add_to_model(exchange.text());
        if answered {
            self.ask_when_quiet(Step::Model, answered, now);
        } else {
            self.finish(Cause::NoImei);
        }
    }

    /// `SIMCOM INCORPORATED` makes the `SIMCOM_SIM7600E-H`: what the model repeats of its maker is not said twice.
    fn add_to_model(&mut self, text: Option<&str>) {
        let Some(text) = text else { return };
        let maker = self.model.split([' ', '_']).next().unwrap_or_default();
        let repeats = text.get(..maker.len()).is_some_and(|head| head.eq_ignore_ascii_case(maker));
        if repeats {
            self.model.clear();
        } else {
            let _ = self.model.push(' ');
        }
        // Cut where the capacity ends.
        let _ = text.chars().try_for_each(|c| self.model.push(c));
    }

    /// After an answer whatever else comes is drained. After none nothing is: the answer may still come, and an answer to
    /// an earlier question for the IMEI is as good.
    fn ask_when_quiet(&mut self, next: Step, answered: bool, now: Instant) {
        if answered {
            let (until, latest) = (now + QUIET, now + QUIET_MOST);
            self.state = State::ExpectQuiet { until, latest, quiet: QUIET, next };
        } else {
            self.ask(next, now);
        }
    }

    fn finish(&mut self, cause: Cause) {
        self.state = State::Ended;
        self.transmit = None;
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.event = Some(match self.found {
            Some((imei, command)) => Event::Found { imei, command, model: std::mem::take(&mut self.model) },
            None => Event::Failed(Box::new(Failure { cause, asked: std::mem::take(&mut self.asked) })),
        });
    }
}

/// CR alone ends a command: a line feed before or after it makes some modems end every command in ERROR.
pub(super) fn write_command(command: &str, out: &mut [u8; MAX_TRANSMIT]) -> usize {
    out.iter_mut().zip(command.bytes().chain([b'\r'])).map(|(to, byte)| *to = byte).count()
}

#[cfg(test)]
mod tests;
