//! When the server is told how the modem stands. Pure: conditions and the time in, what to tell out. What is used of the
//! budget has its own: `report/usage.rs`.
//!
//! Only what has changed beyond what a signal does by itself is told, at most four times an hour, which is all that carriers
//! want of anything that happens by itself and leaves a day on NB-IoT within its 120 messages; and once a day all the same,
//! since the server keeps it in memory. A report waits for whatever wakes the loop next: it is worth no waking of its own.

mod usage;

use std::time::{Duration, Instant};

use crate::modem::condition::Condition;
pub use usage::UsageReporter;

/// The least between two reports.
const LEAST: Duration = Duration::from_secs(15 * 60);

/// The most, while the device is online.
const MOST: Duration = Duration::from_secs(24 * 3600);

/// See the module.
#[derive(Debug, Default)]
pub struct Reporter {
    seen: Option<Condition>,
    told: Option<(Condition, Instant)>,
}

impl Reporter {
    /// The modem was read. `true`: it has come to a network since it was read before, or to another one.
    pub fn handle_condition(&mut self, condition: Condition) -> bool {
        let arrived = self.seen.as_ref().is_some_and(|before| {
            condition.is_registered() == Some(true)
                && (before.is_registered() != Some(true) || condition.is_elsewhere_than(before))
        });
        self.seen = Some(condition);
        arrived
    }

    /// What is known of the modem, in words.
    #[must_use]
    pub fn modem(&self) -> String {
        self.seen.as_ref().map_or_else(|| "not read".to_owned(), Condition::to_string)
    }

    /// What the server is to be told now, once. Call it only while there is a server to tell.
    pub fn poll_report(&mut self, now: Instant) -> Option<Condition> {
        let seen = self.seen.as_ref()?;
        let due = self.told.as_ref().is_none_or(|(told, at)| {
            let since = now.saturating_duration_since(*at);
            since >= MOST || since >= LEAST && seen.is_news_after(told)
        });
        due.then(|| {
            self.told = Some((seen.clone(), now));
            seen.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn signal(dbm: i16) -> Condition {
        Condition { signal_dbm: Some(dbm), ..Condition::default() }
    }

    #[test]
    fn signal_that_wavers_costs_one_report_a_day() {
        let begun = crate::clock::now().instant;
        let mut reporter = Reporter::default();
        assert_eq!(reporter.poll_report(begun), None);
        let mut reports = 0;
        for minute in 0..24 * 60 * 7 {
            reporter.handle_condition(signal(if minute % 2 == 0 { -80 } else { -85 }));
            reports += u32::from(reporter.poll_report(begun + MINUTE * minute).is_some());
        }
        assert_eq!(reports, 7);
    }

    #[test]
    fn change_is_told_soon_and_a_storm_of_them_seldom() {
        let begun = crate::clock::now().instant;
        let mut reporter = Reporter::default();
        let mut reports = 0;
        for minute in 0..24 * 60 {
            reporter.handle_condition(signal(if minute % 2 == 0 { -60 } else { -90 }));
            reports += u32::from(reporter.poll_report(begun + MINUTE * minute).is_some());
        }
        assert!((90..=96).contains(&reports), "{reports}");
        reporter.handle_condition(signal(-110));
        assert_eq!(reporter.poll_report(begun + MINUTE * 1500), Some(signal(-110)));
    }
}
