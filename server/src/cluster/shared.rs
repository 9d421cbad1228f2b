//! The fleet that several nodes share, as this node's store: written to NATS, read from a copy on this node's disk.
//!
//! ```text
//!   registry ── Queue ──► Writer ──► Shared ──► Outbox ──► bucket and stream ──► follow.rs ──► registry, copy
//!                                      │                                                         ▲
//!                                      └──── what operators read ────────────────────────────────┘
//! ```
//!
//! NATS has the truth. The copy is a database like that of a server without others, which follows it; it may be deleted at
//! any time and is then made anew.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use moorline_protocol::Imei;
use tokio::runtime::Handle;
use tracing::warn;

use super::outbox::{Outbox, failed};
use crate::clock::Now;
use crate::store::{
    Backlog, Batch, EventPage, EventQuery, Fleet, Hour, Settings, Slot, Sqlite, Store, StoreError,
};

/// See the module.
pub(super) struct Shared {
    outbox: Arc<Outbox>,
    copy: Arc<Sqlite>,
    /// What the bucket held at the start, until it is taken.
    fleet: Mutex<Option<Fleet>>,
    runtime: Handle,
}

impl Shared {
    pub(super) fn new(outbox: Arc<Outbox>, copy: Arc<Sqlite>, fleet: Fleet) -> Self {
        Self { outbox, copy, fleet: Mutex::new(Some(fleet)), runtime: Handle::current() }
    }
}

impl Store for Shared {
    fn load(&self) -> Result<Fleet, StoreError> {
        let fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(fleet.unwrap_or_default())
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.outbox.take(batch)?;
        // How the fleet was in five minutes each node keeps for itself, as it saw it.
        let slots = Batch { slots: batch.slots.clone(), ..Batch::default() };
        if !slots.is_empty()
            && let Err(fault) = self.copy.apply(&slots)
        {
            // What else is in the batch is told, and must not be told again for that.
            warn!("{fault}: the charts lack these minutes");
        }
        Ok(())
    }

    fn backlog(&self) -> Backlog {
        self.outbox.backlog()
    }

    fn keep(&self, settings: &[(Imei, Settings)]) -> Result<(), StoreError> {
        let kept = self
            .runtime
            .block_on(self.outbox.publisher().put_settings(settings))
            .map_err(|fault| failed(&fault))?;
        if kept {
            return Ok(());
        }
        Err(StoreError::Failed(
            "another node decided of it at the same moment: look, and ask again".to_owned(),
        ))
    }

    fn backup(&self, now: Now) -> Result<PathBuf, StoreError> {
        self.copy.backup(now)
    }

    fn events(&self, query: &EventQuery) -> Result<EventPage, StoreError> {
        self.copy.events(query)
    }

    fn hours(&self, imei: Imei, since_ms: i64) -> Result<Vec<Hour>, StoreError> {
        self.copy.hours(imei, since_ms)
    }

    fn slots(&self, since_ms: i64) -> Result<Vec<Slot>, StoreError> {
        self.copy.slots(since_ms)
    }
}
