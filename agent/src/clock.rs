//! The one place that reads clocks. What decides is given a [`Now`]; certificates are checked against [`FlooredClock`].

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::Timespec;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines and round trips: never jumps.
    pub instant: Instant,
    /// For certificates and time requests: UTC milliseconds since 1970, as wrong as the device's clock is.
    pub utc_ms: i64,
}

/// Reads both clocks.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the agent's one reading of the clocks")]
pub fn now() -> Now {
    let utc_ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    };
    Now { instant: Instant::now(), utc_ms }
}

/// `CLOCK_MONOTONIC` in microseconds, which systemd wants with `RELOADING=1`.
#[must_use]
pub fn monotonic_micros() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
}

/// Whole seconds since the kernel started, those that it was suspended included.
#[must_use]
pub fn boot_seconds() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0)
}

/// How long a poll waits from `now` to `deadline`. Rounded up, so that a loop does not turn idly until a deadline that is
/// less than a millisecond away.
#[must_use]
pub fn wait_until(deadline: Instant, now: Instant) -> Timespec {
    let wait = deadline.saturating_duration_since(now) + Duration::from_millis(1);
    Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    }
}

/// The clock that certificates are checked against: the device's, but never earlier than the floor.
///
/// A device without a battery-backed clock boots in 1970, when no certificate is valid yet. It need not know the time
/// to get in, only a time at which its server's certificate had begun: see `floor.rs`.
#[derive(Debug)]
pub struct FlooredClock {
    /// Seconds since 1970. Behind a lock, as not every 32-bit target has 64-bit atomics.
    floor: Mutex<u64>,
}

impl FlooredClock {
    /// A clock that never shows less than `floor`, seconds since 1970.
    #[must_use]
    pub const fn new(floor: u64) -> Self {
        Self { floor: Mutex::new(floor) }
    }

    /// The floor, seconds since 1970.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor.lock().map_or_else(|poisoned| *poisoned.into_inner(), |floor| *floor)
    }

    /// Raises the floor; it is never lowered.
    pub fn raise(&self, to: u64) {
        let mut floor = self.floor.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *floor = to.max(*floor);
    }
}

impl TimeProvider for FlooredClock {
    fn current_time(&self) -> Option<UnixTime> {
        let clock = u64::try_from(now().utc_ms / 1000).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(clock.max(self.floor()))))
    }
}

/// UTC milliseconds since 1970, shown as in RFC 3339 with whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(pub i64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(1000);
        let (year, month, day) = date(seconds.div_euclid(86_400));
        let of_day = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// The Gregorian date of a day counted from 1970-01-01, by Howard Hinnant's `civil_from_days`: years that begin in March
/// put the leap day last.
const fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_shown_in_utc() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_000, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_795_533_767_123, "2026-11-24T15:22:47Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ];
        for (ms, text) in cases {
            assert_eq!(Utc(ms).to_string(), text);
        }
    }

    #[test]
    fn clock_never_shows_less_than_its_floor() {
        let far = 40_000_000_000;
        let clock = FlooredClock::new(far);
        assert_eq!(clock.current_time().unwrap().as_secs(), far);
        clock.raise(far - 1);
        assert_eq!(clock.floor(), far);
        clock.raise(far + 1);
        assert_eq!(clock.current_time().unwrap().as_secs(), far + 1);
        assert!(FlooredClock::new(0).current_time().unwrap().as_secs() > 1_700_000_000);
    }
}
