use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A modem in virtual time: what it sends by itself first, then one answer for each command, and what follows is silence.
struct Bench {
    dialogue: Dialogue,
    now: Instant,
    started: Instant,
    sent: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
        let now = Instant::now();
        Self { dialogue: Dialogue::new(now), now, started: now, sent: Vec::new() }
    }

    /// Runs to the end with `modem` answering in pieces of `cut` bytes, each a millisecond after the one before.
    fn run(&mut self, cut: usize, mut modem: impl FnMut(&str) -> Vec<u8>) -> Event {
        let mut out = [0; MAX_TRANSMIT];
        let mut coming = VecDeque::new();
        loop {
            if let Some(len) = self.dialogue.poll_transmit(&mut out) {
                let command = str::from_utf8(&out[..len]).unwrap();
                let command = command.strip_suffix('\r').expect("a command ends in CR alone");
                self.sent.push(command.to_owned());
                coming.extend(modem(command).chunks(cut).map(<[u8]>::to_vec));
            }
            if let Some(event) = self.dialogue.poll_event() {
                assert_eq!(self.dialogue.poll_timeout(), None);
                return event;
            }
            let deadline = self.dialogue.poll_timeout().expect("a dialogue that is not over has a deadline");
            assert!(deadline <= self.started + LIMIT);
            if coming.is_empty() || deadline <= self.now + MS {
                self.now = deadline.max(self.now);
                self.dialogue.handle_timeout(self.now);
            }
            if let Some(piece) = coming.pop_front() {
                self.now += MS;
                self.dialogue.handle_bytes(&piece, self.now);
            }
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.started
    }
}

/// A modem that answers OK to what it knows and ERROR to what it does not.
fn ordinary(command: &str) -> Vec<u8> {
    match command {
        "AT" | "ATE0" => "\r\nOK\r\n",
        "AT+CGSN" => "\r\n869731052403821\r\n\r\nOK\r\n",
        "AT+CGMI" => "\r\nQuectel\r\n\r\nOK\r\n",
        "AT+CGMM" => "\r\n+QIND: PB DONE\r\n\r\nEC25\r\n\r\nOK\r\n",
        _ => "\r\nERROR\r\n",
    }
    .into()
}

fn found(event: &Event) -> (String, &'static str, &str) {
    match event {
        Event::Found { imei, command, model } => (imei.to_string(), command, model),
        Event::Failed(failure) => panic!("{failure}"),
    }
}

fn failure(event: Event) -> Failure {
    match event {
        Event::Failed(failure) => *failure,
        Event::Found { imei, .. } => panic!("{imei}"),
    }
}

#[test]
fn ordinary_modem_tells_imei_maker_and_model() {
    for cut in [1, 2, 3, 7, 1000] {
        let mut bench = Bench::new();
        let event = bench.run(cut, ordinary);
        assert_eq!(found(&event), ("869731052403821".into(), "AT+CGSN", "Quectel EC25"));
        assert_eq!(bench.sent, ["AT", "ATE0", "AT+CGSN", "AT+CGMI", "AT+CGMM"]);
        assert!(bench.elapsed() < Duration::from_secs(1), "{:?}", bench.elapsed());
    }
}

#[test]
fn what_came_before_the_first_question_is_no_answer() {
    let mut bench = Bench::new();
    bench.now += QUIET_AT_FIRST / 2;
    bench.dialogue.handle_bytes(b"\r\n862095062526113\r\n\r\nOK\r\n", bench.now);
    assert_eq!(bench.dialogue.poll_transmit(&mut [0; MAX_TRANSMIT]), None, "it is not quiet yet");
    assert!(bench.dialogue.poll_timeout() > Some(bench.started + QUIET_AT_FIRST / 2));
    let event = bench.run(7, ordinary);
    assert_eq!(found(&event).0, "869731052403821");
}

#[test]
fn echo_that_stays_on_does_no_harm() {
    let event = Bench::new().run(1000, |command| [format!("{command}\r").into(), ordinary(command)].concat());
    assert_eq!(found(&event), ("869731052403821".into(), "AT+CGSN", "Quectel EC25"));
}

