//! How often a change of the network may be acted on. Pure: changes and the time in, at most a bounded number of alarms out.
//!
//! A cable that is plugged in gives a burst of changes (link, address, route), which make one alarm; an interface that
//! flaps without end gives one a minute, which is less than the backoff's own first tries. So a device whose network comes
//! back is quick, and a cell full of them that flap together does no more than it would have done.

use std::time::{Duration, Instant};

/// What comes within this belongs together.
const SETTLE: Duration = Duration::from_millis(250);

/// So many alarms may come in a row: link, address and route may be seconds apart.
const MOST: u32 = 4;

/// And one more each time this has passed.
const REFILL: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Alarm {
    due: Option<Instant>,
    /// Alarms since `since`, less those that time has forgiven.
    spent: u32,
    since: Option<Instant>,
}

impl Alarm {
    /// Something changed.
    pub(super) fn ring(&mut self, now: Instant) {
        self.forgive(now);
        if self.spent < MOST {
            self.due.get_or_insert(now + SETTLE);
        } else if let Some(since) = self.since {
            // What happens meanwhile is not forgotten, only late.
            self.due.get_or_insert(since + REFILL);
        }
    }

    /// When an alarm is due.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Whether one is.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let rings = self.due.is_some_and(|due| now >= due);
        if rings {
            self.forgive(now);
            self.due = None;
            self.spent += 1;
            self.since.get_or_insert(now);
        }
        rings
    }

    fn forgive(&mut self, now: Instant) {
        while let Some(since) = self.since
            && now >= since + REFILL
        {
            self.spent = self.spent.saturating_sub(1);
            self.since = (self.spent > 0).then_some(since + REFILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_makes_one_alarm() {
        let now = crate::clock::now().instant;
        let mut alarm = Alarm::default();
        for ms in [0, 10, 240] {
            alarm.ring(now + Duration::from_millis(ms));
        }
        assert!(!alarm.take(now + Duration::from_millis(249)));
        assert_eq!(alarm.deadline(), Some(now + SETTLE));
        assert!(alarm.take(now + SETTLE));
        assert_eq!(alarm.deadline(), None);
    }

    #[test]
    fn flapping_is_bounded_and_the_last_change_is_never_lost() {
        let begun = crate::clock::now().instant;
        let mut alarm = Alarm::default();
        let (mut alarms, mut now) = (0, begun);
        while now < begun + Duration::from_secs(3600) {
            alarm.ring(now);
            alarms += u32::from(alarm.take(now));
            now += Duration::from_millis(100);
        }
        assert!((60..=60 + MOST).contains(&alarms), "{alarms}");
        let due = alarm.deadline().unwrap();
        assert!(due <= now + REFILL);
        assert!(alarm.take(due));
    }

    #[test]
    fn quiet_hour_forgives_all() {
        let now = crate::clock::now().instant;
        let mut alarm = Alarm::default();
        for hour in 0..3 {
            let begun = now + Duration::from_secs(hour * 3600);
            for second in 0..MOST {
                let at = begun + Duration::from_secs(second.into());
                alarm.ring(at);
                assert!(alarm.take(at + SETTLE), "{hour} {second}");
            }
        }
    }
}
