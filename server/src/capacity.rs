//! How many devices can come back at once, and so over what time a fleet's return has to be spread. Pure: what handshakes
//! cost in, windows out.
//!
//! A server that is lost, or restarted, has forgotten all sessions that could be resumed: everybody returns with a full
//! handshake. What one costs depends on the machine and on the fleet's kind of keys, by a factor of a hundred; so it is
//! measured: the processor time of those that were done, over the cores that may work on them. Processor time, and not the
//! clock's: on a busy machine the latter says more of the others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Taken as the first measurement: a small board with RSA keys. A server that has not seen a handshake yet spreads too far
/// rather than too little.
const ASSUMED: Duration = Duration::from_millis(10);

/// What a handshake may be taken to cost, whatever was measured: a clock that stood still must not make the rate endless.
const LEAST_COST: Duration = Duration::from_micros(50);
const MOST_COST: Duration = Duration::from_millis(500);

/// How many measurements weigh as much as all before them: so one preempted or cold handshake changes little, and a fleet
/// whose keys change is followed within a minute of a return.
const MEMORY: u64 = 32;

/// Once twice as many were measured, one of so many is: to ask for a thread's processor time is a system call, four of them
/// for each handshake.
const ONE_OF: u64 = 8;

/// Beside its cryptography a device's return costs an accept, a registration and a row to store: half as much again
/// (276 µs for each connection where the handshake's steps take 190).
const WHOLE_PER_MILLE: u64 = 1450;

/// No device is asked to stay away for longer: a fleet that this is too short for has its admission.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The estimate, shared by all connections.
#[derive(Debug)]
pub struct Capacity {
    /// How many handshakes are worked on at a time.
    parallel: u32,
    /// How many handshakes were begun.
    begun: AtomicU64,
    /// The mean cost in its lower 48 bits, nanoseconds; how many measurements it is of, up to [`MEMORY`], above.
    mean: AtomicU64,
}

const COST_BITS: u32 = 48;

impl Capacity {
    /// For a machine that works on so many handshakes at a time.
    #[must_use]
    pub fn new(parallel: usize) -> Self {
        let mean = AtomicU64::new(pack(1, nanoseconds(ASSUMED)));
        let begun = AtomicU64::new(0);
        Self { parallel: u32::try_from(parallel).unwrap_or(u32::MAX).max(1), begun, mean }
    }

    /// A handshake begins: whether what it costs is to be measured.
    pub fn is_measured_now(&self) -> bool {
        let before = self.begun.fetch_add(1, Ordering::Relaxed);
        before < 2 * MEMORY || before.is_multiple_of(ONE_OF)
    }

