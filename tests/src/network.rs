//! A cellular network as one device sees it: delay, loss, coverage, and a carrier's NAT that forgets a silent flow. Pure:
//! chance is seeded and time is an argument. It knows no TCP and no session; it is asked about one packet at a time.

use std::time::{Duration, Instant};

/// What a NAT does with the packets of a flow that it has forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// It drops them, whichever way they go: only a new connection gets through.
    Silent,
    /// The device's next packet gets a new port, and the server's host resets what it does not know.
    Remapping,
    /// The device's next packet opens the mapping again as it was; what the server sends before that is dropped.
    Healing,
}

/// The carrier's NAT.
#[derive(Clone, Copy, Debug)]
pub struct Nat {
    /// What it does with a flow that it has forgotten.
    pub kind: NatKind,
    /// A flow without a packet for this long is forgotten; `None`: never.
    pub timeout: Option<Duration>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives then.
    Arrives(Instant),
    /// It never does.
    Lost,
    /// The sender is told then that there is no such connection.
    Reset(Instant),
}

/// See the module. All of it may be changed at any time, as a network does.
#[derive(Clone, Debug)]
pub struct Network {
    /// One way.
    pub latency: Duration,
    /// Up to this much more for each packet.
    pub jitter: Duration,
    /// Of a thousand packets.
    pub loss_per_mille: u64,
    /// Whether there is radio.
    pub covered: bool,
    /// There is radio, and nothing gets through all the same.
    pub black_hole: bool,
    /// The NAT on the way.
    pub nat: Nat,
    /// The flow's last packet that passed the NAT; `None`: there was none, or it is forgotten for good.
    passed: Option<Instant>,
    chance: Chance,
}

impl Network {
    /// A good network behind this NAT: 100 ms one way, nothing lost.
    #[must_use]
    pub const fn new(nat: Nat, seed: u64) -> Self {
        Self {
            latency: Duration::from_millis(100),
            jitter: Duration::ZERO,
            loss_per_mille: 0,
            covered: true,
            black_hole: false,
            nat,
            passed: None,
            chance: Chance(seed),
        }
    }

    /// The device opens a new connection, whose first packet is this: the flow before is no more.
    pub fn connect(&mut self, now: Instant) -> Fate {
        self.passed = Some(now);
        self.carry(now)
    }

    /// The device sends a packet.
    pub fn up(&mut self, now: Instant) -> Fate {
        if !self.is_open() {
            return Fate::Lost;
        }
        match (self.remembers(now), self.nat.kind) {
            (true, _) | (false, NatKind::Healing) => {
                self.passed = Some(now);
                self.carry(now)
            }
            (false, NatKind::Silent) => Fate::Lost,
            (false, NatKind::Remapping) => Fate::Reset(now + self.latency * 2),
        }
    }

    /// The server sends a packet. Without radio it reaches the NAT all the same.
    pub fn down(&mut self, now: Instant) -> Fate {
        if self.black_hole || !self.remembers(now) {
            return Fate::Lost;
        }
        self.passed = Some(now);
        if self.covered { self.carry(now) } else { Fate::Lost }
    }

    fn carry(&mut self, now: Instant) -> Fate {
        if !self.is_open() || self.chance.up_to(999) < self.loss_per_mille {
            return Fate::Lost;
        }
        let jitter = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        Fate::Arrives(now + self.latency + Duration::from_millis(self.chance.up_to(jitter)))
    }

    const fn is_open(&self) -> bool {
        self.covered && !self.black_hole
    }

    /// Whether the NAT knows the flow. A silent one that has forgotten it does so for good.
    fn remembers(&mut self, now: Instant) -> bool {
        let Some(passed) = self.passed else { return false };
        let forgotten = self.nat.timeout.is_some_and(|timeout| now >= passed + timeout);
        if forgotten && self.nat.kind != NatKind::Healing {
            self.passed = None;
        }
        !forgotten
    }
}

/// Marsaglia's xorshift64: a spread that a seed repeats.
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// Evenly from zero to `most`.
    pub const fn up_to(&mut self, most: u64) -> u64 {
        // It would stand still at zero.
        let mut x = self.0 | 1 << 63;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0 = x;
        (x >> 1) % (most + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const ONE_WAY: Duration = Duration::from_millis(100);

    fn after_silence(kind: NatKind) -> (Network, Instant) {
        #[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
        let start = Instant::now();
        let mut network = Network::new(Nat { kind, timeout: Some(MINUTE) }, 1);
        assert_eq!(network.connect(start), Fate::Arrives(start + ONE_WAY));
        let (before, after) = (start + MINUTE - ONE_WAY, start + 2 * MINUTE);
        assert_eq!(network.down(before), Fate::Arrives(before + ONE_WAY));
        assert_eq!(network.down(after), Fate::Lost);
        (network, after)
    }

    #[test]
    fn silent_nat_takes_nothing_of_a_forgotten_flow() {
        let (mut network, now) = after_silence(NatKind::Silent);
        assert_eq!((network.up(now), network.down(now)), (Fate::Lost, Fate::Lost));
        assert_eq!(network.connect(now), Fate::Arrives(now + ONE_WAY));
        assert_eq!(network.up(now), Fate::Arrives(now + ONE_WAY));
    }

    #[test]
    fn remapping_nat_has_a_forgotten_flow_reset() {
        let (mut network, now) = after_silence(NatKind::Remapping);
        assert_eq!(network.up(now), Fate::Reset(now + 2 * ONE_WAY));
        assert_eq!(network.down(now), Fate::Lost);
    }

    #[test]
    fn healing_nat_is_opened_by_the_device_alone() {
        let (mut network, now) = after_silence(NatKind::Healing);
        assert_eq!(network.up(now), Fate::Arrives(now + ONE_WAY));
        assert_eq!(network.down(now), Fate::Arrives(now + ONE_WAY));
    }

    #[test]
    fn lack_of_coverage_is_no_matter_of_the_nat() {
        let (mut network, now) = after_silence(NatKind::Healing);
        network.covered = false;
        assert_eq!(
            (network.up(now), network.down(now), network.connect(now)),
            (Fate::Lost, Fate::Lost, Fate::Lost)
        );
    }

    #[test]
    fn losses_are_as_many_as_told() {
        let (mut network, now) = after_silence(NatKind::Healing);
        network.loss_per_mille = 50;
        let lost = (0..10_000).filter(|_| network.up(now) == Fate::Lost).count();
        assert!((400..600).contains(&lost), "{lost}");
    }
}
