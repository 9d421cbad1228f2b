//! A modem's port, which may be anything: the whole dialogue for the IMEI, the whole survey, and IMEIs themselves.

use std::time::{Duration, Instant};

use moorline_agent::modem::at::{self, Dialogue, Event, MAX_TRANSMIT};
use moorline_agent::modem::survey::{self, Outcome, Purpose, Survey};
use moorline_protocol::Imei;

use super::script::{Clock, stretches};

/// What modems say, and what answers to commands begin with.
pub(super) const ANSWERS: &[&[u8]] = &[
    b"\r\nOK\r\n",
    b"~",
    b"\r\nERROR\r\n",
    b"\r\n+CME ERROR: 14\r\n",
    b"+CME ERROR: SIM busy",
    b"NO CARRIER",
    b"AT\r",
    b"ATE0\r",
    b"AT+CGSN\r",
    b"AT+CGMI\r",
    b"AT+COPS?\r",
    b"490154203237518",
    b"+CGSN: ",
    b"IMEI: ",
    b"\"490154203237518\"",
    b"49015420 323751 8",
    b"353490069873368",
    b"RDY",
    b"+CSQ: 17,99",
    b"+CSQ: 99,99",
    b"+CEREG: 0,1",
    b"+CREG: 2,5,\"1A2B\",\"01C3D4E5\",7",
    b"+COPS: 0,2,\"26201\",7",
    b"+COPS: 0,0,\"Telekom.de\",7",
    b"+COPS: 1,",
    b"Quectel",
    b"$GPGGA,",
    b"\r\r\n",
    b"\0",
    b"\xff\xfe",
];

/// IMEIs, their URNs and what is nearly one.
pub(super) const NUMBERS: &[&[u8]] = &[
    b"490154203237518",
    b"urn:gsma:imei:",
    b"49015420-323751-0",
    b"URN:",
    b";svn=",
    b"-",
    b"0",
    b"\xd9\xa3",
];

pub(super) fn imei(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match text.parse::<Imei>() {
        Ok(imei) => assert_eq!(imei.to_string(), text),
        Err(fault) => assert!(fault.to_string().len() < 100),
    }
    if let Ok(imei) = Imei::from_urn(text) {
        assert_eq!(Imei::from_urn(&imei.urn()), Ok(imei));
        assert_eq!(imei.to_string().parse(), Ok(imei));
    }
}

/// More than these are never asked, whatever is answered: of the dialogue the probes of a modem that boots for 12 s are the
/// most.
const MOST_COMMANDS: usize = 48;
/// As the port is read.
const READ: usize = 256;

/// What asks a port, whichever it is.
trait Asker {
    type Outcome;

    fn handle_bytes(&mut self, bytes: &[u8], now: Instant);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&self) -> Option<Instant>;
    fn poll_transmit(&mut self, out: &mut [u8; MAX_TRANSMIT]) -> Option<usize>;
    fn poll_event(&mut self) -> Option<Self::Outcome>;
}

macro_rules! asker {
    ($asker:ty, $outcome:ty) => {
        impl Asker for $asker {
            type Outcome = $outcome;

            fn handle_bytes(&mut self, bytes: &[u8], now: Instant) {
                self.handle_bytes(bytes, now);
            }

            fn handle_timeout(&mut self, now: Instant) {
                self.handle_timeout(now);
            }

            fn poll_timeout(&self) -> Option<Instant> {
                self.poll_timeout()
            }

            fn poll_transmit(&mut self, out: &mut [u8; MAX_TRANSMIT]) -> Option<usize> {
                self.poll_transmit(out)
            }

            fn poll_event(&mut self) -> Option<Self::Outcome> {
                self.poll_event()
            }
        }
    };
}

asker!(Dialogue, Event);
asker!(Survey, Outcome);

/// One that is asking, and what came of it so far.
struct Asking<A: Asker> {
    asker: A,
    clock: Clock,
    asked: Vec<u8>,
    outcomes: Vec<A::Outcome>,
}

impl<A: Asker> Asking<A> {
    fn new(asker: impl FnOnce(Instant) -> A) -> Self {
        let clock = Clock::new();
        Self { asker: asker(clock.now), clock, asked: Vec::new(), outcomes: Vec::new() }
    }

