//! The learned keepalive against modelled NATs, in virtual time: what it learns, what that costs, and what it is not fooled
//! by.

use std::time::Duration;

use moorline_agent::keepalive::{Interval, Learned, Notice, Profile, Settings};
use moorline_agent::session::{self as agent, End, Pace};
use moorline_testbed::life::Life;
use moorline_testbed::network::{Chance, Nat, NatKind, Network};
use moorline_testbed::pair::Setup;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

const KINDS: [NatKind; 3] = [NatKind::Silent, NatKind::Remapping, NatKind::Healing];

const SETTINGS: Settings = Settings {
    interval: Interval::Adaptive,
    min: Duration::from_secs(5 * 60),
    max: Duration::from_secs(29 * 60),
    timeout: Duration::from_secs(10),
};

fn behind(kind: NatKind, timeout: Option<Duration>) -> Network {
    Network::new(Nat { kind, timeout }, 1)
}

fn life(kind: NatKind, timeout: Option<Duration>) -> Life {
    Life::new(behind(kind, timeout), SETTINGS, 1)
}

/// The silence that is held, if it is settled.
fn held(life: &Life) -> Option<Duration> {
    life.tally.notices.iter().rev().find_map(|notice| match notice {
        Notice::Settled(silence) => Some(*silence),
        _ => None,
    })
}

/// Under what the NAT bears, and at least four fifths of it.
fn fits(silence: Duration, timeout: Duration) -> bool {
    silence < timeout && silence * 5 >= timeout * 4
}

#[test]
fn silence_is_learned_to_four_fifths_of_what_the_nat_bears() {
    for kind in KINDS {
        for timeout in [330, 600, 900, 1200].map(Duration::from_secs) {
            let mut life = life(kind, Some(timeout));
            life.run_for(6 * HOUR);
            let silence = held(&life).unwrap_or_default();
            assert!(fits(silence, timeout), "{kind:?} {timeout:?}: {silence:?}");
            // Two failed Echoes call a silence dead: where the NAT does not heal, each is a session.
            let lost = if kind == NatKind::Healing { 0 } else { 2 };
            assert_eq!((life.tally.sessions, life.tally.failed_tries), (1 + lost, 0), "{kind:?} {timeout:?}");
            assert_eq!(life.tally.writes.len(), 1, "{:?}", life.tally.writes);
        }
    }
}

/// The server wants returns spread over an hour; a device that lost nothing but its mapping is back within seconds.
#[test]
fn reset_of_a_nat_that_remaps_is_no_lost_server() {
    let mut life = life(NatKind::Remapping, Some(10 * MINUTE));
    life.spread = HOUR;
    life.run_for(6 * HOUR);
    assert_eq!((life.tally.sessions, life.tally.spread), (3, 0));
    // Two silences of 684 s died in a row, and what found that out took ten seconds and a round trip.
    let [.., second, third] = life.tally.tries[..] else { unreachable!("three sessions") };
    let between = third - second;
    assert!((694..704).contains(&between.as_secs()), "{between:?}");
    life.kill_server();
    assert_eq!(life.tally.spread, 1);
}

#[test]
fn nat_that_never_forgets_is_held_at_the_longest() {
    for kind in KINDS {
        let mut life = life(kind, None);
        life.run_for(DAY);
        assert_eq!(held(&life), Some(SETTINGS.max));
        assert_eq!(life.tally.sessions, 1);
        // Eleven steps, and the one that showed that the server asks; what is then is a beat each 29 minutes.
        assert!(life.tally.echoes < 12 + 24 * 60 / 29, "{}", life.tally.echoes);
        assert_eq!(life.tally.heartbeats, 0);
    }
}

#[test]
fn line_that_five_minutes_kill_is_told_once_and_kept_at_five_minutes() {
    for kind in KINDS {
        let mut life = life(kind, Some(MINUTE));
        life.run_for(DAY);
        assert_eq!(life.tally.notices, [Notice::TooShort(SETTINGS.min)], "{kind:?}");
        assert_eq!(life.tally.writes, [Learned { good: 0, dead: 300 }]);
        // Every five minutes one session, or one heartbeat: no radio access is closer to the next than carriers ask for.
        let accesses = life.tally.sessions + life.tally.heartbeats;
        assert!((240..=288).contains(&accesses), "{kind:?}: {accesses}");
    }
}

