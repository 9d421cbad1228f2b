//! How long a network may be silent before it forgets a flow, found by trying. Pure: what became of a silence goes in, the
//! next silence comes out. It knows no session, no wire and no file.
//!
//! ```text
//!   Checking ──► Climbing ──► Confirming ──► Holding ◄──► Reaching    TooShort: even the shortest silence allowed
//!      │            ▲  ▲          │             │           │         is too long; left by the first Echo that comes
//!      │            │  └──────────┴─────────────┘ it died   │
//!      ▼            ├───────────────────────────────────────┘ it is good
//!   Unasked ────────┘ by the first Echo that comes
//! ```
//!
//! A silence is good when the server's Echo came at its end before anything else was sent, and dead when that failed twice
//! in a row beside a working way up. Each step is 18 % longer than the one before, eleven from 5 to 29 minutes; what is held
//! is the last good one less 4 %, and so at least four fifths of what the network bears. It is settled once it was good
//! itself: where packets are lost, TCP's repetitions, of which neither side hears, can make a silence seem longer than it was.

use std::time::{Duration, Instant};

/// The shortest keepalive that carriers ask for (Verizon), where climbing begins; seconds.
pub(super) const START: u32 = 300;

/// A silence that all but the most hostile NATs bear, to see whether the server asks at all; seconds.
const CHECK: u32 = 30;

/// How often in a row an Echo fails before its silence is called dead.
const ENOUGH: u8 = 2;

/// The first rest between two tries to reach further; doubled after each in vain.
const REST: Duration = Duration::from_secs(24 * 3600);
const LONGEST_REST: Duration = Duration::from_secs(8 * 24 * 3600);

/// Between which silences to look; seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) min: u32,
    pub(super) max: u32,
}

/// What is worth keeping; seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The longest silence that the network bore; 0: none yet.
    pub good: u32,
    /// The shortest that it did not bear; 0: none yet.
    pub dead: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Whether the server asks at all is to be seen.
    Checking,
    /// It does not.
    Unasked,
    /// Step by step.
    Climbing,
    /// What is to be held, for the first time.
    Confirming,
    /// As long as is known to be good.
    Holding,
    /// Once in a while, one step further.
    Reaching,
    /// Even the shortest silence allowed is too long.
    TooShort,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Learner {
    bounds: Bounds,
    learned: Learned,
    phase: Phase,
    /// In force, seconds.
    silence: u32,
    /// Echoes in a row that did not come through.
    failures: u8,
    /// Silences in a row after which the server had not asked.
    unasked: u8,
    /// When to try a longer silence than the one held, and how long to rest after it came to nothing.
    reach_at: Instant,
    rest: Duration,
}

impl Learner {
    /// Goes on from what was learned before; a server that was learned from is known to ask.
    pub(super) fn new(bounds: Bounds, learned: Learned, now: Instant) -> Self {
        let mut learner = Self {
            bounds,
            learned,
            phase: Phase::Checking,
            silence: CHECK.min(bounds.min),
            failures: 0,
            unasked: 0,
            reach_at: now,
            rest: REST,
        };
        if learned != Learned::default() {
            learner.resume(now);
        }
        learner
    }

    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    /// The silence to agree on, seconds.
    pub(super) const fn silence(&self) -> u32 {
        self.silence
    }

    /// What is known, once it is settled: on the way there, nothing is worth a write to flash.
    pub(super) fn settled(&self) -> Option<Learned> {
        matches!(self.phase, Phase::Holding | Phase::TooShort).then_some(self.learned)
    }

    /// Other bounds hold from now on.
    pub(super) fn bound(&mut self, bounds: Bounds, now: Instant) {
        if bounds != self.bounds {
            self.bounds = bounds;
            match self.phase {
                Phase::Checking => self.silence = CHECK.min(bounds.min),
                Phase::Unasked => self.silence = bounds.min,
                _ => self.resume(now),
            }
        }
    }

