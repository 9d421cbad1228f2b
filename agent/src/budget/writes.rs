//! When the counters go to flash: seldom while all is well, and yet so that a process that ends without a farewell, or a
//! device whose power is cut again and again, gets nothing back of what it used.
//!
//! A snapshot covers attempts and bytes ahead: as many as the process has used so far, within bounds. So one that dies after
//! its first attempt is charged exactly that, one that works through a long outage writes seldom, and none is charged more
//! than twice what it used beside one cover of bytes. And one is written when the process has become twice as old, but at
//! least every few hours, for the time that has passed: so a device that never lives long still counts half of its time.

use std::time::{Duration, Instant};

/// What a snapshot says beyond what was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    pub(super) attempts: u64,
    pub(super) bytes: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Writes {
    began: Option<Instant>,
    written: Option<Instant>,
    /// Something was told that must not be told again.
    told: bool,
    attempts: Cover,
    bytes: Cover,
}

/// What the process has used, and how much of it the last snapshot covers.
#[derive(Debug, Default)]
struct Cover {
    used: u64,
    covered: u64,
}

impl Cover {
    const fn is_passed(&self) -> bool {
        self.used > self.covered
    }

    fn renew(&mut self, ahead: u64) -> u64 {
        self.covered = self.used + ahead;
        ahead
    }
}

impl Writes {
    pub(super) fn begin(&mut self, now: Instant) {
        self.began.get_or_insert(now);
    }

    pub(super) const fn count_attempt(&mut self) {
        self.attempts.used += 1;
    }

    pub(super) const fn count_bytes(&mut self, bytes: u64) {
        self.bytes.used += bytes;
    }

    pub(super) const fn tell(&mut self) {
        self.told = true;
    }

    /// Whether a snapshot is due; it is taken as written.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Ahead> {
        let due = self.poll_timeout().is_some_and(|at| now >= at);
        if !due && !self.told && !self.attempts.is_passed() && !self.bytes.is_passed() {
            return None;
        }
        self.told = false;
        self.written = Some(now);
        Some(Ahead {
            attempts: self.attempts.renew(self.attempts.used.saturating_sub(1).min(MOST_ATTEMPTS)),
            bytes: self.bytes.renew(self.bytes.used.clamp(LEAST_BYTES, MOST_BYTES)),
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let began = self.began?;
        let written = self.written.unwrap_or(began);
        let age = written.saturating_duration_since(began);
        Some(written + age.clamp(SOONEST, LATEST))
    }
}

const MOST_ATTEMPTS: u64 = 16;
/// A connection and its first exchanges.
const LEAST_BYTES: u64 = 4096;
const MOST_BYTES: u64 = 65_536;
const SOONEST: Duration = Duration::from_secs(60);
const LATEST: Duration = Duration::from_secs(6 * 3600);
