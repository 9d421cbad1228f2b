//! How long a device may be silent, and when it is asked whether the way down to it still works. It knows no message.
//!
//! A device that tells its longest silence by Interval wants to learn how long the carrier's NAT remembers its flow. What it
//! says itself after a silence opens a new mapping in many NATs and so proves nothing; what the server says to it does.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// See the module. Lengths are in milliseconds, as they are granted; every session keeps them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    heard_at: Instant,
    /// The longest that is waited out.
    patience_ms: u32,
    /// The longest that the device told, after which it is asked; `None`: it told none, and is never asked.
    told_ms: Option<NonZeroU32>,
    /// How often it was asked since it was heard; never more than twice, its patience being two and a half silences.
    asked: u8,
    /// The token of the last question: one byte on the wire, always.
    token: u8,
}

/// What a silence has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The device is to be asked, with this token.
    Echo(u8),
    /// The device is to be let go.
    End,
}

impl Silence {
    pub(super) fn new(heard_at: Instant, patience: Duration) -> Self {
        Self { heard_at, patience_ms: milliseconds(patience), told_ms: None, asked: 0, token: 0 }
    }

    /// Something came. Its answer goes out in the same breath, so the silence of both sides begins here.
    pub(super) const fn broken(&mut self, now: Instant) {
        self.heard_at = now;
        self.asked = 0;
    }

    /// Waits out silences of this length from now on.
    pub(super) fn wait_out(&mut self, patience: Duration) {
        self.patience_ms = milliseconds(patience);
    }

    /// The device told its longest silence.
    pub(super) fn told(&mut self, longest: Duration) {
        self.told_ms = NonZeroU32::new(milliseconds(longest));
        self.wait_out(patience(longest));
    }

    /// When [`Self::due`] has something.
    pub(super) fn deadline(&self) -> Instant {
        let end = self.end();
        let told = self.told_ms.map(|told| Duration::from_millis(told.get().into()));
        told.map_or(end, |told| end.min(self.heard_at + told * (u32::from(self.asked) + 1)))
    }

    /// What is to be done now that `now` has come. A question breaks the silence as an answer does: a device whose TCP
    /// acknowledges it may leave it at that, and is asked again after as long.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        if now < self.deadline() {
            return None;
        }
        if now >= self.end() {
            return Some(Due::End);
        }
        self.asked += 1;
        // From 1 to 127, which a varint holds in one byte.
        self.token = self.token % 127 + 1;
        Some(Due::Echo(self.token))
    }

    fn end(&self) -> Instant {
        self.heard_at + Duration::from_millis(self.patience_ms.into())
    }
}

/// A device is let go after two and a half of its longest silences: one heartbeat may be lost, and the next one late.
pub(super) fn patience(longest: Duration) -> Duration {
    longest * 5 / 2
}

/// Bounded by 49 days, where no silence is longer than a few.
fn milliseconds(length: Duration) -> u32 {
    u32::try_from(length.as_millis()).unwrap_or(u32::MAX)
}
