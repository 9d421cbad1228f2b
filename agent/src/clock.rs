//! The one place that reads and sets clocks. What decides is given a [`Now`]; by which time certificates are judged is
//! `trusted_time.rs`'s matter.
//!
//! Everything that waits runs on the boot clock (`CLOCK_BOOTTIME`): nobody can set it, and unlike the one that
//! [`Instant::now`] reads it goes on while the device is suspended. A device that slept longer than its heartbeat so
//! knows at once that it is late.

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::time::{ClockId, clock_gettime, clock_settime};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines and round trips: the boot clock, which never jumps.
    pub instant: Instant,
    /// For people and time requests: UTC milliseconds since 1970, as wrong as the device's clock is.
    pub utc_ms: i64,
}

/// Reads both clocks.
#[must_use]
pub fn now() -> Now {
    let (base, at_base) = *BASE.get_or_init(base);
    // The base is the earliest reading of the boot clock in this process.
    let instant = base + since_boot().saturating_sub(at_base);
    let utc = clock_gettime(ClockId::Realtime);
    Now { instant, utc_ms: utc.tv_sec.saturating_mul(1000).saturating_add(utc.tv_nsec / 1_000_000) }
}

/// The instant that stands for a reading of the boot clock: an [`Instant`] cannot be made out of nothing.
static BASE: OnceLock<(Instant, Duration)> = OnceLock::new();

#[expect(clippy::disallowed_methods, reason = "the agent's one reading of this clock, to begin from")]
fn base() -> (Instant, Duration) {
    (Instant::now(), since_boot())
}

fn since_boot() -> Duration {
    duration(clock_gettime(ClockId::Boottime))
}

/// Sets the system clock, milliseconds since 1970.
///
/// # Errors
/// This process lacks `CAP_SYS_TIME`, or the kernel finds the time impossible.
pub fn set(utc_ms: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: utc_ms.div_euclid(1000), tv_nsec: utc_ms.rem_euclid(1000) * 1_000_000 };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

/// `CLOCK_MONOTONIC` in microseconds, which systemd wants with `RELOADING=1`.
#[must_use]
pub fn monotonic_micros() -> u64 {
    u64::try_from(duration(clock_gettime(ClockId::Monotonic)).as_micros()).unwrap_or(u64::MAX)
}

/// Whole seconds since the kernel started, those that it was suspended included.
#[must_use]
pub fn boot_seconds() -> u64 {
    since_boot().as_secs()
}

/// How long a poll waits from `now` to `deadline`. Rounded up, so that a loop does not turn idly until a deadline that is
/// less than a millisecond away. Its kernel timer stands still while the device is suspended: `clock_watch.rs` ends the
/// wait then.
#[must_use]
pub fn wait_until(deadline: Instant, now: Instant) -> Timespec {
    let wait = deadline.saturating_duration_since(now) + Duration::from_millis(1);
    Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    }
}

fn duration(time: Timespec) -> Duration {
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

/// What rustls measures its tickets' age with: the boot clock, so that setting the system clock neither ends a ticket nor
/// keeps one. It is no date, and the certificates' verifier does not take it for one.
#[derive(Debug)]
pub struct TicketClock;

impl TimeProvider for TicketClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(since_boot()))
    }
}

/// UTC milliseconds since 1970, shown as in RFC 3339 with whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(pub i64);

impl Utc {
    /// From seconds since 1970.
    #[must_use]
    pub fn of_seconds(seconds: u64) -> Self {
        Self(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))
    }
}

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

/// The day, counted from 1970-01-01, of a Gregorian date: [`date`] turned round.
#[must_use]
pub const fn day(year: i64, month: i64, day: i64) -> i64 {
    // As there, years begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
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
    fn days_and_dates_are_each_others_reverse() {
        for count in (-200_000..3_000_000).step_by(37) {
            let (year, month, of_month) = date(count);
            assert_eq!(day(year, month, of_month), count);
        }
    }

    #[test]
    fn instants_go_on_with_the_boot_clock() {
        // Each pair of readings is within a pair of the other kind, whatever comes between them.
        let outer = since_boot();
        let first = now().instant;
        let inner = since_boot();
        while since_boot() < inner + Duration::from_millis(2) {}
        let inner = since_boot() - inner;
        let passed = now().instant - first;
        let outer = since_boot() - outer;
        assert!((inner..=outer).contains(&passed), "{inner:?} {passed:?} {outer:?}");
    }
}
