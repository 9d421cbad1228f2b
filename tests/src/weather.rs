//! What a year does to a device: spells of everything that a cellular line, a server and a clock can suffer, in an order that
//! a seed repeats. It plays them on a [`Life`] and judges nothing.

use std::fmt;
use std::time::Duration;

use crate::life::Life;
use crate::network::Chance;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No radio.
    NoCoverage,
    /// Radio, and nothing gets through.
    BlackHole,
    /// The server's process is dead and its host says so.
    ServerDead,
    /// The server's host is dead, and what comes after it knows nothing of the sessions.
    HostDead,
    /// A tenth of the packets is lost.
    Loss,
    /// Round trips of three seconds.
    Delay,
    /// Radio comes and goes every few minutes.
    Flapping,
    /// The device's wall clock jumps a year ahead, or back again.
    ClockJump,
}

const ALL: [Trouble; 8] = [
    Trouble::NoCoverage,
    Trouble::BlackHole,
    Trouble::ServerDead,
    Trouble::HostDead,
    Trouble::Loss,
    Trouble::Delay,
    Trouble::Flapping,
    Trouble::ClockJump,
];

/// A trouble and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub struct Spell {
    /// What.
    pub trouble: Trouble,
    /// How long.
    pub lasts: Duration,
}

impl fmt::Display for Spell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {} s", self.trouble, self.lasts.as_secs())
    }
}

/// The order of things.
pub struct Weather {
    chance: Chance,
    /// Whether the wall clock jumps; no timer may care.
    pub clock_jumps: bool,
}

impl Weather {
    /// The same for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)), clock_jumps: true }
    }

    /// How long all is well before the next spell: hours to days.
    pub fn fair(&mut self) -> Duration {
        2 * HOUR + SECOND * self.up_to(46 * 3600)
    }

    /// The next spell; most are short and some are long.
    pub fn spell(&mut self) -> Spell {
        let trouble = ALL[self.up_to(ALL.len() as u32 - 1) as usize];
        let most = if self.up_to(3) == 0 { 8 * 3600 } else { 600 };
        Spell { trouble, lasts: SECOND * (1 + self.up_to(most)) }
    }

    /// Lives through a spell, to its end.
    pub fn play(&mut self, spell: Spell, life: &mut Life) {
        let lasts = spell.lasts;
        let usual = life.network.latency;
        match spell.trouble {
            Trouble::NoCoverage => {
                life.network.covered = false;
                life.run_for(lasts);
            }
            Trouble::BlackHole => {
                life.network.black_hole = true;
                life.run_for(lasts);
            }
            Trouble::ServerDead => {
                life.kill_server();
                life.run_for(lasts);
            }
            Trouble::HostDead => {
                life.network.black_hole = true;
                life.kill_server();
                life.run_for(lasts);
            }
            Trouble::Loss => {
                life.network.loss_per_mille = 100;
                life.run_for(lasts);
            }
            Trouble::Delay => {
                life.network.latency = Duration::from_millis(1500);
                life.run_for(lasts);
            }
            Trouble::Flapping => self.flap(lasts, life),
            Trouble::ClockJump => self.jump(life),
        }
        life.start_server();
        life.network.covered = true;
        life.network.black_hole = false;
        life.network.loss_per_mille = 0;
        life.network.latency = usual;
    }

    fn flap(&mut self, lasts: Duration, life: &mut Life) {
        let end = life.elapsed() + lasts;
        while life.elapsed() < end {
            life.network.covered = !life.network.covered;
            life.run_for(MINUTE / 4 + SECOND * self.up_to(285));
        }
    }

    fn jump(&mut self, life: &mut Life) {
        const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;
        let ahead = if self.up_to(1) == 0 { YEAR_MS } else { -YEAR_MS };
        if self.clock_jumps {
            life.clock_ahead_ms = if life.clock_ahead_ms == 0 { ahead } else { 0 };
        }
    }

    fn up_to(&mut self, most: u32) -> u32 {
        u32::try_from(self.chance.up_to(most.into())).unwrap_or(most)
    }
}
