//! What may be asked of the network: connection attempts per hour and per day, bytes per month (GSMA TS.34 4.0_REQ_012 and
//! 4.0_REQ_013, as 1NCE restates them). Pure: attempts, bytes and the time in; leave to connect, news and snapshots out.
//! Where a snapshot is kept, and what is said of it, is `ledger.rs`'s matter.
//!
//! Near a bound attempts are spread evenly over the rest of its period; past it there are none until the period is over,
//! but a trickle where only bytes are spent and the operator has not forbidden it: a device that nobody can reach is worse.
//!
//! A period ends when so much time has passed on the boot clock, and not at a date, so that no jump of the wall clock ends
//! one or draws it out. What passes while the device is off is told by an authenticated server: see
//! [`Budget::learn_time`]. What passes unseen makes a period longer, never shorter.

mod gauge;
mod period;
mod snapshot;
mod traffic;
mod writes;

use std::fmt;
use std::time::{Duration, Instant};

use moorline_config::Size;

pub use gauge::{Gauge, LOOKUP, unanswered};
pub use period::Level;
use period::Period;
use snapshot::Mark;
pub use snapshot::Snapshot;
pub use traffic::{Bytes, Purpose, Tally, Traffic};
use writes::Writes;

/// What `[budget]` of the configuration says; `None` is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections begun in an hour.
    pub attempts_per_hour: Option<u64>,
    /// TCP connections begun in a day.
    pub attempts_per_day: Option<u64>,
    /// Bytes in 30 days, both ways and with headers.
    pub bytes_per_month: Option<u64>,
    /// What still goes when the bytes are spent.
    pub spent: Spent,
}

/// For `check`.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = [(self.attempts_per_hour, "an hour"), (self.attempts_per_day, "a day")];
        for (limit, period) in attempts {
            match limit {
                Some(limit) => write!(f, "{limit} attempts {period}, ")?,
                None => write!(f, "any attempts {period}, ")?,
            }
        }
        match self.bytes_per_month {
            Some(limit) => write!(f, "{} in 30 days, then ", Size(limit))?,
            None => return f.write_str("any amount of data"),
        }
        f.write_str(match self.spent {
            Spent::Trickle => "a trickle",
            Spent::Stop => "nothing",
        })
    }
}

/// What still goes when the month's bytes are spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// A session that stands, with the longest silence, and a reconnect now and then: about a kilobyte an hour.
    Trickle,
    /// Nothing: the session ends, and the device cannot be reached until the month is over.
    Stop,
}

/// One of the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Attempts per hour.
    Hour,
    /// Attempts per day.
    Day,
    /// Bytes per month.
    Month,
}

impl Bound {
    /// In the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Month];
}

/// The key that sets it.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hour => "budget.attempts_per_hour",
            Self::Day => "budget.attempts_per_day",
            Self::Month => "budget.bytes_per_month",
        })
    }
}

/// Not yet: come back at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Not before this.
    pub until: Instant,
    /// Which bound asks for it.
    pub bound: Bound,
}

/// What a person should hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A bound came near, was spent, or is free again in a new period. Told once for each.
    Reached(Bound, Level),
    /// A month is over, and this is what it took.
    MonthEnded(Traffic),
}

/// See the module.
#[derive(Debug)]
pub struct Budget {
    spent: Spent,
    hour: Period,
    day: Period,
    month: Period,
    /// This month's bytes.
    traffic: Traffic,
    /// The last month's, until it is told.
    ended: Option<Traffic>,
    /// All the time that was ever counted.
    lived: Duration,
    /// How much that was at the last attempt: a restart near a bound waits its turn as well.
    attempted: Duration,
    /// How much that was when the modem was started anew last; zero when it never was.
    reset: Duration,
    mark: Mark,
    seen: Option<Instant>,
    writes: Writes,
}

impl Budget {
    /// Goes on where `kept` stood. Time begins with the first call that brings one.
    #[must_use]
    pub fn new(limits: Limits, kept: &Snapshot) -> Self {
        let mut budget = Self {
            spent: limits.spent,
            hour: Period::new(HOUR, kept.hour),
            day: Period::new(DAY, kept.day),
            month: Period::new(MONTH, kept.month),
            traffic: kept.traffic,
            ended: None,
            lived: Duration::from_secs(kept.lived),
            attempted: Duration::from_secs(kept.attempted),
            reset: Duration::from_secs(kept.reset),
            mark: kept.mark,
            seen: None,
            writes: Writes::default(),
        };
        budget.set_limits(limits);
        budget
    }

