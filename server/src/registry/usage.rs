//! What devices have used of their budgets: the last that each told, and an event when a bound of one has come nearer or is
//! free again. In memory alone: a device tells anew when a bound changes, and to a server that may know nothing within a day.
//!
//! A device that tells a thousand times a second changes what is shown as often, but events are bounded: what a device that
//! keeps to its periods can have to tell in an hour, and a few more.

use std::time::{Duration, Instant};

use moorline_config::{HumanDuration, Size};
use moorline_protocol::{Usage, Used, usage_level};

use super::{Presence, Registry, State, event_of};
use crate::clock::Now;
use crate::store::Kind;

/// Events of one device in [`WINDOW`]: three of each bound, and as many again for whoever changes bounds by hand.
const MOST: u8 = 18;
const WINDOW: Duration = Duration::from_secs(3600);

/// What a device has used, as it last told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageReport {
    /// As the device told it.
    pub usage: Usage,
    /// When, UTC milliseconds since 1970.
    pub at_ms: i64,
}

/// One of the bounds, by the key of `agent.toml` that sets it.
#[derive(Clone, Copy, Debug)]
enum Bound {
    Hour,
    Day,
    Month,
}

/// How near a bound is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is enough left.
    #[default]
    Free,
    /// The device stretches the rest.
    Near,
    /// Nothing is left.
    Spent,
    /// What this version does not know.
    Other,
}

/// A device's account: what it told last, and which levels there were events of.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) report: UsageReport,
    told: [Level; 3],
    window: Instant,
    events: u8,
}

impl Registry {
    /// A device tells what it has used.
    pub fn usage(&self, presence: &Presence, usage: Usage, now: Now) {
        let mut state = self.lock();
        if !state.is_current(presence) {
            return;
        }
        let State { devices, texts, .. } = &mut *state;
        let Some(entry) = devices.get_mut(&presence.imei) else { return };
        let report = UsageReport { usage, at_ms: now.utc_ms };
        let account = match &mut entry.account {
            Some(account) => {
                account.report = report;
                account
            }
            none => none.insert(Box::new(Account::new(report, now.instant))),
        };
        for bound in Bound::ALL {
            if let Some((cause, text)) = account.news(bound, now.instant) {
                let event = event_of(&entry.device, Kind::Budget, Some((texts.share(&cause), text)), now);
                self.queue.put_event(event);
            }
        }
    }
}

impl Account {
    const fn new(report: UsageReport, now: Instant) -> Self {
        Self { report, told: [Level::Free; 3], window: now, events: 0 }
    }

    /// The stable name of what happened to this bound since there was an event of it, and the same in words.
    fn news(&mut self, bound: Bound, now: Instant) -> Option<(String, String)> {
        let told = self.told.get_mut(bound as usize)?;
        let used = bound.of(&self.report.usage);
        let (level, peak) = (Level::from(used.level), Level::from(used.peak));
        // A bound that came and went between two reports was as near as it was.
        let reached = if peak > level.max(*told) { peak } else { level };
        if reached == *told || level == Level::Other || peak == Level::Other {
            return None;
        }
        if now.saturating_duration_since(self.window) >= WINDOW {
            (self.window, self.events) = (now, 0);
        }
        if self.events >= MOST {
            // Told by the next report after the window, if it is still so.
            return None;
        }
        self.events += 1;
        *told = level;
        Some((format!("{}_{}", bound.key(), reached.as_str()), text(bound, used, reached, level)))
    }
}

fn text(bound: Bound, used: &Used, reached: Level, level: Level) -> String {
    let (what, amount) = (bound.what(), amount(bound, used));
    let until = HumanDuration(Duration::from_secs(used.left_s.into()));
    match (reached, level) {
        (Level::Free, _) => format!("{what} are free again: {amount}"),
        (_, Level::Free) => {
            format!("{what} were {} in between, and are free again: {amount}", reached.words())
        }
        _ => format!("{what} are {}: {amount}, for another {until}", level.words()),
    }
}

fn amount(bound: Bound, used: &Used) -> String {
    let shown = |amount: u64| match bound {
        Bound::Month => Size(amount).to_string(),
        Bound::Hour | Bound::Day => amount.to_string(),
    };
    let limit = used.limit.map(|limit| format!(" of {}", shown(limit)));
    shown(used.amount) + &limit.unwrap_or_default()
}

impl Bound {
    const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Month];

    const fn of(self, usage: &Usage) -> &Used {
        match self {
            Self::Hour => &usage.hour,
            Self::Day => &usage.day,
            Self::Month => &usage.month,
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Hour => "attempts_per_hour",
            Self::Day => "attempts_per_day",
            Self::Month => "bytes_per_month",
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Hour => "its connection attempts of an hour",
            Self::Day => "its connection attempts of a day",
            Self::Month => "its bytes of 30 days",
        }
    }
}

impl Level {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Near => "near",
            Self::Spent => "spent",
            Self::Other => "other",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Near => "nearly spent",
            other => other.as_str(),
        }
    }
}

