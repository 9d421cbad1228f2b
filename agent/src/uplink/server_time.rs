//! The server's time against the device's, in words.

use std::fmt;
use std::time::Duration;

use moorline_config::HumanDuration;

use crate::clock::Utc;

/// What a session learnt of the server's clock.
pub(super) struct ServerTime {
    /// The device's clock.
    pub(super) utc_ms: i64,
    /// How far the server's is ahead of it.
    pub(super) offset_ms: i64,
    /// What the question took on its way; `None` from a classic server.
    pub(super) round_trip: Option<Duration>,
}

impl fmt::Display for ServerTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.round_trip {
            Some(round_trip) => self.native(round_trip, f),
            None => self.classic(f),
        }
    }
}

impl ServerTime {
    fn native(&self, round_trip: Duration, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = Utc(self.utc_ms.saturating_add(self.offset_ms));
        let offset = Duration::from_millis(self.offset_ms.unsigned_abs());
        write!(f, "the server's time is {server}, ")?;
        // When in the round trip the server looked at its clock is not known, so less than half of it tells nothing.
        if offset <= round_trip / 2 {
            f.write_str("as by this clock")?;
        } else {
            write!(f, "{} {} this clock", HumanDuration(offset), direction(self.offset_ms))?;
        }
        write!(f, "; round trip {}", HumanDuration(round_trip))
    }

    /// A classic server tells its local time, cut to seconds, without saying which zone that is.
    fn classic(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.offset_ms.saturating_add(999).div_euclid(1000);
        let offset = Duration::from_secs(seconds.unsigned_abs());
        f.write_str("the server's local time is ")?;
        if offset <= CLASSIC_DOUBT {
            return f.write_str("UTC by this clock");
        }
        write!(f, "{} {} UTC by this clock", HumanDuration(offset), direction(seconds))
    }
}

const fn direction(offset: i64) -> &'static str {
    if offset < 0 { "behind" } else { "ahead of" }
}

/// What a cut second and the way of the answer make of two clocks that agree.
const CLASSIC_DOUBT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn told(offset_ms: i64, round_trip_ms: Option<u64>) -> String {
        let round_trip = round_trip_ms.map(Duration::from_millis);
        ServerTime { utc_ms: 1_795_533_767_000, offset_ms, round_trip }.to_string()
    }

    #[test]
    fn offset_has_a_direction_and_no_sign() {
        let cases = [
            (-9, "2026-11-24T15:22:46Z, 9 ms behind this clock; round trip 4 ms"),
            (9, "2026-11-24T15:22:47Z, 9 ms ahead of this clock; round trip 4 ms"),
            (-3_600_000, "2026-11-24T14:22:47Z, 1h behind this clock; round trip 4 ms"),
        ];
        for (offset_ms, words) in cases {
            assert_eq!(told(offset_ms, Some(4)), format!("the server's time is {words}"));
        }
    }

    #[test]
    fn offset_within_the_doubt_is_none() {
        for offset_ms in [-450, -1, 0, 1, 450] {
            let words = told(offset_ms, Some(900));
            assert!(words.ends_with(", as by this clock; round trip 900 ms"), "{words}");
        }
    }

    #[test]
    fn classic_offset_is_a_zones() {
        let cases = [
            (7_199_400, "2h ahead of UTC by this clock"),
            (-18_000_600, "5h behind UTC by this clock"),
            (-700, "UTC by this clock"),
            (i64::MIN, "106751991167d 7h behind UTC by this clock"),
        ];
        for (offset_ms, words) in cases {
            assert_eq!(told(offset_ms, None), format!("the server's local time is {words}"));
        }
    }
}