    /// Takes new limits, as after a reload; what was counted stays.
    pub fn set_limits(&mut self, limits: Limits) {
        self.spent = limits.spent;
        self.hour.limit = limits.attempts_per_hour;
        self.day.limit = limits.attempts_per_day;
        self.month.limit = limits.bytes_per_month;
    }

    /// Whether a round of attempts may begin.
    ///
    /// # Errors
    /// Not before that time.
    pub fn may_attempt(&mut self, now: Instant) -> Result<(), Wait> {
        self.pass(now);
        self.longest_wait(now, Self::wait)
    }

    /// Whether a round that has begun may go on to its next address: only a bound that is spent ends it, so that an address
    /// late in the list gets its turn near a bound, too.
    ///
    /// # Errors
    /// Not before that time.
    pub fn may_go_on(&mut self, now: Instant) -> Result<(), Wait> {
        self.pass(now);
        self.longest_wait(now, |budget, bound| match bound {
            Bound::Hour | Bound::Day if budget.level(bound) == Level::Spent => budget.period(bound).left(),
            _ => Duration::ZERO,
        })
    }

    /// An attempt is about to be made.
    pub fn count_attempt(&mut self, now: Instant) {
        self.pass(now);
        self.attempted = self.lived;
        self.hour.spend(1);
        self.day.spend(1);
        self.writes.count_attempt();
    }

    /// Whether the modem may be started anew now, which counts as done then. How often that helps is judged by
    /// `diagnosis.rs`, whose memory ends with the process; this one does not (GSMA TS.34 4.0_REQ_019).
    pub fn may_reset(&mut self, now: Instant) -> bool {
        self.pass(now);
        let since = self.lived.checked_sub(self.reset).filter(|_| !self.reset.is_zero());
        let allowed = since.is_none_or(|since| since >= RESET_EVERY);
        if allowed {
            // Zero is never.
            self.reset = self.lived.max(Duration::from_secs(1));
            self.writes.tell();
        }
        allowed
    }

    /// Bytes went up or came down.
    pub fn count_bytes(&mut self, bytes: &Traffic, now: Instant) {
        self.pass(now);
        let sum = bytes.sum().sum();
        self.traffic.add_all(bytes);
        self.month.spend(sum);
        self.writes.count_bytes(sum);
    }

    /// An authenticated server told its time, in seconds since 1970. What has passed there and was not counted here was
    /// spent switched off, suspended or between two processes: it counts for the periods. A server that is ahead of
    /// the others is believed once, for a month at most; one that goes back is not believed at all.
    pub fn learn_time(&mut self, server: u64, now: Instant) {
        self.pass(now);
        let lived = self.lived.as_secs();
        let expected = self.mark.server.saturating_add(lived.saturating_sub(self.mark.lived));
        if self.mark.server == 0 {
            self.mark = Mark { server, lived };
        } else if server > expected.saturating_add(DOUBT) {
            self.count_time(Duration::from_secs(server - expected).min(MONTH));
            self.mark = Mark { server, lived: self.lived.as_secs() };
        }
    }

    /// Time that has passed and that this process did not see.
    pub fn count_time(&mut self, time: Duration) {
        self.lived = self.lived.saturating_add(time);
        self.hour.pass(time);
        self.day.pass(time);
        if self.month.pass(time) {
            self.ended = Some(std::mem::take(&mut self.traffic));
        }
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        self.pass(now);
        if let Some(traffic) = self.ended.take() {
            return Some(Event::MonthEnded(traffic));
        }
        let (bound, level) =
            Bound::ALL.into_iter().find_map(|bound| Some((bound, self.period_mut(bound).news()?)))?;
        self.writes.tell();
        Some(Event::Reached(bound, level))
    }

    /// A snapshot that has to be kept now. It may say more than was used: what the process may use until the next one,
    /// so that an end without a farewell frees nothing.
    pub fn poll_snapshot(&mut self, now: Instant) -> Option<Snapshot> {
        self.pass(now);
        let ahead = self.writes.poll(now)?;
        let mut snapshot = self.snapshot();
        snapshot.hour.used += ahead.attempts;
        snapshot.day.used += ahead.attempts;
        snapshot.month.used += ahead.bytes;
        Some(snapshot)
    }