#[test]
fn operator_who_allows_less_is_served_less() {
    for kind in KINDS {
        let settings = Settings { min: 20 * SECOND, ..SETTINGS };
        let mut life = Life::new(behind(kind, Some(MINUTE)), settings, 1);
        life.run_for(2 * HOUR);
        assert!(held(&life).is_some_and(|silence| fits(silence, MINUTE)), "{kind:?} {:?}", held(&life));
        // Five minutes and the step that was too long, each tried twice.
        assert!(life.tally.sessions <= 5, "{kind:?}: {}", life.tally.sessions);
    }
}

#[test]
fn nat_that_changes_is_learned_anew() {
    for kind in KINDS {
        let mut life = life(kind, Some(20 * MINUTE));
        life.run_for(DAY);
        let before = life.tally.sessions;
        life.network.nat.timeout = Some(8 * MINUTE);
        life.run_for(6 * HOUR);
        assert!(held(&life).is_some_and(|silence| fits(silence, 8 * MINUTE)), "{kind:?} {:?}", held(&life));
        assert!(life.tally.sessions - before <= 4, "{}", life.tally.sessions - before);
        // Upwards it is tried once a day at first.
        life.network.nat.timeout = None;
        life.run_for(2 * DAY);
        assert_eq!(held(&life), Some(SETTINGS.max), "{kind:?}");
    }
}

#[test]
fn reaching_further_costs_ever_less() {
    let mut life = life(NatKind::Silent, Some(10 * MINUTE));
    life.run_for(DAY);
    let before = life.tally.sessions;
    life.run_for(60 * DAY);
    // After 1, 2, 4, 8, 8, … days, each a session.
    assert!((7..=10).contains(&(life.tally.sessions - before)), "{}", life.tally.sessions - before);
    assert_eq!(life.tally.writes.len(), 1);
    assert_eq!(life.tally.notices.len(), 1);
}

#[test]
fn what_is_known_of_a_network_is_not_learned_again() {
    let mut life = life(NatKind::Silent, Some(10 * MINUTE));
    life.keepalive.move_to(Learned { good: 580, dead: 684 });
    life.run_for(12 * HOUR);
    assert_eq!(life.tally.sessions, 1);
    assert!(fits(held(&life).unwrap_or_default(), 10 * MINUTE));
    assert_eq!(life.tally.writes, []);
    // On another one it begins anew.
    life.keepalive.move_to(Learned::default());
    life.network.nat.timeout = Some(15 * MINUTE);
    life.network.black_hole = true;
    life.run_for(HOUR);
    life.network.black_hole = false;
    life.run_for(6 * HOUR);
    assert!(fits(held(&life).unwrap_or_default(), 15 * MINUTE), "{:?}", held(&life));
}

#[test]
fn older_server_teaches_no_nonsense() {
    for kind in KINDS {
        for timeout in [Some(10 * MINUTE), None] {
            let mut life = life(kind, timeout);
            life.server_asks = false;
            life.run_for(DAY);
            assert_eq!(life.tally.notices, [Notice::Unasked(SETTINGS.min)], "{kind:?}");
            assert_eq!((life.tally.sessions, life.tally.echoes), (1, 0));
            assert!((270..=288).contains(&life.tally.heartbeats), "{}", life.tally.heartbeats);
            assert_eq!(life.tally.writes, []);
            // The server is updated: it asks from the next session on, or from the next silence.
            life.server_asks = true;
            life.run_for(DAY);
            life.network.covered = false;
            life.run_for(HOUR);
            life.network.covered = true;
            life.run_for(6 * HOUR);
            let silence = held(&life).unwrap_or_default();
            assert!(timeout.map_or(silence == SETTINGS.max, |timeout| fits(silence, timeout)), "{silence:?}");
        }
    }
}

#[test]
fn servers_bound_holds() {
    let mut life = life(NatKind::Silent, None);
    life.set_heartbeat_max(10 * MINUTE);
    life.run_for(DAY);
    assert_eq!(held(&life), Some(10 * MINUTE));
}

#[test]
fn fixed_interval_stays_as_it_was() {
    let settings = Settings { interval: Interval::Fixed(MINUTE), ..SETTINGS };
    let mut life = Life::new(behind(NatKind::Healing, None), settings, 1);
    life.run_for(DAY);
    assert_eq!((life.tally.sessions, life.tally.echoes), (1, 0));
    assert_eq!(life.tally.heartbeats, 24 * 60 - 1);
    assert_eq!(life.tally.notices, []);
}

