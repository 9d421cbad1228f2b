//! A year of a device's life in seconds: the agent's decisions against all that a line, a server and a clock can suffer. What
//! must hold is checked after every spell; what broke it is printed with its seed.
//!
//! `MOORLINE_YEARS` says how many years are lived, each with its own seed, and `MOORLINE_SEED` where they begin:
//!
//! ```sh
//! MOORLINE_YEARS=200 cargo test -p moorline-testbed --test year
//! MOORLINE_YEARS=1 MOORLINE_SEED=17 cargo test -p moorline-testbed --test year    # that year again
//! ```

use std::env;
use std::time::Duration;

use moorline_agent::budget::{Bound, Level, Limits};
use moorline_agent::keepalive::{Interval, Notice, Settings};
use moorline_protocol::usage_level::{FREE, SPENT};
use moorline_testbed::life::{BUDGET, Life, Tally};
use moorline_testbed::network::{Nat, NatKind, Network};
use moorline_testbed::weather::{Trouble, Weather};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

const SETTINGS: Settings = Settings {
    interval: Interval::Adaptive,
    min: Duration::from_secs(5 * 60),
    max: Duration::from_secs(29 * 60),
    timeout: Duration::from_secs(10),
};

/// How long after the network is good again the device is online at the latest: the longest silence, two answers missed,
/// and the longest backoff with a try that times out.
const BACK: Duration = Duration::from_secs(29 * 60 + 2 * 30 + 600 + 60);

#[test]
fn device_is_back_after_every_spell_and_harms_no_network() {
    for seed in seeds() {
        let year = Year::live(seed, true);
        year.attempts_stay_within_the_budget();
        year.silence_fits_the_nat();
        year.only_a_lost_server_spreads_returns();
        year.usage_is_told_seldom();
    }
}

/// The wall clock jumps a year ahead and back, and nothing happens at another time than without.
#[test]
fn jumps_of_the_wall_clock_move_no_timer() {
    for seed in seeds().take(2) {
        let (with, without) = (Year::live(seed, true), Year::live(seed, false));
        assert!(with.jumps > 0, "seed {seed}: no jump");
        assert_eq!(with.life.tally.tries, without.life.tally.tries, "seed {seed}");
        assert_eq!(with.life.packets(), without.life.packets(), "seed {seed}");
    }
}

/// What is spent while the server is dead is free again before anybody can be told; it is told all the same, and once.
#[test]
fn server_that_was_dead_hears_what_was_spent_meanwhile() {
    let mut life = Life::new(Network::new(Nat { kind: NatKind::Healing, timeout: None }, 1), SETTINGS, 1);
    life.budget.set_limits(Limits { attempts_per_hour: Some(6), ..BUDGET });
    life.run_for(10 * MINUTE);
    let levels = |life: &Life| -> Vec<_> {
        life.tally.usages.iter().map(|usage| (usage.hour.level, usage.hour.peak)).collect()
    };
    assert_eq!(levels(&life), [(FREE, FREE)]);
    life.kill_server();
    life.run_for(5 * HOUR);
    let spent = life.tally.levels.iter().filter(|level| **level == (Bound::Hour, Level::Spent)).count();
    assert!(spent >= 4, "{:?}", life.tally.levels);
    life.start_server();
    life.run_for(2 * HOUR);
    assert!(life.is_online());
    assert_eq!(levels(&life), [(FREE, FREE), (FREE, SPENT)]);
    life.run_for(30 * DAY);
    assert_eq!(levels(&life).len(), 2);
}

struct Year {
    seed: u64,
    nat: Nat,
    life: Life,
    jumps: usize,
    /// How often the server died and its host told so.
    deaths: usize,
}

impl Year {
    fn live(seed: u64, clock_jumps: bool) -> Self {
        let kinds = [NatKind::Silent, NatKind::Remapping, NatKind::Healing];
        let minutes = [6, 8, 12, 16, 20, 25];
        let nat = Nat {
            kind: kinds[seed as usize % 3],
            timeout: Some(MINUTE * minutes[seed as usize / 3 % minutes.len()]),
        };
        let mut life = Life::new(Network::new(nat, seed), SETTINGS, seed);
        life.spread = Duration::from_secs(120);
        let mut weather = Weather::new(seed);
        weather.clock_jumps = clock_jumps;
        let (mut told, mut jumps, mut deaths) = (Vec::new(), 0, 0);
        while life.elapsed() < 365 * DAY {
            life.run_for(weather.fair() - HOUR);
            let spell = weather.spell();
            told.push(format!("{:>5} h: {spell}", life.elapsed().as_secs() / 3600));
            let before = life.clock_ahead_ms;
            weather.play(spell, &mut life);
            deaths += usize::from(spell.trouble == Trouble::ServerDead);
            jumps += usize::from(life.clock_ahead_ms != before);
            // Where the budget is spent, the rollover; it is at most a day for attempts.
            let back = if life.budget.may_attempt(life.now()).is_ok() { BACK } else { DAY + BACK };
            life.run_for(back);
            let last = told.len().saturating_sub(5);
            assert!(
                life.is_online(),
                "seed {seed}: not back {back:?} after the last of {:#?}",
                &told[last..]
            );
        }
        // Two weeks of fair weather, so that what was learned shows.
        life.run_for(14 * DAY);
        Self { seed, nat, life, jumps, deaths }
    }

    fn attempts_stay_within_the_budget(&self) {
        for (length, limit) in [(HOUR, BUDGET.attempts_per_hour), (DAY, BUDGET.attempts_per_day)] {
            let limit = limit.map_or(usize::MAX, |limit| limit as usize);
            let periods = self.life.tally.tries.chunk_by(|a, b| period(*a, length) == period(*b, length));
            let most = periods.map(<[Duration]>::len).max().unwrap_or(0);
            assert!(most <= limit, "seed {}: {most} tries in {length:?}", self.seed);
        }
    }

    /// Whatever else ends a session, a NAT's reset among it: the device comes at once.
    fn only_a_lost_server_spreads_returns(&self) {
        let spread = self.life.tally.spread;
        assert!(spread <= self.deaths, "seed {}: {spread} for {} deaths", self.seed, self.deaths);
    }

    /// Once a day at most, and whenever a bound comes to another level.
    fn usage_is_told_seldom(&self) {
        let Tally { usages, levels, .. } = &self.life.tally;
        let (told, most) = (usages.len(), 365 + 15 + levels.len());
        assert!(told > 12 && told <= most, "seed {}: told {told} times", self.seed);
    }

    fn silence_fits_the_nat(&self) {
        let timeout = self.nat.timeout.unwrap_or(SETTINGS.max);
        let held = self.life.tally.notices.iter().rev().find_map(|notice| match notice {
            Notice::Settled(silence) => Some(*silence),
            _ => None,
        });
        let held = held.unwrap_or_default();
        let enough = (timeout * 4 / 5).min(SETTINGS.max);
        assert!(held < timeout && held >= enough, "seed {}: {held:?} of {:?}", self.seed, self.nat);
    }
}

fn period(at: Duration, length: Duration) -> u64 {
    at.as_secs() / length.as_secs()
}

fn seeds() -> std::ops::Range<u64> {
    let first = number("MOORLINE_SEED").unwrap_or(1);
    first..first + number("MOORLINE_YEARS").unwrap_or(6)
}

#[expect(clippy::disallowed_methods, reason = "the long setting of a simulation")]
fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}
