//! The two halves of a session against each other in virtual time: the hard cases of a cellular line, in milliseconds.

use std::time::Duration;

use moorline_agent::backoff::{Backoff, Cause, Limits};
use moorline_agent::session::{self as agent, End};
use moorline_protocol::{Imei, ImeiError, device_goodbye, rejection, server_goodbye};
use moorline_server::session::{self as server, Binding, Event, Rejection};
use moorline_testbed::pair::{Pair, Setup};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn heartbeats(pair: &Pair) -> usize {
    pair.count(|event| *event == Event::Heartbeat)
}

fn times_asked(pair: &Pair) -> usize {
    pair.count(|event| *event == Event::TimeAsked)
}

fn registered(pair: &Pair) -> bool {
    pair.device_events.iter().any(|(_, event)| matches!(event, agent::Event::Registered { .. }))
}

fn other_imei() -> Imei {
    "358192018309313".parse().expect("a right check digit")
}

#[test]
fn native_session_registers() {
    let mut pair = Setup::default().join();
    pair.run_for(2 * SECOND);
    assert!(pair.device_events.iter().any(|(_, event)| *event
        == agent::Event::Registered { session_id: Some(7), heartbeat: MINUTE, spread: 2 * MINUTE }));
    assert!(
        pair.device_events
            .iter()
            .any(|(_, event)| *event == agent::Event::Answered { round_trip: Duration::from_millis(400) })
    );
    assert_eq!(pair.server_end(), None);
}

#[test]
fn classic_session_registers() {
    let mut pair = Setup::classic().join();
    pair.run_for(2 * SECOND);
    assert!(registered(&pair));
    let Some((_, Event::Registering(registration))) = pair.server_events.first() else {
        panic!("{:?}", pair.server_events)
    };
    assert_eq!(registration.app_id, Some([7; 16]));
}

#[test]
fn server_bounds_the_heartbeat() {
    for (wanted, granted) in [(1, 10), (60, 60), (86_400, 1_800)] {
        let mut setup = Setup::default();
        setup.terms.interval = Duration::from_secs(wanted);
        let mut pair = setup.join();
        pair.run_for(2 * SECOND);
        let heartbeat = pair.device_events.iter().find_map(|(_, event)| match event {
            agent::Event::Registered { heartbeat, .. } => Some(*heartbeat),
            _ => None,
        });
        assert_eq!(heartbeat, Some(Duration::from_secs(granted)));
    }
}

#[test]
fn quiet_day_costs_one_heartbeat_a_minute() {
    for setup in [Setup::default(), Setup::classic()] {
        let mut pair = setup.join();
        pair.run_for(DAY);
        // Each follows the time request or heartbeat before it by a minute; nothing else is said.
        assert_eq!(heartbeats(&pair), 24 * 60 - 1);
        assert_eq!(times_asked(&pair), 1);
        assert_eq!(pair.device_writes, heartbeats(&pair) + times_asked(&pair) + 1);
        assert_eq!((pair.device_end(), pair.server_end()), (None, None));
    }
}

#[test]
fn time_is_asked_once_a_day() {
    let mut pair = Setup::default().join();
    pair.run_for(10 * DAY + MINUTE);
    assert_eq!(times_asked(&pair), 11);
}

#[test]
fn native_offset_is_exact() {
    let mut pair = Setup { clock_behind_ms: 1_234_567, ..Setup::default() }.join();
    pair.run_for(5 * SECOND);
    let (offset_ms, round_trip) = told_time(&pair);
    assert_eq!((offset_ms, round_trip), (1_234_567, Some(Duration::from_millis(400))));
}

#[test]
fn classic_offset_is_good_to_a_second() {
    let mut pair = Setup { clock_behind_ms: 3_600_000, ..Setup::classic() }.join();
    pair.run_for(5 * SECOND);
    let (offset_ms, round_trip) = told_time(&pair);
    assert!((3_598_000..=3_600_000).contains(&offset_ms), "{offset_ms}");
    assert_eq!(round_trip, None);
}

fn told_time(pair: &Pair) -> (i64, Option<Duration>) {
    let told = pair.device_events.iter().find_map(|(_, event)| match event {
        agent::Event::Time { offset_ms, round_trip } => Some((*offset_ms, *round_trip)),
        _ => None,
    });
    told.expect("the time was told")
}

#[test]
fn lost_line_is_left_after_two_deadlines() {
    for setup in [Setup::default(), Setup::classic()] {
        let mut pair = setup.join();
        pair.run_for(3 * MINUTE);
        let (before, writes) = (pair.elapsed(), pair.device_writes);
        pair.dark = true;
        let end = pair.run_to_end(10 * MINUTE);
        // The line answers within 400 ms, so its deadlines are the shortest that there are: 2 s, and twice that.
        assert_eq!(end, Some(&End::Silent { waited: 6 * SECOND, acknowledged: false }));
        // A second frame behind a lost one would tell nothing: only one went out.
        assert_eq!(pair.device_writes, writes + 1);
        let ended = pair.device_events.last().expect("it ended").0;
        assert!(ended - before <= MINUTE + 6 * SECOND, "{:?}", ended - before);
    }
}

