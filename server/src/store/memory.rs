//! The store in memory: for tests, and wherever a fleet need not outlive its server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use moorline_protocol::Imei;

use crate::clock::Now;

use super::{
    Batch, Device, EventPage, EventQuery, Fleet, Hour, Report, Retention, Settings, Slot, Store, StoreError,
    StoredEvent,
};

/// A fleet in memory.
#[derive(Debug)]
pub struct Memory {
    retention: Retention,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    devices: BTreeMap<Imei, Device>,
    settings: BTreeMap<Imei, Settings>,
    reports: BTreeMap<Imei, Report>,
    hours: BTreeMap<(Imei, i64), Hour>,
    slots: BTreeMap<i64, Slot>,
    events: BTreeMap<i64, StoredEvent>,
    newest: i64,
    next_session_id: u64,
}

impl Memory {
    /// An empty one.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        Self { retention, held: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn load(&self) -> Result<Fleet, StoreError> {
        let held = self.lock();
        Ok(Fleet {
            devices: held.devices.values().cloned().collect(),
            settings: held.settings.clone(),
            reports: held.reports.clone(),
            next_session_id: held.next_session_id.max(1),
            node: None,
        })
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut held = self.lock();
        held.devices.extend(batch.devices.iter().map(|device| (device.imei, device.clone())));
        held.keep(&batch.settings);
        held.keep_history(batch);
        held.prune_history(i64::try_from(self.retention.history.as_millis()).unwrap_or(i64::MAX));
        for event in &batch.events {
            held.newest += 1;
            let id = held.newest;
            held.events.insert(id, StoredEvent { id, event: event.clone() });
        }
        held.next_session_id = batch.next_session_id.unwrap_or(held.next_session_id);
        held.prune(false, self.retention.sessions);
        held.prune(true, self.retention.refusals);
        Ok(())
    }

    fn keep(&self, settings: &[(Imei, Settings)]) -> Result<(), StoreError> {
        self.lock().keep(settings);
        Ok(())
    }

    fn backup(&self, _: Now) -> Result<PathBuf, StoreError> {
        Err(StoreError::Failed("a fleet that is kept in memory has no backup".to_owned()))
    }

    fn events(&self, query: &EventQuery) -> Result<EventPage, StoreError> {
        let held = self.lock();
        let wanted = |stored: &&StoredEvent| query.imei.is_none() || stored.event.imei == query.imei;
        let after = held.events.range(query.after.unwrap_or(0).saturating_add(1)..).map(|(_, stored)| stored);
        let mut events: Vec<StoredEvent> = if query.after.is_some() {
            after.filter(wanted).take(query.limit).cloned().collect()
        } else {
            after.rev().filter(wanted).take(query.limit).cloned().collect()
        };
        events.sort_by_key(|stored| stored.id);
        Ok(EventPage { events, newest: held.newest })
    }

    fn hours(&self, imei: Imei, since_ms: i64) -> Result<Vec<Hour>, StoreError> {
        let held = self.lock();
        let range = (imei, Hour::number(since_ms))..=(imei, i64::MAX);
        Ok(held.hours.range(range).map(|(_, hour)| hour.clone()).collect())
    }

    fn slots(&self, since_ms: i64) -> Result<Vec<Slot>, StoreError> {
        Ok(self.lock().slots.range(since_ms..).map(|(_, slot)| *slot).collect())
    }
}

impl Held {
    fn keep_history(&mut self, batch: &Batch) {
        for (imei, report) in &batch.reports {
            let (key, newer) = ((*imei, Hour::number(report.at_ms)), Hour::of(report));
            let hour = match self.hours.remove(&key) {
                Some(before) => before.then(newer),
                None => newer,
            };
            self.hours.insert(key, hour);
            self.reports.insert(*imei, report.clone());
        }
        for slot in &batch.slots {
            let before = self.slots.get(&slot.at_ms).copied();
            self.slots.insert(slot.at_ms, before.map_or(*slot, |before| before.then(*slot)));
        }
    }

    /// Older than this before the newest slot.
    fn prune_history(&mut self, history_ms: i64) {
        let Some(newest) = self.slots.keys().next_back().copied() else { return };
        let before = newest.saturating_sub(history_ms);
        self.slots.retain(|at, _| *at >= before);
        self.hours.retain(|(_, hour), _| *hour >= Hour::number(before));
    }

    fn keep(&mut self, settings: &[(Imei, Settings)]) {
        for (imei, newer) in settings {
            let held = self.settings.entry(*imei).or_default();
            if newer.revision > held.revision {
                *held = newer.clone();
            }
        }
    }

    fn prune(&mut self, is_refusal: bool, most: u64) {
        let of_line = |stored: &&StoredEvent| stored.event.kind.is_refusal() == is_refusal;
        let excess = (self.events.values().filter(of_line).count() as u64).saturating_sub(most);
        let old: Vec<i64> =
            self.events.values().filter(of_line).take(excess as usize).map(|stored| stored.id).collect();
        for id in old {
            self.events.remove(&id);
        }
    }
}