#[test]
fn questions_follow_until_one_tells_it() {
    let mut bench = Bench::new();
    let event = bench.run(1000, |command| match command {
        "AT+CGSN" => b"\r\nMP0623208BB17E0\r\n\r\nOK\r\n".into(),
        "ATI" => b"\r\nManufacturer: huawei\r\nModel: E1612\r\nIMEI: 862095062526113\r\n\r\nOK\r\n".into(),
        "AT+CGMI" => b"\r\nSIMCOM INCORPORATED\r\n\r\nOK\r\n".into(),
        "AT+CGMM" => b"\r\nSIMCOM_SIM7600E-H\r\n\r\nOK\r\n".into(),
        other if other.contains("GSN") => b"\r\nERROR\r\n".into(),
        other => ordinary(other),
    });
    assert_eq!(found(&event), ("862095062526113".into(), "ATI", "SIMCOM_SIM7600E-H"));
    assert_eq!(bench.sent[2..6], ["AT+CGSN", "AT+CGSN=1", "AT+GSN", "ATI"]);
}

#[test]
fn silent_port_costs_under_four_seconds() {
    let mut bench = Bench::new();
    let event = bench.run(1000, |_| Vec::new());
    assert_eq!(failure(event).cause, Cause::Silent(Heard::Nothing));
    assert!(bench.elapsed() < Duration::from_secs(4), "{:?}", bench.elapsed());
}

#[test]
fn port_that_only_echoes_is_silent() {
    let mut bench = Bench::new();
    let event = bench.run(1000, |command| format!("{command}\r\n").into());
    assert_eq!(failure(event).cause, Cause::Silent(Heard::Text));
    assert!(bench.elapsed() < Duration::from_secs(4), "{:?}", bench.elapsed());
}

#[test]
fn modem_deaf_to_at_is_asked_once_all_the_same() {
    let event = Bench::new().run(1000, |command| match command {
        "AT" => Vec::new(),
        other => ordinary(other),
    });
    assert_eq!(found(&event).1, "AT+CGSN");
}

#[test]
fn autobaud_modem_answers_the_third_at() {
    let mut probes = 0;
    let event = Bench::new().run(1000, |command| match command {
        "AT" => {
            probes += 1;
            if probes < 3 { b"8\xf8\xf8".to_vec() } else { b"AT\r\r\nOK\r\n".to_vec() }
        }
        other => ordinary(other),
    });
    assert_eq!(found(&event).0, "869731052403821");
}

#[test]
fn booting_modem_is_waited_for() {
    let mut probes = 0;
    let mut bench = Bench::new();
    let event = bench.run(1000, |command| match command {
        "AT" => {
            probes += 1;
            if probes < 10 { b"\r\nRDY\r\n\r\n+CPIN: READY\r\n".to_vec() } else { ordinary(command) }
        }
        other => ordinary(other),
    });
    assert_eq!(found(&event).0, "869731052403821");
    assert!(bench.elapsed() > Duration::from_secs(5));
}

#[test]
fn spewing_port_is_left_after_a_bounded_amount() {
    for noise in [b"\xff\xff\xff\xfe".as_slice(), b"\0", b"$GPGGA,092750.000,5321.6802,N,00630.3372,W\r\n"] {
        let mut bench = Bench::new();
        let mut bytes = 0;
        let event = loop {
            bytes += noise.len();
            bench.dialogue.handle_bytes(noise, bench.now);
            if let Some(event) = bench.dialogue.poll_event() {
                break event;
            }
        };
        assert_eq!(failure(event).cause, Cause::Spew);
        assert!(bytes <= BYTES_MOST + noise.len(), "{bytes}");
    }
}

#[test]
fn positioning_receiver_is_no_modem_that_boots() {
    let mut bench = Bench::new();
    let event = bench.run(1000, |_| b"$GPGGA,092750.000,5321.6802,N,00630.3372,W\r\n".repeat(10));
    assert_eq!(failure(event).cause, Cause::Silent(Heard::Text));
    assert!(bench.elapsed() < Duration::from_secs(4), "{:?}", bench.elapsed());
}

#[test]
fn busy_sim_is_asked_again_a_bounded_number_of_times() {
    for (busy_for, is_found) in [(2, true), (usize::MAX, false)] {
        let mut asked = 0;
        let mut bench = Bench::new();
        let event = bench.run(1000, |command| match command {
            "AT" | "ATE0" => ordinary(command),
            _ => {
                asked += 1;
                if asked <= busy_for { b"\r\n+CME ERROR: SIM busy\r\n".to_vec() } else { ordinary(command) }
            }
        });
        assert_eq!(matches!(event, Event::Found { .. }), is_found, "{event:?}");
        assert!(bench.sent.len() < 16 && bench.elapsed() < LIMIT, "{:?}", bench.sent);
    }
}

