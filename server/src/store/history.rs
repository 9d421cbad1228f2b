//! How devices and the fleet were over time: plain values, known to the registry, every store and the API.

use moorline_protocol::Status;

/// How long one [`Slot`] is.
pub const SLOT_MS: i64 = 5 * 60 * 1000;
/// How long one [`Hour`] is.
pub(super) const HOUR_MS: i64 = 60 * 60 * 1000;

/// How a device and its line were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// As the device told it.
    pub status: Status,
    /// When, UTC milliseconds since 1970.
    pub at_ms: i64,
}

/// What is kept of a device's reports within one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hour {
    /// When the last of them came, UTC milliseconds since 1970.
    pub at_ms: i64,
    /// The last one's signal, dBm, and the weakest and strongest of them all.
    pub signal: Option<Span>,
    /// The last one's operator as MCC-MNC.
    pub operator: Option<Box<str>>,
    /// The last one's memory available, KiB.
    pub memory_kb: Option<u32>,
    /// Its one-minute load average, hundredths.
    pub load: Option<u16>,
    /// Its temperature, tenths of a degree Celsius.
    pub temperature: Option<i16>,
}

/// A value over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The last one.
    pub last: i16,
    /// The least.
    pub min: i16,
    /// The most.
    pub max: i16,
}

impl Hour {
    /// An hour with this one report in it.
    pub(super) fn of(report: &Report) -> Self {
        let Report { status, at_ms } = report;
        Self {
            at_ms: *at_ms,
            signal: status.signal_dbm.map(|last| Span { last, min: last, max: last }),
            operator: status.operator.as_deref().map(Into::into),
            memory_kb: status.memory_kb,
            load: status.load,
            temperature: status.temperature,
        }
    }

    /// What becomes of it with a later one.
    pub(super) fn then(self, later: Self) -> Self {
        let signal = match (self.signal, later.signal) {
            (Some(before), Some(Span { last, min, max })) => {
                Some(Span { last, min: min.min(before.min), max: max.max(before.max) })
            }
            (before, after) => after.or(before),
        };
        Self { signal, ..later }
    }

    /// Hours since 1970.
    pub(super) const fn number(at_ms: i64) -> i64 {
        at_ms.div_euclid(HOUR_MS)
    }
}

/// The fleet in five minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// When they began, UTC milliseconds since 1970: a multiple of [`SLOT_MS`].
    pub at_ms: i64,
    /// How many devices were online at their end.
    pub online: usize,
    /// How many sessions began.
    pub came: u32,
    /// How many ended.
    pub went: u32,
    /// How often somebody was not taken in.
    pub refused: u32,
}

impl Slot {
    /// What becomes of it with more of the same five minutes, as after a restart.
    #[must_use]
    pub const fn then(self, more: Self) -> Self {
        Self {
            at_ms: self.at_ms,
            online: more.online,
            came: self.came.saturating_add(more.came),
            went: self.went.saturating_add(more.went),
            refused: self.refused.saturating_add(more.refused),
        }
    }
}
