//! A modem's port, which may be anything: the whole dialogue for the IMEI, the whole survey, and IMEIs themselves.

use std::time::Duration;

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

/// A script of what a port sends to who asks for the IMEI.
pub(super) fn dialogue(script: &[u8]) {
    let (mut clock, mut asked) = (Clock::new(), 0);
    let mut dialogue = Dialogue::new(clock.now);
    let mut events = Vec::new();
    let mut drain = |dialogue: &mut Dialogue| {
        let mut out = [0; MAX_TRANSMIT];
        while let Some(length) = dialogue.poll_transmit(&mut out) {
            is_command(&out[..length]);
            asked += 1;
        }
        events.extend(dialogue.poll_event());
    };
    for (stretch, pauses) in stretches(script) {
        for read in stretch.chunks(READ) {
            dialogue.handle_bytes(read, clock.now);
            drain(&mut dialogue);
        }
        if pauses && let Some(deadline) = dialogue.poll_timeout() {
            clock.go_to(deadline);
            dialogue.handle_timeout(clock.now);
            drain(&mut dialogue);
        }
    }
    while let Some(deadline) = dialogue.poll_timeout() {
        let before = clock.now;
        clock.go_to(deadline);
        dialogue.handle_timeout(clock.now);
        assert!(clock.now > before || dialogue.poll_timeout() != Some(deadline), "it spins");
        drain(&mut dialogue);
    }
    assert!(clock.passed() <= at::LIMIT, "it took {:?}", clock.passed());
    assert!(asked <= MOST_COMMANDS, "{asked} commands");
    let [event] = events.as_slice() else { panic!("{} events", events.len()) };
    match event {
        Event::Found { imei, model, .. } => {
            assert!(was_said(*imei, script), "nobody said {imei}");
            is_shown(model);
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
        let (outcome, asked) = surveyed(script, purpose, imei);
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

/// How it ended, and all that was asked.
fn surveyed(script: &[u8], purpose: Purpose, imei: Option<Imei>) -> (Outcome, String) {
    let (mut clock, mut asked) = (Clock::new(), Vec::new());
    let model = "Quectel EC25".try_into().expect("it fits");
    let mut survey = Survey::new(purpose, imei, model, None, clock.now);
    let mut outcomes = Vec::new();
    let mut drain = |survey: &mut Survey| {
        let mut out = [0; MAX_TRANSMIT];
        while let Some(length) = survey.poll_transmit(&mut out) {
            is_command(&out[..length]);
            asked.extend_from_slice(&out[..length]);
        }
        outcomes.extend(survey.poll_event());
    };
    for (stretch, pauses) in stretches(script) {
        for read in stretch.chunks(READ) {
            survey.handle_bytes(read, clock.now);
            drain(&mut survey);
        }
        if pauses && let Some(deadline) = survey.poll_timeout() {
            clock.go_to(deadline);
            survey.handle_timeout(clock.now);
            drain(&mut survey);
        }
    }
    while let Some(deadline) = survey.poll_timeout() {
        let before = clock.now;
        clock.go_to(deadline);
        survey.handle_timeout(clock.now);
        assert!(clock.now > before || survey.poll_timeout() != Some(deadline), "it spins");
        drain(&mut survey);
    }
    assert!(clock.passed() <= survey::LIMIT, "it took {:?}", clock.passed());
    assert!(asked.len() <= MOST_COMMANDS * MAX_TRANSMIT);
    if let Some((name, number)) = survey.name() {
        is_shown(&name);
        assert!(is_mcc_mnc(&number), "{number}");
    }
    let [outcome] = outcomes.as_slice() else { panic!("{} outcomes", outcomes.len()) };
    (outcome.clone(), String::from_utf8_lossy(&asked).into_owned())
}

const _: () = assert!(
    at::LIMIT.as_secs() < survey::LIMIT.as_secs()
        && survey::LIMIT.as_secs() < Duration::from_secs(60).as_secs()
);

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
