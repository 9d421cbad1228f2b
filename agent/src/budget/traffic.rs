//! Bytes by what they were for.

use std::cell::Cell;
use std::fmt;

use moorline_config::Size;

/// What bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A connection up to the server's welcome, with a full TLS handshake; and one that came to nothing.
    Full,
    /// The same, resumed.
    Resumed,
    /// Heartbeats, echoes, and their answers.
    Heartbeat,
    /// Reports on the device and its line.
    Status,
    /// Time questions and their answers.
    Time,
    /// Goodbyes, and looking up names.
    Other,
}

pub(super) const PURPOSES: usize = 6;

impl Purpose {
    const ALL: [Self; PURPOSES] =
        [Self::Full, Self::Resumed, Self::Heartbeat, Self::Status, Self::Time, Self::Other];

    const fn label(self) -> &'static str {
        match self {
            Self::Full => "full handshakes",
            Self::Resumed => "resumed handshakes",
            Self::Heartbeat => "heartbeats",
            Self::Status => "reports",
            Self::Time => "time",
            Self::Other => "other",
        }
    }
}

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Into the TCP stream.
    pub up: u64,
    /// Out of it.
    pub down: u64,
    /// Headers of IP and TCP both ways: an estimate, see [`super::Gauge`].
    pub headers: u64,
}

impl Bytes {
    /// All of them.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.up.saturating_add(self.down).saturating_add(self.headers)
    }

    pub(super) const fn add(&mut self, other: Self) {
        self.up = self.up.saturating_add(other.up);
        self.down = self.down.saturating_add(other.down);
        self.headers = self.headers.saturating_add(other.headers);
    }

    const fn remove(&mut self, other: Self) {
        self.up = self.up.saturating_sub(other.up);
        self.down = self.down.saturating_sub(other.down);
        self.headers = self.headers.saturating_sub(other.headers);
    }
}

/// Bytes by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic([Bytes; PURPOSES]);

impl Traffic {
    /// What `bytes` says of each purpose.
    pub(super) fn from_fn(bytes: impl FnMut(Purpose) -> Bytes) -> Self {
        Self(Purpose::ALL.map(bytes))
    }

    /// For this purpose.
    #[must_use]
    pub const fn of(&self, purpose: Purpose) -> Bytes {
        self.0[purpose as usize]
    }

    /// For all purposes.
    #[must_use]
    pub fn sum(&self) -> Bytes {
        let mut sum = Bytes::default();
        for bytes in self.0 {
            sum.add(bytes);
        }
        sum
    }

    pub(super) fn add(&mut self, purpose: Purpose, bytes: Bytes) {
        self.0[purpose as usize].add(bytes);
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        for (purpose, bytes) in *other {
            self.add(purpose, bytes);
        }
    }
}

impl IntoIterator for Traffic {
    type Item = (Purpose, Bytes);
    type IntoIter =
        std::iter::Zip<std::array::IntoIter<Purpose, PURPOSES>, std::array::IntoIter<Bytes, PURPOSES>>;

    fn into_iter(self) -> Self::IntoIter {
        Purpose::ALL.into_iter().zip(self.0)
    }
}

/// In words: what there was, and how much of it are headers.
impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (purpose, bytes) in *self {
            if bytes.sum() > 0 {
                write!(f, "{} {}, ", purpose.label(), Size(bytes.sum()))?;
            }
        }
        let sum = self.sum();
        write!(f, "in all {}, of it {} headers by estimate", Size(sum.sum()), Size(sum.headers))
    }
}

/// Bytes on their way from a link to the budget. Shared by both, so that a link that breaks takes none with it.
#[derive(Debug, Default)]
pub struct Tally(Cell<Traffic>);

impl Tally {
    /// Counts some.
    pub fn add(&self, purpose: Purpose, bytes: Bytes) {
        let mut traffic = self.0.get();
        traffic.add(purpose, bytes);
        self.0.set(traffic);
    }

    /// Some that were counted for one purpose were for another.
    pub(super) fn shift(&self, from: Purpose, to: Purpose, bytes: Bytes) {
        let mut traffic = self.0.get();
        traffic.0[from as usize].remove(bytes);
        traffic.add(to, bytes);
        self.0.set(traffic);
    }

    /// Takes all that was counted.
    #[must_use]
    pub fn take(&self) -> Traffic {
        self.0.take()
    }
}