#[test]
fn late_answer_is_taken_with_the_next_question() {
    let mut before = Vec::new();
    let event = Bench::new().run(1000, |command| match command {
        "AT" | "ATE0" => ordinary(command),
        _ => std::mem::replace(&mut before, ordinary(command)),
    });
    assert_eq!(found(&event).0, "869731052403821");
}

#[test]
fn results_that_come_one_command_late_lose_nothing() {
    let mut before = b"\r\nOK\r\n".to_vec();
    let event = Bench::new().run(1000, |command| std::mem::replace(&mut before, ordinary(command)));
    assert_eq!(found(&event).0, "869731052403821");
}

#[test]
fn missing_result_is_waited_for_and_forgiven() {
    let mut bench = Bench::new();
    let event = bench.run(1000, |command| match command {
        "AT+CGSN" => b"AT+CGSN\r\r\n869731052403821\r\n".to_vec(),
        other => ordinary(other),
    });
    assert_eq!(found(&event).0, "869731052403821");
    assert!(bench.elapsed() < Duration::from_secs(4));
}

#[test]
fn modem_without_a_name_is_found_all_the_same() {
    let event = Bench::new().run(1000, |command| match command {
        "AT+CGMI" | "AT+CGMM" => Vec::new(),
        other => ordinary(other),
    });
    assert_eq!(found(&event), ("869731052403821".into(), "AT+CGSN", ""));
}

#[test]
fn refusals_say_what_was_seen() {
    let event = Bench::new().run(1000, |command| match command {
        "AT+CGSN" => b"\r\n868998031093568\r\n\r\nOK\r\n".to_vec(),
        "AT+CGSN=1" => b"\r\nOK\r\n".to_vec(),
        "AT+GSN" => Vec::new(),
        other => ordinary(other),
    });
    assert_eq!(
        failure(event).to_string(),
        "answered 868998031093568 to AT+CGSN: its check digit is 8 where 6 would be right; answered AT+CGSN=1 with OK \
         and nothing else; did not answer AT+GSN; answered ATI with \"ERROR\", which holds no IMEI"
    );
}

#[test]
fn imei_that_was_told_survives_the_port() {
    let mut bench = Bench::new();
    let mut out = [0; MAX_TRANSMIT];
    bench.dialogue.handle_timeout(bench.now + QUIET_AT_FIRST);
    for response in [b"\r\nOK\r\n".as_slice(), b"\r\nOK\r\n", b"\r\n869731052403821\r\n\r\nOK\r\n"] {
        bench.now = bench.dialogue.poll_timeout().unwrap();
        bench.dialogue.handle_timeout(bench.now);
        bench.dialogue.poll_transmit(&mut out);
        bench.dialogue.handle_bytes(response, bench.now);
    }
    bench.dialogue.handle_end();
    assert_eq!(found(&bench.dialogue.poll_event().unwrap()).0, "869731052403821");
    assert_eq!(bench.dialogue.poll_event(), None);
}

proptest! {
    #[test]
    fn every_dialogue_ends_whatever_comes(
        answers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..40),
        cut in 1_usize..20,
    ) {
        let mut answers = answers.into_iter().cycle();
        let mut bench = Bench::new();
        bench.run(cut, |_| answers.next().unwrap_or_default());
        prop_assert!(bench.elapsed() <= LIMIT + MS);
    }

    #[test]
    fn every_dialogue_ends_whatever_is_answered(
        answers in prop::collection::vec(
            prop::sample::select(vec![
                "", "\r\nOK\r\n", "\r\nERROR\r\n", "\r\n+CME ERROR: SIM busy\r\n", "\r\nRDY\r\n", "\r\nOK",
                "\r\n868998031093568\r\n", "AT+CGSN\r\r\n",
            ]),
            1..60,
        ),
        cut in 1_usize..20,
    ) {
        let mut answers = answers.into_iter().cycle();
        let mut bench = Bench::new();
        let event = bench.run(cut, |_| answers.next().unwrap_or_default().into());
        prop_assert!(matches!(event, Event::Failed(_)));
        prop_assert!(bench.elapsed() <= LIMIT + MS);
    }
}
