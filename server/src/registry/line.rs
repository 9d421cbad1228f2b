//! What a session's line has carried and how quick it is, counted without a lock: each message changes it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::Presence;

/// Since the device registered, TLS included. Nothing else is ordered by it.
#[derive(Debug, Default)]
pub(super) struct Line {
    received: AtomicU64,
    sent: AtomicU64,
    /// Milliseconds and one; 0: not measured.
    round_trip: AtomicU32,
}

/// What is known of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Bytes that came since the device registered, TLS included.
    pub received: u64,
    /// Bytes that went.
    pub sent: u64,
    /// How long the last answer to a question of the server took, milliseconds.
    pub round_trip_ms: Option<u32>,
}

impl Presence {
    /// So many bytes came.
    pub fn received(&self, bytes: usize) {
        self.line.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many bytes went.
    pub fn sent(&self, bytes: usize) {
        self.line.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The device answered a question within this time.
    pub fn answered_within(&self, time: Duration) {
        let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        self.line.round_trip.store(ms.saturating_add(1), Ordering::Relaxed);
    }

    /// What is known of its line.
    #[must_use]
    pub fn line(&self) -> Measured {
        Measured {
            received: self.line.received.load(Ordering::Relaxed),
            sent: self.line.sent.load(Ordering::Relaxed),
            round_trip_ms: self.line.round_trip.load(Ordering::Relaxed).checked_sub(1),
        }
    }
}