    /// An Echo came after this silence, before anything else was said.
    pub(super) fn on_echo(&mut self, silence: Duration, now: Instant) {
        let failures = std::mem::take(&mut self.failures);
        self.unasked = 0;
        let kept = u32::try_from(silence.as_secs()).unwrap_or(u32::MAX).min(self.silence);
        match self.phase {
            Phase::Checking | Phase::Unasked => self.resume(now),
            // An Echo before its time, as when the server has its own reasons to ask, proves less than was agreed on.
            _ if u64::from(kept) * 20 < u64::from(self.silence) * 19 => {}
            // A line that has just failed has TCP send things again that this side hears nothing of and the NAT does.
            Phase::Climbing | Phase::Confirming if failures > 0 => {}
            Phase::Confirming => self.hold(now),
            Phase::Climbing | Phase::TooShort => self.climb(kept),
            Phase::Reaching => {
                self.rest = REST;
                self.climb(kept);
            }
            Phase::Holding if now >= self.reach_at && self.silence < self.bounds.max => {
                self.phase = Phase::Reaching;
                self.silence = self.longer(self.learned.good);
            }
            Phase::Holding => {}
        }
    }

    /// The server was heard to answer, and had not asked.
    pub(super) fn on_unasked(&mut self) {
        self.unasked += 1;
        if self.unasked >= ENOUGH || self.phase == Phase::Checking {
            (self.failures, self.unasked) = (0, 0);
            self.phase = Phase::Unasked;
            self.silence = self.bounds.min;
        }
    }

    /// The Echo did not come through, and the way up works.
    pub(super) fn on_failure(&mut self, now: Instant) {
        match self.phase {
            Phase::Unasked | Phase::TooShort => return,
            Phase::Reaching => {
                self.rest = (self.rest * 2).min(LONGEST_REST);
                return self.hold(now);
            }
            _ => {}
        }
        self.failures += 1;
        if self.failures < ENOUGH {
            return;
        }
        self.failures = 0;
        match self.phase {
            Phase::Checking => {
                self.phase = Phase::Unasked;
                self.silence = self.bounds.min;
            }
            Phase::Climbing if self.learned.good > 0 => {
                self.learned.dead = self.silence;
                self.confirm();
            }
            _ => {
                self.learned = Learned { good: 0, dead: self.silence };
                self.begin();
            }
        }
    }

    fn resume(&mut self, now: Instant) {
        self.learned.good = self.learned.good.min(self.bounds.max);
        if self.learned.good >= self.bounds.min {
            self.hold(now);
        } else {
            self.learned.good = 0;
            self.begin();
        }
    }

    /// From the usual start, or from the shortest allowed where the start is known to be dead.
    fn begin(&mut self) {
        let dead = |silence: u32| self.learned.dead != 0 && silence >= self.learned.dead;
        let Bounds { min, max } = self.bounds;
        let start = START.clamp(min, max);
        self.silence = if dead(start) { min } else { start };
        self.phase = if dead(self.silence) { Phase::TooShort } else { Phase::Climbing };
    }

    fn climb(&mut self, kept: u32) {
        self.learned.good = self.learned.good.max(kept);
        if self.learned.dead <= kept {
            self.learned.dead = 0;
        }
        let next = self.longer(self.silence);
        if self.silence >= self.bounds.max || (self.learned.dead != 0 && next >= self.learned.dead) {
            self.confirm();
        } else {
            self.phase = Phase::Climbing;
            self.silence = next;
        }
    }

    fn confirm(&mut self) {
        self.silence = self.held();
        self.phase = Phase::Confirming;
    }

    fn hold(&mut self, now: Instant) {
        self.silence = self.held();
        self.phase = Phase::Holding;
        self.reach_at = now + self.rest;
    }

    /// With a margin, except at the longest allowed.
    fn held(&self) -> u32 {
        let good = self.learned.good;
        let Bounds { min, max } = self.bounds;
        if good >= max { max } else { (good - good / 25).max(min) }
    }