#[test]
fn stuck_server_is_asked_a_second_time() {
    let mut pair = Setup::default().join();
    pair.run_for(3 * MINUTE);
    let writes = pair.device_writes;
    // The server's session stops answering, its host goes on acknowledging.
    let (_, server) = pair.sessions();
    server.end(server::Cause::Lost, Duration::ZERO);
    let end = pair.run_to_end(10 * MINUTE);
    assert_eq!(end, Some(&End::Silent { waited: 12 * SECOND, acknowledged: true }));
    assert_eq!(pair.device_writes, writes + 2);
}

#[test]
fn slow_line_is_given_the_time_it_takes() {
    // Ten seconds there and back, where two would have been the deadline of a quick line.
    let mut setup = Setup { latency: 5 * SECOND, ..Setup::default() };
    setup.terms.timeout = 15 * SECOND;
    let mut pair = setup.join();
    pair.run_for(DAY);
    assert_eq!((pair.device_end(), pair.server_end()), (None, None));
    pair.dark = true;
    // What a steady line is waited for comes down to its round trip; then twice that, but no longer than `timeout`.
    let Some(End::Silent { waited, .. }) = pair.run_to_end(10 * MINUTE) else { panic!() };
    assert!((25..26).contains(&waited.as_secs()), "{waited:?}");
}

#[test]
fn busy_server_has_the_longest_deadline_to_take_a_greeting() {
    let mut setup = Setup::default();
    setup.terms.round_trip.measured(Duration::from_millis(50));
    let mut pair = setup.join();
    pair.dark = true;
    let end = pair.run_to_end(10 * MINUTE);
    assert_eq!(end, Some(&End::Silent { waited: 20 * SECOND, acknowledged: false }));
}

#[test]
fn silent_device_is_let_go_after_two_and_a_half_heartbeats() {
    let mut pair = Setup::default().join();
    pair.run_for(5 * SECOND);
    pair.dark = true;
    pair.run_for(10 * MINUTE);
    let (at, event) = pair.server_events.last().expect("it ended");
    assert_eq!(*event, Event::Ended(server::Cause::Idle));
    // Its last message, the time request, came 0.6 s after the start.
    assert_eq!(*at, Duration::from_millis(600) + 150 * SECOND);
}

#[test]
fn silent_classic_device_is_let_go_after_its_own_limit() {
    let mut pair = Setup::classic().join();
    pair.run_for(5 * SECOND);
    pair.dark = true;
    pair.run_for(10 * MINUTE);
    let (at, event) = pair.server_events.last().expect("it ended");
    assert_eq!(*event, Event::Ended(server::Cause::Idle));
    assert_eq!(*at, Duration::from_millis(600) + 90 * SECOND);
}

#[test]
fn peer_that_says_nothing_is_let_go() {
    let mut pair = Setup::default().join();
    pair.dark = true;
    pair.run_for(MINUTE);
    assert_eq!(pair.server_events, [(30 * SECOND, Event::Ended(server::Cause::NoHello))]);
}

#[test]
fn device_takes_leave() {
    let mut pair = Setup::default().join();
    pair.run_for(5 * SECOND);
    pair.sessions().0.close(device_goodbye::STOPPING);
    pair.run_for(5 * SECOND);
    assert_eq!(pair.device_end(), Some(&End::Closed));
    assert_eq!(pair.server_end(), Some(server::Cause::Goodbye { reason: 1 }));
}

#[test]
fn server_takes_leave() {
    let mut pair = Setup::default().join();
    pair.run_for(5 * SECOND);
    pair.sessions().1.end(server::Cause::Stopping, 90 * SECOND);
    pair.run_for(5 * SECOND);
    let goodbye = End::Goodbye { reason: server_goodbye::STOPPING, retry_after: 90 * SECOND };
    assert_eq!(pair.device_end(), Some(&goodbye));
}

#[test]
fn another_devices_imei_is_refused() {
    let mut pair = Setup { imei: other_imei(), ..Setup::default() }.join();
    pair.run_for(5 * SECOND);
    let Some(End::Rejected { code: rejection::IDENTITY, text }) = pair.device_end() else {
        panic!("{:?}", pair.device_end())
    };
    assert_eq!(text, "the certificate does not belong to IMEI 358192018309313");
    let certified = Setup::default().imei;
    assert_eq!(
        pair.server_end(),
        Some(server::Cause::Refused(Rejection::Mismatch { certified, claimed: other_imei() }))
    );
}

