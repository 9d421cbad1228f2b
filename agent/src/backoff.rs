//! How long to wait before the next try, from what ended the last one. Pure: causes and chance in, a delay out.
//!
//! Exponential with full jitter inside the cap, so that the delay shown to a person never exceeds `max` and a fleet that
//! lost its server together does not come back together (GSMA TS.34 4.0_REQ_003 and 4.0_REQ_011).

use std::time::Duration;

/// What `[reconnect]` of the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The cap of the first delay.
    pub first: Duration,
    /// The cap of every delay.
    pub max: Duration,
    /// A session that was healthy for this long makes the next delay a first one again.
    pub stable_after: Duration,
}

/// What ended the last try or session, as far as waiting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The way to the server: a name not found, refused, unreachable, timed out, reset, silent.
    Network,
    /// The server ended a session that stood, or was replaced, or broke the protocol.
    Ended,
    /// A retry won't mend it by itself: a certificate refused by either side, an identity rejected.
    Refused,
}

/// Where a delay starts that a retry alone won't end. A person has to act, which takes more than this.
const REFUSED_FIRST: Duration = Duration::from_secs(60);

/// The next delay, over the life of the process: it outlives every session.
#[derive(Clone, Debug)]
pub struct Backoff {
    limits: Limits,
    attempt: u32,
    /// What the server that was lost wants its devices' return spread over; zero when it was not the server that was lost.
    window: Duration,
    chance: SplitMix64,
}

impl Backoff {
    /// `seed` comes from the operating system, never from a clock: devices that boot together must not wait alike.
    #[must_use]
    pub const fn new(limits: Limits, seed: u64) -> Self {
        Self { limits, attempt: 0, window: Duration::ZERO, chance: SplitMix64(seed) }
    }

    /// Takes new limits, as after a reload; what was counted stays.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The delay before the next try. `healthy_for` is how long the session stood that just ended, zero if none did;
    /// `retry_after` is the least the server asked for and is not capped by `max`, since the server knows why.
    pub fn next_delay(
        &mut self,
        cause: Cause,
        healthy_for: Duration,
        retry_after: Option<Duration>,
    ) -> Duration {
        self.forget(healthy_for);
        let cap = self.cap(cause);
        self.attempt = self.attempt.saturating_add(1);
        let jittered = match cause {
            Cause::Network if cap < self.window * 2 => self.window / 2 + self.chance.up_to(self.window),
            Cause::Network | Cause::Ended => self.chance.up_to(cap),
            // The first minute is a promise, so the jitter lies in the upper half.
            Cause::Refused => cap / 2 + self.chance.up_to(cap / 2),
        };
        match retry_after {
            // A spread on top keeps a whole fleet from coming back in the very second that the server named.
            Some(least) => least.saturating_add(jittered.min(least)),
            None => jittered,
        }
    }

    /// The delay after a session whose server was lost, and not the way to it: the whole fleet has lost it in the same
    /// second, so devices return evenly over the `window` that the server asked for.
    ///
    /// Those that find it dead stay spread: by exponential delays alone they would all be at their first, short ones
    /// when it comes back. From half to one and a half windows, no second sees more than 1.5 times the even rate.
    pub fn server_lost(&mut self, healthy_for: Duration, window: Duration) -> Duration {
        if window.is_zero() {
            return self.next_delay(Cause::Network, healthy_for, None);
        }
        self.forget(healthy_for);
        self.window = window;
        self.attempt = self.attempt.saturating_add(1);
        self.chance.up_to(window)
    }

    /// Whether the delays are those of a fleet that lost its server, of which no device may come before its turn.
    #[must_use]
    pub const fn is_spread(&self) -> bool {
        !self.window.is_zero()
    }

    /// What a session that stood makes void.
    fn forget(&mut self, healthy_for: Duration) {
        if !healthy_for.is_zero() {
            self.window = Duration::ZERO;
        }
        if healthy_for >= self.limits.stable_after {
            self.attempt = 0;
        }
    }

