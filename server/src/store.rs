//! What outlives the server: the devices it has known and what happened to them.
//!
//! ```text
//!   registry ── Queue ──► writer thread ── one transaction per batch ──► Store ──► events for the API
//! ```
//!
//! The registry holds the truth and never waits: it puts rows and events into a [`Queue`], and the [`Writer`] brings them
//! to the [`Store`]. Devices are read once, at the start; events are read by the API, on a connection of its own.

mod backup;
mod history;
mod memory;
mod queue;
mod record;
mod rows;
#[cfg(test)]
pub(crate) mod samples;
mod schema;
mod settings;
mod sqlite;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use moorline_protocol::Imei;

use crate::clock::Now;

pub(crate) use backup::ensure_closed;
pub use backup::restore;
pub use history::{Hour, Report, SLOT_MS, Slot, Span};
pub use memory::Memory;
pub use queue::{Batch, MAX_EVENTS, MAX_REFUSALS, Queue};
pub use record::{Credential, Device, Ended, Event, Kind, LastSession, StoredEvent};
pub use settings::{Hold, HoldKind, MAX_LABEL, MAX_REASON, Settings, check_text};
pub use sqlite::Sqlite;
pub(crate) use sqlite::create_private;
pub use writer::{Health, Unsaved, Writer};

/// How much a store keeps; the oldest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Events of devices. A million take about 150 MB.
    pub sessions: u64,
    /// Events that anybody can bring about: see [`Kind::is_refusal`].
    pub refusals: u64,
    /// How long what is kept over time lasts. An hour of a device takes about 90 bytes.
    pub history: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { sessions: 1_000_000, refusals: 100_000, history: Duration::from_secs(30 * 24 * 60 * 60) }
    }
}

/// What keeps the fleet. Every method may be called from any thread, and may block on the disk.
pub trait Store: Send + Sync {
    /// All that is known of the fleet; called once, at the start.
    ///
    /// # Errors
    /// The store cannot be read.
    fn load(&self) -> Result<Fleet, StoreError>;

    /// Takes a batch in: all of it, or nothing of it and an error.
    ///
    /// # Errors
    /// The store cannot be written; it holds what it held before.
    fn apply(&self, batch: &Batch) -> Result<(), StoreError>;

    /// What it took in and could not bring where it belongs yet; where it has one place alone there is no such thing.
    fn backlog(&self) -> Backlog {
        Backlog::default()
    }

    /// Takes what was decided of devices in the place of older revisions, at once: it is on the disk when this returns.
    ///
    /// # Errors
    /// The store cannot be written; it holds what it held before, of all of them.
    fn keep(&self, settings: &[(Imei, Settings)]) -> Result<(), StoreError>;

    /// Makes a file that holds all of it, as it is at one moment, and gives it to the caller: [`restore`] takes it. It never
    /// waits for [`Self::apply`], and is not waited for.
    ///
    /// # Errors
    /// The disk does not take it, or this store is none that files can be made of.
    fn backup(&self, now: Now) -> Result<PathBuf, StoreError>;

    /// Events in the order of their ids. It never waits for [`Self::apply`].
    ///
    /// # Errors
    /// The store cannot be read.
    fn events(&self, query: &EventQuery) -> Result<EventPage, StoreError>;

    /// A device's hours since then, the oldest first; none in which it told nothing.
    ///
    /// # Errors
    /// The store cannot be read.
    fn hours(&self, imei: Imei, since_ms: i64) -> Result<Vec<Hour>, StoreError>;

    /// The fleet's slots since then, the oldest first; none in which no server ran.
    ///
    /// # Errors
    /// The store cannot be read.
    fn slots(&self, since_ms: i64) -> Result<Vec<Slot>, StoreError>;
}

/// What a store has not brought where it belongs yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Why not, if that is more than a matter of moments.
    pub trouble: Option<String>,
    /// How many rows that are.
    pub rows: usize,
    /// How many events were given up.
    pub lost: u64,
}

/// What a store knows at the start.
#[derive(Debug, Default)]
pub struct Fleet {
    /// All devices.
    pub devices: Vec<Device>,
    /// What was decided of single devices, those that never came among them.
    pub settings: BTreeMap<Imei, Settings>,
    /// What each device last told of itself.
    pub reports: BTreeMap<Imei, Report>,
    /// No session had this id or a higher one.
    pub next_session_id: u64,
    /// Which node this is, where several servers share the fleet.
    pub node: Option<u8>,
}

/// Which events are wanted.
#[derive(Clone, Copy, Debug)]
pub struct EventQuery {
    /// Those after this id, the oldest first; `None`: the newest there are.
    pub after: Option<i64>,
    /// Those of this device only.
    pub imei: Option<Imei>,
    /// At most so many.
    pub limit: usize,
}

/// Some events, in the order of their ids.
#[derive(Debug, Default)]
pub struct EventPage {
    /// They.
    pub events: Vec<StoredEvent>,
    /// The id of the newest event that the store ever gave, of any device; 0 when it gave none.
    pub newest: i64,
}

/// Why a store cannot be used: what is wrong, with which file, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The file is there and is none of this program's, or is damaged, or is of a newer version.
    Unusable(String),
    /// The file or its disk does not let itself be used, now.
    Failed(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StoreError {}
