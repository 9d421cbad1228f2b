//! Times as the API shows them: RFC 3339, UTC, to the millisecond.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// UTC milliseconds since 1970, shown as `2026-11-24T16:02:11.042Z`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) i64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A certificate may be good until the end of the year 9999, which is a day more than can be shown.
        let latest = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        let shown = Timestamp::from_millisecond(self.0).unwrap_or(latest);
        write!(f, "{shown:.3}")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ms: i64) -> String {
        serde_json::to_string(&Time(ms)).unwrap()
    }

    #[test]
    fn times_have_three_places() {
        assert_eq!(shown(0), "\"1970-01-01T00:00:00.000Z\"");
        assert_eq!(shown(1_795_536_131_042), "\"2026-11-24T16:02:11.042Z\"");
    }

    #[test]
    fn times_beyond_the_calendar_are_its_end() {
        assert_eq!(shown(253_402_300_799_000), "\"9999-12-30T22:00:00.999Z\"");
        assert_eq!(shown(i64::MIN), "\"-009999-01-02T01:59:59.000Z\"");
    }
}