    /// A full handshake took so much processor time.
    pub fn note(&self, cost: Duration) {
        let cost = nanoseconds(cost.clamp(LEAST_COST, MOST_COST));
        let next = |packed| {
            let (count, mean) = unpack(packed);
            let weight = count + 1;
            // Between the two, so it fits where they do.
            let mean = (mean * (weight - 1) + cost) / weight;
            Some(pack(weight.min(MEMORY - 1), mean))
        };
        // Each measurement counts, in whatever order.
        let _ = self.mean.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Full handshakes that the machine is good for in a second, with what each brings along.
    #[must_use]
    pub fn per_second(&self) -> u32 {
        let (_, mean) = unpack(self.mean.load(Ordering::Relaxed));
        let whole = mean * WHOLE_PER_MILLE / 1000;
        let rate = u64::from(self.parallel) * nanoseconds(Duration::from_secs(1)) / whole.max(1);
        u32::try_from(rate).unwrap_or(u32::MAX).max(1)
    }

    /// The window over which so many devices return at half the rate that the machine is good for, in whole seconds, as the
    /// wire has them: the other half is for sessions that stand, and for what chance piles up. It is never below `least`.
    #[must_use]
    pub fn window(&self, devices: usize, least: Duration) -> Duration {
        let half = u64::from(self.per_second()).div_ceil(2);
        let seconds = u64::try_from(devices).unwrap_or(u64::MAX).div_ceil(half);
        Duration::from_secs(seconds).clamp(least, LONGEST.max(least))
    }
}

const fn pack(count: u64, mean: u64) -> u64 {
    count << COST_BITS | mean
}

const fn unpack(packed: u64) -> (u64, u64) {
    (packed >> COST_BITS, packed & ((1 << COST_BITS) - 1))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_secs(5);

    fn measured(parallel: usize, cost: Duration) -> Capacity {
        let capacity = Capacity::new(parallel);
        (0..1000).for_each(|_| capacity.note(cost));
        capacity
    }

    #[test]
    fn rate_is_cores_over_cost() {
        let capacity = measured(2, Duration::from_micros(190));
        assert!((7000..=7300).contains(&capacity.per_second()), "{}", capacity.per_second());
    }

    #[test]
    fn nothing_measured_spreads_far() {
        let capacity = Capacity::new(2);
        assert!(capacity.per_second() < 200, "{}", capacity.per_second());
        assert!(capacity.window(10_000, LEAST) > Duration::from_secs(100));
        capacity.note(Duration::from_micros(190));
        assert!(capacity.per_second() < 400, "one measurement is not believed alone");
    }

    #[test]
    fn first_ones_are_all_measured_and_then_one_of_eight() {
        let capacity = Capacity::new(1);
        assert!((0..64).all(|_| capacity.is_measured_now()));
        assert_eq!((0..800).filter(|_| capacity.is_measured_now()).count(), 100);
    }

    #[test]
    fn one_slow_handshake_changes_little() {
        let capacity = measured(1, Duration::from_micros(200));
        let before = capacity.per_second();
        capacity.note(Duration::from_millis(2));
        assert!(capacity.per_second() * 3 > before * 2, "{} after {before}", capacity.per_second());
    }

    #[test]
    fn dearer_keys_are_followed() {
        let capacity = measured(1, Duration::from_micros(200));
        (0..200).for_each(|_| capacity.note(Duration::from_micros(800)));
        assert!((850..=900).contains(&capacity.per_second()), "{}", capacity.per_second());
    }

    #[test]
    fn nonsense_is_bounded() {
        assert!(measured(1024, Duration::ZERO).per_second() < 20_000_000);
        assert!(measured(1, Duration::MAX).per_second() >= 1);
        assert_eq!(measured(1, Duration::MAX).window(usize::MAX, LEAST), LONGEST);
        assert_eq!(measured(1, Duration::from_micros(200)).window(0, LEAST), LEAST);
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(Capacity::new(1).window(1, day), day, "what a person asked for counts");
    }

    /// Virtual time in steps of 10 ms: a fleet returns at moments spread evenly over the window, by a fixed sequence that
    /// is as uneven as chance, and the machine works off what has come.
    #[test]
    fn fleet_that_keeps_to_the_window_never_waits_long() {
        for (cores, cost_us) in [(1, 190), (2, 190), (4, 5000)] {
            let cost = Duration::from_micros(cost_us);
            let capacity = measured(cores, cost);
            let (devices, window) = (100_000_u64, capacity.window(100_000, LEAST));
            let steps = window.as_millis() as u64 / 10;
            let mut coming = vec![0_u64; usize::try_from(steps).unwrap()];
            let mut seed = 7_u64;
            for _ in 0..devices {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                coming[usize::try_from((seed >> 33) % steps).unwrap()] += 1;
            }
            // What the machine can truly do in a step, by the cost that is the truth here.
            let done = cores as u64 * 10_000_000 * 1000 / (cost_us * 1000 * WHOLE_PER_MILLE);
            let (mut waiting, mut longest) = (0_u64, 0);
            for came in coming {
                waiting = (waiting + came).saturating_sub(done);
                longest = longest.max(waiting);
            }
            let wait_ms = longest * 10 / done.max(1);
            assert!(wait_ms <= 500, "{cores} cores, {cost_us} us: {wait_ms} ms");
            assert!(window <= LONGEST, "{window:?}");
        }
    }
}
