//! The dialogue that asks a modem how it stands with its network, or starts it anew. Pure, as `at.rs` is.
//!
//! It asks first whose port this is: after a modem was plugged anew, its old name may be another's. `AT+COPS?` answers in
//! the format that some program last chose with `AT+COPS=3`, which on many modems holds for all ports. So that is changed
//! only for an operator that is told by a name not met before, and put back at once.

use std::time::{Duration, Instant};

use heapless::String;
use moorline_protocol::Imei;

use super::answer::{Exchange, Progress, Verdict};
use super::at::{MAX_TRANSMIT, write_command};
use super::condition::{Access, Condition, Operator, mcc_mnc, selection, signal_dbm};

/// The end of every survey, whatever the port does.
pub const LIMIT: Duration = Duration::from_secs(25);

/// What was sent before this is no answer.
const QUIET: Duration = Duration::from_millis(100);
/// A port that is never quiet is asked all the same.
const QUIET_MOST: Duration = Duration::from_secs(1);
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// How long the answer may follow an OK that came without it.
const BARE_OK_WAIT: Duration = Duration::from_secs(1);
/// A modem that sleeps on its UART loses what wakes it.
const GREETINGS: u8 = 2;

/// How a survey ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The modem answered.
    Told(Condition),
    /// It was told to start anew, which it does whether it says so or not.
    Reset,
    /// Nobody answered.
    Silent,
    /// The port is another modem's now.
    Other(Imei),
}

/// What a survey is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To read.
    Read,
    /// To start the modem anew: `AT+CFUN=1,1`.
    Reset,
}

/// An operator's name as this modem writes it, and its number.
pub type Name = (String<32>, Operator);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Greet(u8),
    Signal,
    Eps,
    Cs,
    Operator,
    /// The operator's number is wanted instead of its name; the format is put back afterwards.
    WantNumber {
        format: u8,
    },
    Number {
        format: u8,
    },
    PutBack {
        format: u8,
    },
    Reset,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one survey at a time, and the large variant is the rule"
)]
enum State {
    ExpectQuiet { until: Instant, latest: Instant, next: Step },
    ExpectAnswer { step: Step, exchange: Exchange<'static>, deadline: Instant },
    Ended,
}

/// See the module. The verbs are those of [`super::at::Dialogue`].
#[derive(Debug)]
pub struct Survey {
    purpose: Purpose,
    /// Whose port it should be; `None`: nobody knows.
    imei: Option<Imei>,
    /// Maker and model.
    modem: String<48>,
    /// The operator's name of the survey before.
    known: Option<Name>,
    name: String<32>,
    started: Instant,
    state: State,
    transmit: Option<&'static str>,
    condition: Condition,
    outcome: Option<Outcome>,
    shared: bool,
}

impl Survey {
    /// The port has just been opened. `imei` is whose it should be, `modem` its maker and model, and `known` what
    /// [`Self::name`] gave after the survey before.
    #[must_use]
    pub fn new(
        purpose: Purpose,
        imei: Option<Imei>,
        modem: String<48>,
        known: Option<Name>,
        now: Instant,
    ) -> Self {
        let (until, latest) = (now + QUIET, now + QUIET_MOST);
        Self {
            purpose,
            imei,
            modem,
            known,
            name: String::new(),
            started: now,
            state: State::ExpectQuiet { until, latest, next: Step::Greet(0) },
            transmit: None,
            condition: Condition::default(),
            outcome: None,
            shared: false,
        }
    }

    /// Takes what the port sent.
    pub fn handle_bytes(&mut self, input: &[u8], now: Instant) {
        match &mut self.state {
            State::Ended => {}
            State::ExpectQuiet { until, latest, .. } => *until = (now + QUIET).min(*latest),
            State::ExpectAnswer { exchange, deadline, .. } => {
                exchange.handle_bytes(input);
                match exchange.progress() {
                    Progress::Open => {}
                    Progress::BareOk => *deadline = (*deadline).min(now + BARE_OK_WAIT),
                    Progress::Ended => self.on_exchange_over(now),
                }
            }
        }
    }

    /// Writes what is to be sent into `out` and returns its length.
    pub fn poll_transmit(&mut self, out: &mut [u8; MAX_TRANSMIT]) -> Option<usize> {
        self.transmit.take().map(|command| write_command(command, out))
    }

