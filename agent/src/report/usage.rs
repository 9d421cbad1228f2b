//! When the server is told what is used of the budget. Pure: levels and the time in, what to tell out.
//!
//! A bound that comes near, is spent or is free again is told once. Mostly no session stands by then, and none begins before
//! it is free: so how near it came is kept until a server hears of it. Without such news it is told once a day at most, to
//! a session that has begun since, whose server may know nothing, or when the month's bytes have moved by a twentieth of
//! their bound: a quiet month is worth no packets.

use std::time::{Duration, Instant};

use moorline_protocol::{Usage, UsageBytes, Used};

use crate::budget::{Bound, Budget, Level, Purpose};

/// The least between two that are told without news of a bound.
const LEAST: Duration = Duration::from_secs(24 * 3600);

/// What a month without a bound is measured by: the default bound.
const USUAL: u64 = 10_000_000;

/// See the module.
#[derive(Debug)]
pub struct UsageReporter {
    /// The nearest that each bound has come since it was told.
    peaks: [Level; 3],
    /// A bound is not where it was told to be.
    news: bool,
    /// A session has begun since it was told.
    greeted: bool,
    /// When it was told, and how many of the month's bytes were used then.
    told: Option<(Instant, u64)>,
}

impl UsageReporter {
    /// Goes on where a process before has left off: whether that found a server to tell, nobody knows.
    #[must_use]
    pub fn new(budget: &Budget) -> Self {
        let peaks = Bound::ALL.map(|bound| budget.told(bound));
        Self { peaks, news: false, greeted: false, told: None }
    }

    /// A bound has come to another level.
    pub fn handle_level(&mut self, bound: Bound, level: Level) {
        let peak = &mut self.peaks[bound as usize];
        *peak = level.max(*peak);
        self.news = true;
    }

    /// A session has begun.
    pub const fn handle_session(&mut self) {
        self.greeted = true;
    }

    /// What the server is to be told with whatever is said next; until [`Self::handle_told`].
    #[must_use]
    pub fn poll_usage(&self, budget: &Budget, now: Instant) -> Option<Usage> {
        self.is_due(budget, now).then(|| self.usage(budget))
    }

    /// It was told.
    pub fn handle_told(&mut self, budget: &Budget, now: Instant) {
        let peaks = Bound::ALL.map(|bound| budget.level(bound));
        *self = Self { peaks, news: false, greeted: false, told: Some((now, budget.usage(Bound::Month).0)) };
    }

    fn is_due(&self, budget: &Budget, now: Instant) -> bool {
        let Some((at, told)) = self.told else { return true };
        let (used, limit, _) = budget.usage(Bound::Month);
        let moved = || used.abs_diff(told) >= limit.unwrap_or(USUAL) / 20;
        self.news || now.saturating_duration_since(at) >= LEAST && (self.greeted || moved())
    }

    fn usage(&self, budget: &Budget) -> Usage {
        let bytes = |purpose| fitting(budget.traffic().of(purpose).sum());
        let [hour, day, month] = Bound::ALL.map(|bound| self.used(budget, bound));
        Usage {
            bytes: UsageBytes {
                full: bytes(Purpose::Full),
                resumed: bytes(Purpose::Resumed),
                heartbeats: bytes(Purpose::Heartbeat),
                reports: bytes(Purpose::Status),
                time: bytes(Purpose::Time),
                other: bytes(Purpose::Other),
                headers: fitting(budget.traffic().sum().headers),
            },
            hour,
            day,
            month,
        }
    }

    fn used(&self, budget: &Budget, bound: Bound) -> Used {
        let (amount, limit, left) = budget.usage(bound);
        let level = budget.level(bound);
        let peak = level.max(self.peaks[bound as usize]);
        Used { amount, limit, level: level as u8, peak: peak as u8, left_s: fitting(left.as_secs()) }
    }
}