#[test]
fn binding_decides_who_is_identified() {
    let other = Some(other_imei());
    let cases = [
        (Binding::Required, None, false),
        (Binding::Required, other, false),
        (Binding::IfPresent, None, true),
        (Binding::IfPresent, other, false),
        (Binding::Off, None, true),
        (Binding::Off, other, true),
    ];
    for base in [Setup::default(), Setup::classic()] {
        for (binding, certified, admitted) in cases {
            let mut setup = Setup { certified, ..base.clone() };
            setup.policy.binding = binding;
            let mut pair = setup.join();
            pair.run_for(5 * SECOND);
            assert_eq!(registered(&pair), admitted, "{binding:?} {certified:?} {}", base.dialect);
        }
    }
}

#[test]
fn registrys_word_reaches_the_device() {
    for base in [Setup::default(), Setup::classic()] {
        let mut pair = Setup { verdict: Err(Rejection::UnknownDevice), ..base }.join();
        pair.run_for(5 * SECOND);
        assert!(matches!(pair.device_end(), Some(End::Rejected { .. })), "{:?}", pair.device_end());
        assert_eq!(pair.server_end(), Some(server::Cause::Refused(Rejection::UnknownDevice)));
    }
}

#[test]
fn one_byte_per_packet_changes_nothing() {
    for base in [Setup::default(), Setup::classic()] {
        let mut pair = Setup { packet: 1, ..base }.join();
        pair.run_for(DAY);
        assert_eq!((heartbeats(&pair), times_asked(&pair)), (24 * 60 - 1, 1));
        assert_eq!((pair.device_end(), pair.server_end()), (None, None));
    }
}

/// A year in which coverage comes and goes by the minute: the device is back within the longest delay and a half, every
/// time, and asks no more often than the delays allow.
#[test]
fn year_of_flapping_coverage() {
    let limits = Limits { first: SECOND, max: 10 * MINUTE, stable_after: 5 * MINUTE };
    let (mut backoff, mut random) = (Backoff::new(limits, 1), 0x2545_f491_4f6c_dd1d_u64);
    let mut minutes = |most: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        MINUTE * u32::try_from(random % most + 1).expect("few")
    };
    let (mut passed, mut losses, mut tries) = (Duration::ZERO, 0, 0);
    while passed < 365 * DAY {
        let mut pair = Setup::default().join();
        pair.run_for(minutes(240));
        assert!(registered(&pair));
        pair.dark = true;
        assert!(matches!(pair.run_to_end(5 * MINUTE), Some(End::Silent { .. })));
        passed += pair.elapsed();
        losses += 1;
        let mut gap = minutes(120);
        let mut healthy = pair.elapsed();
        loop {
            let delay = backoff.next_delay(Cause::Network, std::mem::take(&mut healthy), None);
            assert!(delay <= limits.max);
            passed += delay;
            tries += 1;
            let Some(rest) = gap.checked_sub(delay) else { break };
            gap = rest;
        }
    }
    assert!(losses > 1_000, "{losses}");
    assert!(tries < losses * 40, "{tries} tries for {losses} losses");
}

#[test]
fn two_hundred_requests_in_one_write_are_each_answered() {
    let mut pair = Setup::default().join();
    pair.run_for(5 * SECOND);
    pair.deliver_to_server(&[1, 1].repeat(200));
    assert_eq!(heartbeats(&pair), 200);
    assert_eq!(pair.server_end(), None);
}

#[test]
fn unknown_messages_are_skipped_and_counted() {
    let mut pair = Setup::default().join();
    pair.run_for(5 * SECOND);
    pair.deliver_to_server(&[3, 99, 1, 2, 1, 1]);
    assert_eq!(pair.count(|event| *event == Event::Skipped { message: 99 }), 1);
    assert_eq!(heartbeats(&pair), 1);
    pair.deliver_to_device(&[2, 77, 0]);
    assert!(pair.device_events.iter().any(|(_, event)| *event == agent::Event::Skipped { message: 77 }));
    pair.run_for(DAY);
    assert_eq!((pair.device_end(), pair.server_end()), (None, None));
}

#[test]
fn second_hello_ends_the_session() {
    let mut pair = Setup::default().join();
    pair.run_for(5 * SECOND);
    let hello = [47, 0].into_iter().chain([0; 46]).collect::<Vec<u8>>();
    pair.deliver_to_server(&hello);
    assert!(matches!(pair.server_end(), Some(server::Cause::Protocol(_))), "{:?}", pair.server_end());
}

#[test]
fn wrong_direction_ends_the_session() {
    // A server's Welcome, sent to the server: its fields are no Hello.
    let mut pair = Setup::default().join();
    pair.deliver_to_server(&[5, 0, 7, 60, 0, 120]);
    assert!(matches!(pair.server_end(), Some(server::Cause::Protocol(_))), "{:?}", pair.server_end());
}

