//! From when to when something that was signed holds. The caller brings the time.

use std::fmt;

use time::{Duration, OffsetDateTime};

/// From when to when a certificate or a revocation list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: OffsetDateTime,
    /// The last moment; a revocation list's next update.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From a day before `now`, for devices whose clock is behind, to `days` after it.
    ///
    /// The last moment is cut at the end of the year 9999, beyond which X.509 has no dates.
    #[must_use]
    pub fn days(now: OffsetDateTime, days: u32) -> Self {
        Self {
            not_before: now.saturating_sub(CLOCK_SLACK),
            not_after: now.saturating_add(Duration::days(i64::from(days))),
        }
    }

    /// The same, but not beyond `end`: nothing that a CA signed is of use after the CA itself.
    #[must_use]
    pub fn until_at_most(self, end: OffsetDateTime) -> Self {
        Self { not_after: self.not_after.min(end), ..self }
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.not_before.date(), self.not_after.date())
    }
}

/// A wrong time zone taken for UTC is off by 14 hours at most.
const CLOCK_SLACK: Duration = Duration::DAY;