impl From<u8> for Level {
    fn from(number: u8) -> Self {
        match number {
            usage_level::FREE => Self::Free,
            usage_level::NEAR => Self::Near,
            usage_level::SPENT => Self::Spent,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Rig, at, imei};
    use super::*;

    const LIMIT: u64 = 10;

    fn hour(amount: u64, peak: u8) -> Usage {
        let level = if amount >= LIMIT { 2 } else { u8::from(amount >= 8) };
        let hour = Used { amount, limit: Some(LIMIT), level, peak: peak.max(level), left_s: 2460 };
        Usage { hour, ..Usage::default() }
    }

    /// What the device is said to have come to, by cause and in words.
    fn told(rig: &Rig) -> Vec<(String, String)> {
        let events = rig.stored().events.into_iter().filter(|event| event.kind == Kind::Budget);
        let told = events.map(|event| (event.cause.unwrap().to_string(), event.text.unwrap().into()));
        told.collect()
    }

    fn causes(rig: &Rig) -> Vec<String> {
        told(rig).into_iter().map(|(cause, _)| cause).collect()
    }

    #[test]
    fn last_usage_is_shown_also_after_the_session() {
        let rig = Rig::new();
        let (presence, _) = rig.come(1, 4000, 1);
        let shown = || rig.registry.get(imei(1)).unwrap().usage;
        assert_eq!(shown(), None);
        rig.registry.usage(&presence, hour(1, 0), at(2));
        rig.registry.usage(&presence, hour(2, 0), at(3));
        rig.registry.leave(&presence, crate::session::Cause::Idle, at(4));
        rig.come(1, 4001, 5);
        assert_eq!(shown(), Some(UsageReport { usage: hour(2, 0), at_ms: at(3).utc_ms }));
        // What a session that is replaced had to say comes too late.
        rig.registry.usage(&presence, hour(10, 2), at(6));
        assert_eq!(shown().map(|report| report.usage), Some(hour(2, 0)));
        assert_eq!(causes(&rig), [""; 0]);
    }

    #[test]
    fn bound_that_changes_is_an_event_once() {
        let rig = Rig::new();
        let (presence, _) = rig.come(1, 4000, 1);
        for (seconds, usage) in [hour(3, 0), hour(8, 1), hour(9, 1), hour(10, 2), hour(10, 2), hour(0, 2)]
            .into_iter()
            .zip(2..)
            .map(|(usage, seconds)| (seconds, usage))
        {
            rig.registry.usage(&presence, usage, at(seconds));
        }
        let what = "its connection attempts of an hour are";
        assert_eq!(
            told(&rig),
            [
                ("attempts_per_hour_near".into(), format!("{what} nearly spent: 8 of 10, for another 41m")),
                ("attempts_per_hour_spent".into(), format!("{what} spent: 10 of 10, for another 41m")),
                ("attempts_per_hour_free".into(), format!("{what} free again: 0 of 10")),
            ]
        );
    }

    #[test]
    fn bound_that_was_spent_between_two_reports_is_an_event() {
        let rig = Rig::new();
        let (presence, _) = rig.come(1, 4000, 1);
        rig.registry.usage(&presence, hour(1, 2), at(2));
        rig.registry.usage(&presence, hour(2, 0), at(3));
        let text = "its connection attempts of an hour were spent in between, and are free again: 1 of 10";
        assert_eq!(told(&rig), [("attempts_per_hour_spent".into(), text.into())]);
    }

    #[test]
    fn bytes_are_told_as_people_write_them() {
        let rig = Rig::new();
        let (presence, _) = rig.come(1, 4000, 1);
        let (amount, limit) = (10_000_200, Some(10_000_000));
        let month = Used { amount, limit, level: 2, peak: 2, left_s: 2 * 86_400 };
        rig.registry.usage(&presence, Usage { month, ..Usage::default() }, at(2));
        let text = "its bytes of 30 days are spent: 10 MB of 10 MB, for another 2d";
        assert_eq!(told(&rig), [("bytes_per_month_spent".into(), text.into())]);
    }

    #[test]
    fn levels_of_a_later_time_are_shown_and_no_event() {
        let rig = Rig::new();
        let (presence, _) = rig.come(1, 4000, 1);
        let later = Usage { hour: Used { level: 7, peak: 7, ..Used::default() }, ..Usage::default() };
        rig.registry.usage(&presence, later.clone(), at(2));
        assert_eq!(rig.registry.get(imei(1)).unwrap().usage.unwrap().usage, later);
        rig.registry.usage(&presence, hour(1, 0), at(3));
        assert_eq!(causes(&rig), [""; 0]);
    }

    /// A device of ours or one that somebody has taken over: its events push nobody else's out of the store.
    #[test]
    fn flood_of_usage_is_bounded_in_events_and_ends_with_what_holds() {
        let rig = Rig::new();
        let (presence, _) = rig.come(1, 4000, 1);
        for seconds in 2..60 {
            for n in 0..1000 {
                let amount = if n % 2 == 0 { u64::MAX } else { 0 };
                rig.registry.usage(&presence, hour(amount, 0), at(seconds));
            }
        }
        assert_eq!(causes(&rig).len(), usize::from(MOST));
        rig.registry.usage(&presence, hour(10, 2), at(70));
        assert_eq!(causes(&rig), [""; 0]);
        rig.registry.usage(&presence, hour(10, 2), at(3700));
        assert_eq!(causes(&rig), ["attempts_per_hour_spent"]);
    }
}
