//! The one place that reads clocks. What decides is given a [`Now`].

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines and round trips: never jumps.
    pub instant: Instant,
    /// For certificates and time requests: UTC milliseconds since 1970, as right as the server's clock is.
    pub utc_ms: i64,
}

/// The processor time that this thread has taken so far.
#[must_use]
pub fn processor() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// The processor time that all threads have taken so far.
#[must_use]
pub fn process() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Reads both clocks.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the server's one reading of the clocks")]
pub fn now() -> Now {
    let utc_ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    };
    Now { instant: Instant::now(), utc_ms }
}