    fn longer(&self, silence: u32) -> u32 {
        silence.saturating_add((silence.saturating_mul(9) / 50).max(1)).min(self.bounds.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { min: 300, max: 1740 };

    /// Echoes come for silences under `bears`; gives all that were tried until it is settled.
    fn climbed(bounds: Bounds, bears: u32) -> (Learner, Vec<u32>) {
        let now = crate::clock::now().instant;
        let mut learner = Learner::new(bounds, Learned::default(), now);
        let mut tried = vec![];
        while learner.settled().is_none() {
            let silence = learner.silence();
            tried.push(silence);
            assert!(tried.len() < 40, "{tried:?}");
            if silence < bears {
                learner.on_echo(Duration::from_secs(silence.into()), now);
            } else {
                learner.on_failure(now);
            }
        }
        (learner, tried)
    }

    #[test]
    fn eleven_steps_lead_from_five_to_29_minutes() {
        let (learner, tried) = climbed(BOUNDS, u32::MAX);
        // The last one is then confirmed.
        assert_eq!(tried, [30, 300, 354, 417, 492, 580, 684, 807, 952, 1123, 1325, 1563, 1740, 1740]);
        assert_eq!((learner.silence(), learner.phase()), (1740, Phase::Holding));
    }

    #[test]
    fn every_nat_is_held_at_four_fifths_or_more() {
        for bears in 60..=1740 {
            let bounds = Bounds { min: 20, ..BOUNDS };
            let (learner, _) = climbed(bounds, bears);
            let held = learner.silence();
            assert!(held < bears && held * 5 >= bears * 4, "{held} of {bears}");
        }
    }

    #[test]
    fn echo_before_its_time_proves_nothing() {
        let now = crate::clock::now().instant;
        let mut learner = Learner::new(BOUNDS, Learned::default(), now);
        learner.on_echo(Duration::from_secs(30), now);
        assert_eq!(learner.silence(), 300);
        learner.on_echo(Duration::from_secs(100), now);
        assert_eq!(learner.silence(), 300);
    }

    #[test]
    fn one_failure_between_two_echoes_is_forgiven() {
        let now = crate::clock::now().instant;
        let mut learner = Learner::new(BOUNDS, Learned { good: 580, dead: 684 }, now);
        for _ in 0..10 {
            learner.on_failure(now);
            learner.on_echo(Duration::from_secs(556), now);
        }
        assert_eq!((learner.silence(), learner.phase()), (557, Phase::Holding));
        learner.on_failure(now);
        learner.on_failure(now);
        assert_eq!((learner.silence(), learner.phase()), (300, Phase::Climbing));
    }

    #[test]
    fn echo_after_a_failure_leads_no_further() {
        let now = crate::clock::now().instant;
        let mut learner = Learner::new(BOUNDS, Learned::default(), now);
        learner.on_echo(Duration::from_secs(30), now);
        learner.on_failure(now);
        learner.on_echo(Duration::from_secs(300), now);
        assert_eq!((learner.silence(), learner.phase()), (300, Phase::Climbing));
        learner.on_echo(Duration::from_secs(300), now);
        assert_eq!((learner.silence(), learner.phase()), (354, Phase::Climbing));
    }

    #[test]
    fn nothing_is_settled_before_what_is_held_was_good_itself() {
        let now = crate::clock::now().instant;
        let mut learner = Learner::new(BOUNDS, Learned { good: 1123, dead: 0 }, now);
        learner.on_echo(Duration::from_secs(1079), now + REST);
        assert_eq!((learner.silence(), learner.phase()), (1325, Phase::Reaching));
        learner.on_echo(Duration::from_secs(1325), now + REST);
        learner.on_failure(now + REST);
        learner.on_failure(now + REST);
        assert_eq!((learner.silence(), learner.phase(), learner.settled()), (1272, Phase::Confirming, None));
        learner.on_failure(now + REST);
        learner.on_failure(now + REST);
        assert_eq!((learner.silence(), learner.settled()), (300, None));
    }

    #[test]
    fn narrower_bounds_hold_at_once_and_wider_ones_are_explored() {
        let now = crate::clock::now().instant;
        let mut learner = Learner::new(BOUNDS, Learned { good: 1740, dead: 0 }, now);
        learner.bound(Bounds { min: 300, max: 600 }, now);
        assert_eq!((learner.silence(), learner.phase()), (600, Phase::Holding));
        learner.bound(BOUNDS, now);
        assert!(learner.silence() <= 600);
        learner.on_echo(Duration::from_secs(600), now + REST);
        assert_eq!(learner.phase(), Phase::Reaching);
    }

    #[test]
    fn garbage_from_a_file_stays_within_bounds() {
        let now = crate::clock::now().instant;
        for good in [0, 1, 299, 300, u32::MAX] {
            for dead in [0, 1, 300, u32::MAX] {
                let mut learner = Learner::new(BOUNDS, Learned { good, dead }, now);
                for step in 0..50 {
                    let silence = learner.silence();
                    assert!((30..=BOUNDS.max).contains(&silence), "{good} {dead}: {silence}");
                    learner.on_echo(Duration::from_secs(silence.into()), now + REST * step);
                }
                assert_eq!(learner.silence(), BOUNDS.max, "{good} {dead}");
            }
        }
    }
}
