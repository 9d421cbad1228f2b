//! Hears when the system clock is set, and when the device wakes from suspend: both end the loop's wait.
//!
//! poll's timeout is on the kernel's `CLOCK_MONOTONIC`, which stands still over a suspend, while the deadlines are on the
//! boot clock, which does not. So after a wake-up the wait has to be reckoned anew. A timer on the wall clock that is to
//! be cancelled when that clock is set (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`) tells of both, because to the
//! kernel a resume is a setting of the wall clock. It is armed once; until then it costs neither a wake-up nor a system
//! call, as a timer that followed each deadline would.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use moorline_config::HumanDuration;
use rustix::io::{Errno, read};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::{Now, Utc};

/// Readable when something happened to the wall clock.
#[derive(Debug)]
pub struct ClockWatch {
    timer: OwnedFd,
    /// How the clocks stood when last looked at.
    seen: Now,
}

impl ClockWatch {
    /// Begins to watch.
    ///
    /// # Errors
    /// The kernel has no such timers.
    pub fn new(now: Now) -> rustix::io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let far = Itimerspec { it_interval: none, it_value: FAR };
        timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &far)?;
        Ok(Self { timer, seen: now })
    }

    /// Call when it is readable. How far the wall clock was set, when it was.
    pub fn take(&mut self, now: Now) -> Option<Jump> {
        // ECANCELED is the news itself; after it the timer stands as before.
        if let Err(Errno::AGAIN) = read(&self.timer, &mut [0; 8]) {
            return None;
        }
        let jump = Jump::between(self.seen, now);
        self.seen = now;
        jump
    }
}

impl AsFd for ClockWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// The wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// How far, in milliseconds.
    by_ms: i64,
    /// To what.
    to: Utc,
}

impl Jump {
    /// What the boot clock does not account for. Less than a second is the ordinary keeping of a clock.
    fn between(before: Now, now: Now) -> Option<Self> {
        let passed = now.instant.saturating_duration_since(before.instant);
        let passed = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        let by_ms = now.utc_ms.saturating_sub(before.utc_ms).saturating_sub(passed);
        (by_ms.unsigned_abs() >= 1000).then_some(Self { by_ms, to: Utc(now.utc_ms) })
    }
}

impl fmt::Display for Jump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let far = HumanDuration(Duration::from_secs(self.by_ms.unsigned_abs().saturating_add(500) / 1000));
        let way = if self.by_ms < 0 { "back" } else { "forward" };
        write!(f, "the system clock was set {way} by {far}, to {}; no deadline moves with it", self.to)
    }
}

/// The last second that every kernel's timer takes. A clock that goes past it, in 2038, wakes the loop once for nothing.
const FAR: Timespec = Timespec { tv_sec: i32::MAX as i64, tv_nsec: 0 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn nothing_is_heard_while_nothing_happens() {
        let now = clock::now();
        assert_eq!(ClockWatch::new(now).unwrap().take(now), None);
    }

    #[test]
    fn what_the_boot_clock_accounts_for_is_no_jump() {
        let before = Now { utc_ms: 1_795_533_767_000, ..clock::now() };
        let hour = Duration::from_secs(3600);
        let after = |utc_ms| Now { instant: before.instant + hour, utc_ms };
        let expected = before.utc_ms + 3_600_000;
        assert_eq!(Jump::between(before, after(expected)), None);
        assert_eq!(Jump::between(before, after(expected + 999)), None);
        let year = 365 * 86_400_000;
        for (by, words) in
            [(year, "forward by 365d, to 2027-11-24T16:22:47Z"), (-year, "back by 365d, to 2025-")]
        {
            let told = Jump::between(before, after(expected + by)).unwrap().to_string();
            assert!(told.contains(words), "{told}");
        }
    }
}