fn fitting(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use moorline_protocol::usage_level::{FREE, NEAR, SPENT};

    use super::*;
    use crate::budget::{Bytes, Event, Limits, Snapshot, Spent, Tally};

    const MINUTE: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    const LIMITS: Limits = Limits {
        attempts_per_hour: Some(10),
        attempts_per_day: None,
        bytes_per_month: Some(10_000_000),
        spent: Spent::Trickle,
    };

    /// A budget and who tells of it, in time that the test makes pass.
    struct Teller {
        budget: Budget,
        reporter: UsageReporter,
        now: Instant,
    }

    impl Teller {
        fn new() -> Self {
            Self::after(&Snapshot::default())
        }

        fn after(kept: &Snapshot) -> Self {
            let budget = Budget::new(LIMITS, kept);
            let reporter = UsageReporter::new(&budget);
            let mut teller = Self { budget, reporter, now: crate::clock::now().instant };
            teller.turn();
            teller
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
            self.turn();
        }

        fn attempt(&mut self, times: u32) {
            for _ in 0..times {
                self.budget.count_attempt(self.now);
                self.turn();
            }
        }

        fn spend(&mut self, up: u64) {
            let tally = Tally::default();
            tally.add(Purpose::Heartbeat, Bytes { up, ..Bytes::default() });
            self.budget.count_bytes(&tally.take(), self.now);
            self.turn();
        }

        fn turn(&mut self) {
            while let Some(event) = self.budget.poll_event(self.now) {
                if let Event::Reached(bound, level) = event {
                    self.reporter.handle_level(bound, level);
                }
            }
        }

        /// What is due is told.
        fn tell(&mut self) -> Option<Usage> {
            let usage = self.reporter.poll_usage(&self.budget, self.now)?;
            self.reporter.handle_told(&self.budget, self.now);
            Some(usage)
        }
    }

    fn levels(used: &Used) -> (u8, u8) {
        (used.level, used.peak)
    }

    #[test]
    fn bound_is_told_once_when_it_is_near_spent_and_free_again() {
        let mut teller = Teller::new();
        let first = teller.tell().unwrap();
        assert_eq!(first.hour, Used { limit: Some(10), left_s: 3600, ..Used::default() });
        assert_eq!(first.day, Used { left_s: 24 * 3600, ..Used::default() });
        teller.attempt(7);
        assert_eq!(teller.tell(), None);
        teller.attempt(1);
        assert_eq!(teller.tell().map(|usage| levels(&usage.hour)), Some((NEAR, NEAR)));
        assert_eq!(teller.tell(), None);
        teller.attempt(2);
        let spent = teller.tell().unwrap().hour;
        assert_eq!((levels(&spent), spent.amount), ((SPENT, SPENT), 10));
        assert_eq!(teller.tell(), None);
        teller.wait(60 * MINUTE);
        let free = teller.tell().unwrap().hour;
        assert_eq!((levels(&free), free.amount), ((FREE, SPENT), 0));
        assert_eq!(teller.tell(), None);
    }

    #[test]
    fn what_was_spent_while_no_session_stood_is_told_when_one_does() {
        let mut teller = Teller::new();
        teller.tell().unwrap();
        teller.attempt(10);
        teller.wait(60 * MINUTE);
        assert_eq!(teller.tell().map(|usage| levels(&usage.hour)), Some((FREE, SPENT)));
        assert_eq!(teller.tell(), None);
    }

    #[test]
    fn process_that_begins_anew_tells_what_the_one_before_may_not_have_told() {
        let mut teller = Teller::new();
        teller.attempt(10);
        let mut next = Teller::after(&teller.budget.snapshot());
        next.wait(60 * MINUTE);
        assert_eq!(next.tell().map(|usage| levels(&usage.hour)), Some((FREE, SPENT)));
        let mut third = Teller::after(&next.budget.snapshot());
        assert_eq!(third.tell().map(|usage| levels(&usage.hour)), Some((FREE, FREE)));
    }

    #[test]
    fn quiet_month_of_one_session_is_told_once_and_a_busy_one_daily() {
        for (bytes, reports) in [(180, 1..=1), (7000, 15..=30)] {
            let mut teller = Teller::new();
            teller.reporter.handle_session();
            let mut told = 0;
            for _ in 0..30 * 24 * 2 {
                teller.wait(30 * MINUTE);
                teller.spend(bytes);
                told += u32::from(teller.tell().is_some());
            }
            assert!(reports.contains(&told), "{told} for {bytes}");
        }
    }

    #[test]
    fn sessions_that_come_and_go_bring_one_a_day() {
        let mut teller = Teller::new();
        let mut told = 0;
        for _ in 0..7 * 24 * 6 {
            teller.reporter.handle_session();
            told += u32::from(teller.tell().is_some());
            teller.wait(10 * MINUTE);
        }
        assert_eq!(told, 7);
    }

    #[test]
    fn bytes_are_told_by_what_they_were_for_as_far_as_they_fit() {
        let mut teller = Teller::new();
        teller.spend(1234);
        let tally = Tally::default();
        tally.add(Purpose::Full, Bytes { up: 1 << 40, down: 1, headers: 52 });
        teller.budget.count_bytes(&tally.take(), teller.now);
        let usage = teller.tell().unwrap();
        let bytes = UsageBytes { full: u32::MAX, heartbeats: 1234, headers: 52, ..UsageBytes::default() };
        assert_eq!(usage.bytes, bytes);
        assert_eq!((usage.month.amount, levels(&usage.month)), ((1 << 40) + 53 + 1234, (SPENT, SPENT)));
    }

    #[test]
    fn month_that_is_over_is_told_within_a_day() {
        let mut teller = Teller::new();
        teller.spend(7_000_000);
        teller.tell().unwrap();
        teller.wait(30 * DAY);
        assert_eq!(teller.tell().map(|usage| usage.month.amount), Some(0));
    }
}