#[test]
fn radio_that_wants_no_keepalives_gets_none() {
    let mut life = life(NatKind::Healing, None);
    life.keepalive.set_profile(Profile::Sparse);
    life.run_for(10 * DAY);
    assert_eq!((life.tally.sessions, life.tally.echoes, life.tally.heartbeats), (1, 0, 0));
    // Two packets and their acknowledgements each 58 minutes.
    assert!(life.packets() < 10 * 25 * 4 + 20, "{}", life.packets());
}

#[test]
fn gap_in_coverage_is_no_forgotten_mapping() {
    for kind in KINDS {
        let mut life = life(kind, None);
        life.run_for(DAY);
        // Each gap swallows an Echo, what the device asks after it and the first tries to come back; between two gaps there
        // is time for a new session, but not for an Echo that shows that all is well.
        for _ in 0..20 {
            life.network.covered = false;
            life.run_for(35 * MINUTE);
            life.network.covered = true;
            life.run_for(15 * MINUTE);
            assert!(life.is_online());
        }
        life.run_for(HOUR);
        assert_eq!(life.tally.notices, [Notice::Settled(SETTINGS.max)], "{kind:?}");
        assert_eq!(life.tally.writes.len(), 1);
    }
}

/// At the end of the silence the server's question is waited for, then the device's own is asked, and waited for twice.
#[test]
fn line_that_dies_in_a_learned_silence_is_left_half_a_minute_after_it() {
    let silence = 20 * MINUTE;
    let mut pair = Setup::default().join();
    pair.run_for(MINUTE / 2);
    pair.sessions().0.set_pace(Pace::Probed(silence));
    pair.run_for(3 * HOUR);
    assert_eq!(pair.device_end(), None);
    let spoken = pair.device_events.last().map(|(at, _)| *at).unwrap_or_default();
    pair.dark = true;
    let _ = pair.run_to_end(HOUR);
    let Some((at, agent::Event::Ended(End::Silent { .. }))) = pair.device_events.last() else {
        panic!("{:?}", pair.device_events)
    };
    assert!(*at - spoken <= silence + 30 * SECOND, "{:?}", *at - spoken);
}

/// A line as bad as lines are.
fn bad_line(kind: NatKind, timeout: Duration, seed: u64) -> Life {
    let mut network = Network::new(Nat { kind, timeout: Some(timeout) }, seed);
    network.latency = Duration::from_millis(750);
    network.jitter = Duration::from_millis(1500);
    network.loss_per_mille = 50;
    Life::new(network, SETTINGS, seed)
}

/// Days with gaps in coverage of up to half an hour, up to four hours apart.
fn flap(life: &mut Life, days: u32, seed: u64) {
    let (until, mut chance) = (life.elapsed() + DAY * days, Chance(seed));
    while life.elapsed() < until {
        life.run_for(Duration::from_secs(chance.up_to(4 * 3600)));
        life.network.covered = false;
        life.run_for(Duration::from_secs(chance.up_to(1800)));
        life.network.covered = true;
    }
}

/// Whatever the line does in between: what is held is never more than the NAT bears, and once the line is calm it is at
/// least four fifths of that, within the longest rest between two tries to reach further.
fn holds_what_fits(kind: NatKind, timeout: Duration, seed: u64) {
    let mut life = bad_line(kind, timeout, seed);
    flap(&mut life, 5, seed);
    life.run_for(9 * DAY);
    let silence = held(&life).unwrap_or_default();
    assert!(fits(silence, timeout), "{silence:?} {:?}", life.tally);
    for notice in &life.tally.notices {
        if let Notice::Settled(silence) = notice {
            assert!(*silence < timeout, "{silence:?} {:?}", life.tally);
        }
    }
    assert!(life.is_online());
}

/// What is sent again unheard, in vain or because its acknowledgement was lost, keeps a NAT from forgetting. In these lives
/// that made a silence seem good which was too long.
#[test]
fn what_tcp_repeats_fools_nobody_for_long() {
    for (kind, timeout, seed) in [
        (NatKind::Healing, 386, 18_293_568_047_117_584_899),
        (NatKind::Remapping, 1322, 14_467_433_191_564_097_058),
    ] {
        holds_what_fits(kind, Duration::from_secs(timeout), seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_held_fits_the_nat(seed: u64, kind in 0..3_usize, timeout in 330..1700_u64) {
        holds_what_fits(KINDS[kind], Duration::from_secs(timeout), seed);
    }
}
