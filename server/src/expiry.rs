//! How near a certificate's end is, in the steps that matter: pure, and told the time.

use jiff::Timestamp;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const MONTH_MS: i64 = 30 * DAY_MS;
const WEEK_MS: i64 = 7 * DAY_MS;

/// What is left of a certificate's time; the later in the list, the more urgent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remaining {
    /// More than a month.
    #[default]
    Later,
    /// At most 30 days.
    Month,
    /// At most 7 days.
    Week,
    /// Nothing.
    Nothing,
}

impl Remaining {
    /// All steps.
    pub const ALL: [Self; 4] = [Self::Later, Self::Month, Self::Week, Self::Nothing];

    /// At `now_ms` of what ends at `end_ms`, both UTC milliseconds since 1970.
    #[must_use]
    pub const fn at(now_ms: i64, end_ms: i64) -> Self {
        let left = end_ms.saturating_sub(now_ms);
        if left < 0 {
            Self::Nothing
        } else if left <= WEEK_MS {
            Self::Week
        } else if left <= MONTH_MS {
            Self::Month
        } else {
            Self::Later
        }
    }

    /// The name in metrics, in events and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Later => "later",
            Self::Month => "30d",
            Self::Week => "7d",
            Self::Nothing => "expired",
        }
    }

    /// The step of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == name)
    }
}

/// Those that end so are about to expire.
#[must_use]
pub const fn soon(now_ms: i64) -> (i64, i64) {
    (now_ms, now_ms.saturating_add(MONTH_MS))
}

/// Those that ended so have expired.
#[must_use]
pub const fn past(now_ms: i64) -> (i64, i64) {
    (i64::MIN, now_ms.saturating_sub(1))
}

/// When that is, and how many days are left, for people.
pub(crate) fn ends_on(now_ms: i64, end_ms: i64) -> String {
    let days = end_ms.saturating_sub(now_ms) / DAY_MS;
    let left = match days {
        0 => "in less than a day".to_owned(),
        1 => "in a day".to_owned(),
        _ => format!("in {days} days"),
    };
    format!("ends on {}, {left}", day(end_ms))
}

/// A moment, for people.
pub(crate) fn day(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(
        |_| "a date out of range".to_owned(),
        |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_begin_and_end_to_the_moment() {
        let now = 1_764_000_000_000;
        for (left, step) in [
            (-1, Remaining::Nothing),
            (0, Remaining::Week),
            (WEEK_MS, Remaining::Week),
            (WEEK_MS + 1, Remaining::Month),
            (MONTH_MS, Remaining::Month),
            (MONTH_MS + 1, Remaining::Later),
            (i64::MAX, Remaining::Later),
        ] {
            assert_eq!(Remaining::at(now, now.saturating_add(left)), step, "{left}");
        }
        assert!(Remaining::ALL.is_sorted());
    }

    #[test]
    fn steps_are_found_by_their_names() {
        for step in Remaining::ALL {
            assert_eq!(Remaining::from_name(step.as_str()), Some(step));
        }
        assert_eq!(Remaining::from_name("soon"), None);
    }

    #[test]
    fn end_is_told_in_days() {
        let now = 1_764_000_000_000;
        assert_eq!(ends_on(now, now + WEEK_MS), "ends on 2025-12-01 16:00:00 UTC, in 7 days");
        assert!(ends_on(now, now + DAY_MS * 3 / 2).ends_with("in a day"));
        assert!(ends_on(now, now + 1).ends_with("in less than a day"));
    }
}