#[test]
fn classic_peer_habits_are_served() {
    let mut pair = Setup::classic().join();
    pair.run_for(5 * SECOND);
    // Heartbeats and time requests in one write are answered in order; an unknown message with an error.
    let before = pair.device_events.len();
    pair.deliver_to_server(&[0, 0, 0, 2, 0, 1, 0, 0, 0, 2, 0, 2, 0, 0, 0, 3, 0, 9, 5]);
    pair.run_for(SECOND);
    assert_eq!(heartbeats(&pair), 1);
    assert_eq!(times_asked(&pair), 2);
    assert_eq!(pair.count(|event| *event == Event::Skipped { message: 9 }), 1);
    assert!(pair.device_events[before..].contains_skipped(9), "{:?}", &pair.device_events[before..]);
}

trait Told {
    fn contains_skipped(&self, message: u32) -> bool;
}

impl Told for [(Duration, agent::Event)] {
    fn contains_skipped(&self, message: u32) -> bool {
        self.iter().any(|(_, event)| *event == agent::Event::Skipped { message })
    }
}

#[test]
fn classic_device_is_known_by_its_certificate() {
    let mut pair = Setup::classic().join();
    // It heartbeats before it registers, and registers then.
    pair.deliver_to_server(&[0, 0, 0, 2, 0, 1]);
    let Some((_, Event::Registering(first))) = pair.server_events.first() else { panic!() };
    assert_eq!((first.imei, first.app_id), (Setup::default().imei, None));
    assert_eq!(heartbeats(&pair), 1);
    pair.run_for(5 * SECOND);
    let registrations = pair.count(|event| matches!(event, Event::Registering(_)));
    assert_eq!(registrations, 2);
    assert_eq!(pair.server_end(), None);
}

#[test]
fn classic_device_that_nothing_identifies_is_served() {
    for (binding, served) in [(Binding::Required, false), (Binding::IfPresent, true), (Binding::Off, true)] {
        let mut setup = Setup { certified: None, ..Setup::classic() };
        setup.policy.binding = binding;
        let mut pair = setup.join();
        pair.deliver_to_server(&[0, 0, 0, 2, 0, 1]);
        assert_eq!(heartbeats(&pair), usize::from(served), "{binding:?}");
        assert_eq!(pair.count(|event| matches!(event, Event::Registering(_))), 0);
    }
}

#[test]
fn second_classic_register_is_answered_with_an_error() {
    let mut pair = Setup::classic().join();
    pair.run_for(5 * SECOND);
    pair.deliver_to_server(&classic_register(b"490154203237518"));
    assert_eq!(pair.count(|event| matches!(event, Event::Registering(_))), 1);
    assert_eq!(pair.server_end(), None);
}

#[test]
fn classic_register_that_is_no_imei_is_refused() {
    for (digits, fault) in [
        (b"49015420323751x", ImeiError::NotDigits),
        (b"490154203237519", ImeiError::CheckDigit { found: 9, expected: 8 }),
        (b"000000000000000", ImeiError::AllZeros),
        (b"\xff\xfe0154203237518", ImeiError::NotDigits),
    ] {
        let mut pair = Setup::classic().join();
        pair.deliver_to_server(&classic_register(digits));
        assert_eq!(pair.server_end(), Some(server::Cause::Refused(Rejection::BadImei(fault))));
    }
}

fn classic_register(imei: &[u8; 15]) -> Vec<u8> {
    [&[0, 0, 0, 53, 0, 0], b"996da38d-a7be-4947-aa4c-f8208b5f4ade".as_slice(), imei].concat()
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), classic: bool) {
        let setup = if classic { Setup::classic() } else { Setup::default() };
        let mut pair = setup.clone().join();
        pair.run_for(SECOND);
        pair.deliver_to_server(&bytes);
        pair.run_for(DAY);
        let mut pair = setup.join();
        pair.run_for(SECOND);
        pair.deliver_to_device(&bytes);
        pair.run_for(DAY);
    }
}

#[test]
fn check_asks_at_once_and_only_once() {
    let mut pair = Setup::default().join();
    pair.run_for(10 * SECOND);
    pair.sessions().0.check();
    pair.sessions().0.check();
    pair.run_for(SECOND);
    assert_eq!(heartbeats(&pair), 1);
    // On a way that is gone the end comes after the two ordinary deadlines, and not after the interval.
    pair.dark = true;
    pair.sessions().0.check();
    let asked = pair.elapsed();
    let end = pair.run_to_end(MINUTE);
    assert!(matches!(end, Some(End::Silent { .. })), "{end:?}");
    assert!(pair.elapsed() - asked <= 20 * SECOND);
}