    /// The deadline of [`Self::poll_timeout`] may have come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.started + LIMIT {
            return self.handle_end();
        }
        match &self.state {
            State::ExpectQuiet { until, next, .. } if now >= *until => self.ask(*next, now),
            State::ExpectAnswer { deadline, .. } if now >= *deadline => self.on_exchange_over(now),
            State::ExpectQuiet { .. } | State::ExpectAnswer { .. } | State::Ended => {}
        }
    }

    /// The port is gone or the time is up. What was told until now counts.
    pub fn handle_end(&mut self) {
        let outcome = match &self.state {
            State::ExpectAnswer { step: Step::Reset, .. } => Outcome::Reset,
            _ if self.condition == Condition::default() => Outcome::Silent,
            _ => Outcome::Told(std::mem::take(&mut self.condition)),
        };
        self.finish(outcome);
    }

    /// How it ended, once.
    pub const fn poll_event(&mut self) -> Option<Outcome> {
        self.outcome.take()
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

    /// Whether another program's commands were seen on the port.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.shared
    }

    /// The operator's name and number, for the survey after this one.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        self.known.clone()
    }

    fn command(&self, step: Step) -> &'static str {
        match step {
            Step::Greet(_) if self.imei.is_some() => "AT+CGSN",
            Step::Greet(_) => "AT",
            Step::Signal => "AT+CSQ",
            Step::Eps => "AT+CEREG?",
            Step::Cs => "AT+CREG?",
            Step::Operator | Step::Number { .. } => "AT+COPS?",
            Step::WantNumber { .. } => "AT+COPS=3,2",
            Step::PutBack { format: 1 } => "AT+COPS=3,1",
            Step::PutBack { .. } => "AT+COPS=3,0",
            Step::Reset => "AT+CFUN=1,1",
        }
    }

    fn ask(&mut self, step: Step, now: Instant) {
        let command = self.command(step);
        self.transmit = Some(command);
        let (exchange, deadline) = (Exchange::new(command), now + ANSWER_WAIT);
        self.state = State::ExpectAnswer { step, exchange, deadline };
    }

    fn ask_when_quiet(&mut self, next: Step, now: Instant) {
        self.state = State::ExpectQuiet { until: now + QUIET, latest: now + QUIET_MOST, next };
    }

    fn on_exchange_over(&mut self, now: Instant) {
        let State::ExpectAnswer { step, exchange, .. } = std::mem::replace(&mut self.state, State::Ended)
        else {
            return;
        };
        self.shared |= exchange.is_shared();
        if let Some(next) = self.after(step, exchange) {
            self.ask_when_quiet(next, now);
        }
    }

    /// Takes an answer in, and says what is asked next; `None` once it is over.
    fn after(&mut self, step: Step, exchange: Exchange<'static>) -> Option<Step> {
        let value = exchange.value();
        match step {
            Step::Greet(times) => return self.after_greeting(times, exchange),
            Step::Signal => {
                self.condition.signal_dbm = value.and_then(signal_dbm);
                return Some(Step::Eps);
            }
            Step::Eps => {
                value.into_iter().for_each(|answer| self.condition.add_registration(answer, &self.modem));
                // Only a modem whose data do not go over LTE has to be asked about the older domain.
                let settled = self.condition.is_registered() == Some(true);
                return Some(if settled { Step::Operator } else { Step::Cs });
            }
            Step::Cs => {
                value.into_iter().for_each(|answer| self.condition.add_registration(answer, &self.modem));
                return Some(Step::Operator);
            }
            Step::Operator => {
                if let Some(next) = value.and_then(|answer| self.after_operator(answer)) {
                    return Some(next);
                }
            }
            Step::WantNumber { format } if exchange.is_ok() => return Some(Step::Number { format }),
            Step::Number { format } => {
                value.into_iter().for_each(|answer| self.after_number(answer));
                return Some(Step::PutBack { format });
            }
            Step::Reset => {
                self.finish(Outcome::Reset);
                return None;
            }
            Step::WantNumber { .. } | Step::PutBack { .. } => {}
        }
        self.finish(Outcome::Told(self.condition.clone()));
        None
    }

    fn after_greeting(&mut self, times: u8, exchange: Exchange<'static>) -> Option<Step> {
        if exchange.progress() == Progress::Open && times + 1 < GREETINGS {
            return Some(Step::Greet(times + 1));
        }
        match exchange.verdict() {
            Verdict::NoAnswer => self.finish(Outcome::Silent),
            Verdict::Imei(imei) if self.imei.is_some_and(|ours| ours != imei) => {
                self.finish(Outcome::Other(imei));
            }
            _ if self.purpose == Purpose::Reset => return Some(Step::Reset),
            _ => return Some(Step::Signal),
        }
        None
    }

    fn after_operator(&mut self, answer: &str) -> Option<Step> {
        let selection = selection(answer)?;
        self.condition.access =
            selection.act.and_then(|act| Access::new(act, &self.modem)).or(self.condition.access);
        if let Some(number) = mcc_mnc(selection.operator) {
            self.condition.operator = Some(number);
            return None;
        }
        self.name = String::try_from(selection.operator).ok().filter(|name| !name.is_empty())?;
        match &self.known {
            Some((name, number)) if *name == self.name => {
                self.condition.operator = Some(number.clone());
                None
            }
            _ => Some(Step::WantNumber { format: selection.format }),
        }
    }

    fn after_number(&mut self, answer: &str) {
        let Some(number) = selection(answer).and_then(|selection| mcc_mnc(selection.operator)) else {
            return;
        };
        self.known = Some((std::mem::take(&mut self.name), number.clone()));
        self.condition.operator = Some(number);
    }

    fn finish(&mut self, outcome: Outcome) {
        self.state = State::Ended;
        self.transmit = None;
        self.outcome = Some(outcome);
    }
}

#[cfg(test)]
mod tests;
