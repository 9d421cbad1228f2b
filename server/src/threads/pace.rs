//! How fast a thread's sessions have something to do, and so whether it is worth a pause until more of them have.
//!
//! A thread that waits is woken for each heartbeat, which costs half as much again as the heartbeat. Where more than one comes in
//! each [`QUICK`], those of the next [`PAUSE`] are taken together: on a line that takes 50 ms for an answer nobody notices. Below
//! that each is answered at once.

use std::time::{Duration, Instant};

/// What comes quicker than this is worth a pause: some 1,000 heartbeats a second, as of 60,000 devices that beat each minute.
const QUICK: Duration = Duration::from_millis(1);

/// How long an answer may be late for it.
const PAUSE: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// What was done since the thread last had done all there was.
    done: u32,
    /// When that was.
    since: Option<Instant>,
}

impl Pace {
    pub(super) const NEW: Self = Self { done: 0, since: None };

    /// A session had something to do.
    pub(super) const fn worked(self) -> Self {
        Self { done: self.done.saturating_add(1), ..self }
    }

    /// All is done; how long the thread is to pause before it waits for more.
    pub(super) fn rest(self, now: Instant) -> (Self, Option<Duration>) {
        // Woken for a timer, or for one who comes.
        if self.done == 0 {
            return (self, None);
        }
        let took = self.since.map(|since| now.saturating_duration_since(since));
        let is_quick = took.is_some_and(|took| took < QUICK.saturating_mul(self.done));
        (Self { done: 0, since: Some(now) }, is_quick.then_some(PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// A thread in virtual time, with a heartbeat in each `every`: how long each waits for its answer.
    struct Thread {
        pace: Pace,
        now: Instant,
        next: Instant,
    }

    impl Thread {
        fn new() -> Self {
            let now = clock::now().instant;
            Self { pace: Pace::NEW, now, next: now }
        }

        /// The longest delay among the next `count`, and how often the thread slept.
        fn beats(&mut self, count: u32, every: Duration) -> (Duration, u32) {
            let (mut longest, mut sleeps) = (Duration::ZERO, 0);
            for _ in 0..count {
                self.next += every;
                if self.now < self.next {
                    let (pace, pause) = self.pace.rest(self.now);
                    self.pace = pace;
                    self.now = (self.now + pause.unwrap_or_default()).max(self.next);
                    sleeps += 1;
                }
                longest = longest.max(self.now - self.next);
                self.pace = self.pace.worked();
            }
            (longest, sleeps)
        }
    }

    #[test]
    fn those_who_come_quickly_are_taken_together() {
        let (longest, sleeps) = Thread::new().beats(1_000, PAUSE / 10);
        assert!(longest <= PAUSE && (95..=105).contains(&sleeps), "{longest:?} {sleeps}");
    }

    #[test]
    fn those_who_come_now_and_then_are_answered_at_once() {
        for every in [QUICK, 2 * QUICK, Duration::from_secs(1)] {
            assert_eq!(Thread::new().beats(1_000, every), (Duration::ZERO, 1_000), "{every:?}");
        }
    }

    #[test]
    fn quick_ones_that_are_over_hold_nobody_up() {
        let mut thread = Thread::new();
        thread.beats(1_000, PAUSE / 10);
        thread.beats(2, 2 * QUICK);
        assert_eq!(thread.beats(1_000, 2 * QUICK).0, Duration::ZERO);
    }

    #[test]
    fn wake_up_for_nothing_changes_nothing() {
        let mut thread = Thread::new();
        thread.beats(10, 2 * QUICK);
        let woken = thread.pace.rest(thread.now).0;
        let (pace, pause) = woken.rest(thread.now + QUICK / 2);
        assert_eq!(pause, None);
        assert_eq!(pace.worked().rest(thread.now + 2 * QUICK).1, None);
    }
}