    /// The cap of this attempt: doubled each time, up to `max`.
    fn cap(&self, cause: Cause) -> Duration {
        let first = match cause {
            Cause::Network | Cause::Ended => self.limits.first,
            Cause::Refused => self.limits.first.max(REFUSED_FIRST * 2),
        };
        let max = self.limits.max.max(first);
        1_u32
            .checked_shl(self.attempt)
            .and_then(|factor| first.checked_mul(factor))
            .map_or(max, |d| d.min(max))
    }
}

/// Steele, Lea and Flood's SplitMix64: jitter needs a spread, not secrecy.
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Evenly from zero to `most`, whole milliseconds.
    fn up_to(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX - 1);
        Duration::from_millis(self.next() % (most + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        first: Duration::from_secs(1),
        max: Duration::from_secs(600),
        stable_after: Duration::from_secs(300),
    };

    fn delays(cause: Cause, seed: u64) -> impl Iterator<Item = Duration> {
        let mut backoff = Backoff::new(LIMITS, seed);
        (0..64).map(move |_| backoff.next_delay(cause, Duration::ZERO, None))
    }

    #[test]
    fn delays_stay_under_a_doubling_cap() {
        for seed in 0..200 {
            let mut cap = LIMITS.first;
            for delay in delays(Cause::Network, seed) {
                assert!(delay <= cap, "{delay:?} over {cap:?}");
                cap = (cap * 2).min(LIMITS.max);
            }
        }
    }

    #[test]
    fn jitter_is_full() {
        let tenth: Vec<_> = (0..500).filter_map(|seed| delays(Cause::Network, seed).nth(12)).collect();
        assert!(tenth.iter().any(|d| *d < LIMITS.max / 10));
        assert!(tenth.iter().any(|d| *d > LIMITS.max / 10 * 9));
    }

    #[test]
    fn refusals_start_at_a_minute() {
        for seed in 0..200 {
            let first = delays(Cause::Refused, seed).next().unwrap();
            assert!((REFUSED_FIRST..=REFUSED_FIRST * 2).contains(&first), "{first:?}");
        }
    }

    #[test]
    fn short_sessions_do_not_reset() {
        let mut backoff = Backoff::new(LIMITS, 7);
        for _ in 0..20 {
            backoff.next_delay(Cause::Ended, Duration::from_secs(299), None);
        }
        let longest = (0..50).map(|_| backoff.next_delay(Cause::Ended, Duration::from_secs(299), None)).max();
        assert!(longest.unwrap() > Duration::from_secs(300));
        assert!(backoff.next_delay(Cause::Ended, LIMITS.stable_after, None) <= LIMITS.first);
    }

    #[test]
    fn return_to_a_lost_server_is_spread_until_a_session_stands() {
        let window = Duration::from_secs(200);
        for seed in 0..200 {
            let mut backoff = Backoff::new(LIMITS, seed);
            assert!(backoff.server_lost(LIMITS.stable_after, window) <= window);
            for _ in 0..8 {
                let delay = backoff.next_delay(Cause::Network, Duration::ZERO, None);
                assert!((window / 2..=window * 3 / 2).contains(&delay), "{delay:?}");
            }
            // The delays have grown beyond the window, and go on to grow.
            assert!(backoff.next_delay(Cause::Network, Duration::ZERO, None) <= LIMITS.max);
            assert!(backoff.next_delay(Cause::Network, LIMITS.stable_after, None) <= LIMITS.first);
        }
    }

    #[test]
    fn retry_after_is_the_least() {
        let mut backoff = Backoff::new(LIMITS, 7);
        let hour = Duration::from_secs(3600);
        for _ in 0..20 {
            assert!(backoff.next_delay(Cause::Ended, Duration::ZERO, Some(hour)) >= hour);
        }
    }
}
