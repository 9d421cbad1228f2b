//! One bound and its period: what is used, what is left, and how long the rest has to last.

use std::time::Duration;

use moorline_protocol::usage_level;

use super::snapshot::Kept;

/// How near a bound is. The numbers are the wire's and the file's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Less than four fifths are used.
    #[default]
    Free = usage_level::FREE,
    /// The rest has to last until the period is over.
    Near = usage_level::NEAR,
    /// Nothing is left.
    Spent = usage_level::SPENT,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Period {
    length: Duration,
    /// `None` is no bound: then it only counts.
    pub(super) limit: Option<u64>,
    elapsed: Duration,
    used: u64,
    told: Level,
}

impl Period {
    pub(super) fn new(length: Duration, kept: Kept) -> Self {
        let elapsed = Duration::from_secs(kept.elapsed).min(length);
        let told = match kept.told {
            0 => Level::Free,
            1 => Level::Near,
            _ => Level::Spent,
        };
        Self { length, limit: None, elapsed, used: kept.used, told }
    }

    pub(super) const fn kept(&self) -> Kept {
        Kept { elapsed: self.elapsed.as_secs(), used: self.used, told: self.told as u64 }
    }

    /// Lets time pass; `true` when a new period began.
    pub(super) fn pass(&mut self, time: Duration) -> bool {
        self.elapsed = self.elapsed.saturating_add(time);
        if self.elapsed < self.length {
            return false;
        }
        self.elapsed = Duration::from_secs(self.elapsed.as_secs() % self.length.as_secs());
        self.used = 0;
        true
    }

    pub(super) const fn spend(&mut self, amount: u64) {
        self.used = self.used.saturating_add(amount);
    }

    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    /// How long the period lasts still.
    pub(super) fn left(&self) -> Duration {
        self.length.saturating_sub(self.elapsed)
    }

    pub(super) fn level(&self) -> Level {
        match self.limit {
            Some(limit) if self.used >= limit => Level::Spent,
            Some(limit) if self.used >= limit.saturating_mul(4) / 5 => Level::Near,
            _ => Level::Free,
        }
    }

    /// How long one use of `cost` has to last, so that the rest of them are spread evenly from the last use, which was
    /// `since` ago, to the end of the period.
    pub(super) fn share(&self, cost: u64, since: Duration) -> Duration {
        let rest = self.limit.map_or(0, |limit| limit.saturating_sub(self.used)) / cost.max(1);
        let parts = u32::try_from(rest).unwrap_or(u32::MAX).saturating_add(1);
        (self.left() + since) / parts
    }

    pub(super) const fn told(&self) -> Level {
        self.told
    }

    /// The level, when it is another than the one told last.
    pub(super) fn news(&mut self) -> Option<Level> {
        let level = self.level();
        (level != self.told).then(|| {
            self.told = level;
            level
        })
    }
}