    /// When to call [`Self::poll_snapshot`] and [`Self::poll_event`], at the latest: the end of a period is waited for when
    /// something changes with it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let seen = self.seen?;
        let bound =
            [&self.hour, &self.day, &self.month].into_iter().filter(|period| period.level() > Level::Free);
        let end = bound.map(|period| seen + period.left());
        self.writes.poll_timeout().into_iter().chain(end).min()
    }

    /// Exactly what was used, to be kept at the end.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            hour: self.hour.kept(),
            day: self.day.kept(),
            month: self.month.kept(),
            lived: self.lived.as_secs(),
            attempted: self.attempted.as_secs(),
            reset: self.reset.as_secs(),
            mark: self.mark,
            traffic: self.traffic,
        }
    }

    /// How near a bound is.
    #[must_use]
    pub fn level(&self, bound: Bound) -> Level {
        self.period(bound).level()
    }

    /// How near a person was told last that a bound is.
    #[must_use]
    pub const fn told(&self, bound: Bound) -> Level {
        self.period(bound).told()
    }

    /// What is used of a bound, what it is, and how long its period lasts still.
    #[must_use]
    pub fn usage(&self, bound: Bound) -> (u64, Option<u64>, Duration) {
        let period = self.period(bound);
        (period.used(), period.limit, period.left())
    }

    /// Whether heartbeats should be as rare as is allowed.
    #[must_use]
    pub fn is_thrifty(&self) -> bool {
        self.level(Bound::Month) > Level::Free
    }

    /// Whether nothing may go any more, a session that stands included.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.spent == Spent::Stop && self.level(Bound::Month) == Level::Spent
    }

    /// This month's bytes.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn pass(&mut self, now: Instant) {
        let seen = self.seen.replace(now).unwrap_or(now);
        self.writes.begin(now);
        self.count_time(now.saturating_duration_since(seen));
    }

    fn longest_wait(&self, now: Instant, wait: impl Fn(&Self, Bound) -> Duration) -> Result<(), Wait> {
        let waits = Bound::ALL.map(|bound| (wait(self, bound), bound));
        match waits.into_iter().max_by_key(|&(wait, _)| wait) {
            Some((wait, bound)) if !wait.is_zero() => Err(Wait { until: now + wait, bound }),
            _ => Ok(()),
        }
    }

    fn wait(&self, bound: Bound) -> Duration {
        let since = self.lived.saturating_sub(self.attempted);
        let period = self.period(bound);
        let wait = match (period.level(), bound) {
            (Level::Free, _) => Duration::ZERO,
            (Level::Near, Bound::Month) => period.share(RECONNECT, since).saturating_sub(since),
            (Level::Near, _) => period.share(1, since).saturating_sub(since),
            (Level::Spent, _) => period.left(),
        };
        match (bound, self.spent) {
            // Where less is left than a trickle takes, it is the longest wait all the same.
            (Bound::Month, Spent::Trickle) => wait.min(TRICKLE.saturating_sub(since)),
            _ => wait,
        }
    }

    const fn period(&self, bound: Bound) -> &Period {
        match bound {
            Bound::Hour => &self.hour,
            Bound::Day => &self.day,
            Bound::Month => &self.month,
        }
    }

    const fn period_mut(&mut self, bound: Bound) -> &mut Period {
        match bound {
            Bound::Hour => &mut self.hour,
            Bound::Day => &mut self.day,
            Bound::Month => &mut self.month,
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// No carrier's month: which day that begins, and by whose clock, is not known here.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// A full reconnect and its time question with all headers, rounded up: what one more attempt takes of the month.
pub const RECONNECT: u64 = 4000;

/// How often a lost session is tried again once the month's bytes are spent: 120 times a month, half a megabyte.
const TRICKLE: Duration = Duration::from_secs(6 * 3600);

/// The least between two starts anew of the modem.
pub const RESET_EVERY: Duration = Duration::from_secs(6 * 3600);

/// What clocks that agree may differ by over the life of a process, seconds.
const DOUBT: u64 = 60;

#[cfg(test)]
mod tests;