    /// Answers by a script, then not at all, until it is over: how it ended, and all that was asked.
    fn answer(mut self, script: &[u8], limit: Duration) -> (A::Outcome, String) {
        for (stretch, pauses) in stretches(script) {
            for read in stretch.chunks(READ) {
                self.asker.handle_bytes(read, self.clock.now);
                self.drain();
            }
            if pauses {
                self.pass();
            }
        }
        while self.pass() {}
        assert!(self.clock.passed() <= limit, "it took {:?}", self.clock.passed());
        assert!(self.asked.len() <= MOST_COMMANDS * MAX_TRANSMIT, "{} bytes", self.asked.len());
        let outcome = self.outcomes.pop().expect("an outcome");
        assert!(self.outcomes.is_empty(), "two outcomes");
        (outcome, String::from_utf8_lossy(&self.asked).into_owned())
    }

    /// Lets time pass to its deadline, while there is one.
    fn pass(&mut self) -> bool {
        let Some(deadline) = self.asker.poll_timeout() else { return false };
        let before = self.clock.now;
        self.clock.go_to(deadline);
        self.asker.handle_timeout(self.clock.now);
        assert!(self.clock.now > before || self.asker.poll_timeout() != Some(deadline), "it spins");
        self.drain();
        true
    }

    fn drain(&mut self) {
        let mut out = [0; MAX_TRANSMIT];
        while let Some(length) = self.asker.poll_transmit(&mut out) {
            is_command(&out[..length]);
            self.asked.extend_from_slice(&out[..length]);
        }
        self.outcomes.extend(self.asker.poll_event());
    }
}

/// A script of what a port sends to who asks for the IMEI.
pub(super) fn dialogue(script: &[u8]) {
    match Asking::new(Dialogue::new).answer(script, at::LIMIT).0 {
        Event::Found { imei, model, .. } => {
            assert!(was_said(imei, script), "nobody said {imei}");
            is_shown(&model);
        }
        Event::Failed(failure) => is_shown(&failure.to_string()),
    }
}

/// The same to who asks how the modem stands, each way it is asked.
pub(super) fn survey(script: &[u8]) {
    let imei = Imei::try_from(490_154_203_237_518).expect("the constant is an IMEI");
    for (purpose, imei) in [
        (Purpose::Read, Some(imei)),
        (Purpose::Read, None),
        (Purpose::Reset, Some(imei)),
        (Purpose::Reset, None),
    ] {
        let model = "Quectel EC25".try_into().expect("it fits");
        let asking = Asking::new(|now| Survey::new(purpose, imei, model, None, now));
        let (outcome, asked) = asking.answer(script, survey::LIMIT);
        match &outcome {
            Outcome::Told(condition) => {
                is_shown(&condition.to_string());
                assert!(condition.operator.as_ref().is_none_or(|operator| is_mcc_mnc(operator)));
                assert_eq!(purpose, Purpose::Read);
            }
            // A modem that says it is another must not be started anew.
            Outcome::Other(other) => {
                assert!(was_said(*other, script) && imei.is_some_and(|ours| ours != *other));
                assert!(!asked.contains("CFUN"));
            }
            Outcome::Reset => assert!(purpose == Purpose::Reset && asked.contains("AT+CFUN=1,1")),
            Outcome::Silent => assert!(!asked.contains("CFUN"), "{asked}"),
        }
    }
}

/// Whatever a modem says, it is sent nothing but short commands.
fn is_command(bytes: &[u8]) {
    let rest = bytes.strip_prefix(b"AT").and_then(|rest| rest.strip_suffix(b"\r"));
    assert!(rest.is_some_and(|rest| rest.iter().all(u8::is_ascii_graphic)), "{}", bytes.escape_ascii());
}

/// What stands in a log or a greeting: one line, without what steers a terminal.
fn is_shown(text: &str) {
    assert!(text.len() < 600 && !text.chars().any(char::is_control), "{text:?}");
}

fn is_mcc_mnc(text: &str) -> bool {
    let numbers = text.split_once('-');
    numbers.is_some_and(|(mcc, mnc)| {
        mcc.len() == 3
            && (2..=3).contains(&mnc.len())
            && [mcc, mnc].concat().bytes().all(|b| b.is_ascii_digit())
    })
}

/// Whether the digits came over the line, perhaps in groups and over pauses.
fn was_said(imei: Imei, script: &[u8]) -> bool {
    let digits: Vec<u8> = script.iter().copied().filter(u8::is_ascii_digit).collect();
    let wanted = imei.to_string();
    digits.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}
