//! Brings rows and events to NATS, so that each is there once, whoever tells it and however often, and so that of a device's
//! events none comes before an older one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::jetstream::kv::Operation;
use moorline_protocol::Imei;
use ring::digest::{SHA256, digest};

use super::nats::{Message, Nats, NatsError, Stored};
use super::rows::{Rows, Write};
use super::wire::{self, Row};
use crate::clock;
use crate::registry;
use crate::store::{Batch, Device, Event, Settings};

/// How often what is outdated is looked up and tried again at once, before it waits as what failed does.
const TRIES: usize = 5;

/// See the module.
pub(super) struct Publisher {
    nats: Arc<Nats>,
    rows: Arc<Mutex<Rows>>,
}

impl Publisher {
    pub(super) const fn new(nats: Arc<Nats>, rows: Arc<Mutex<Rows>>) -> Self {
        Self { nats, rows }
    }

    /// The rows of a batch. Its events are told before that, so that a node that dies in between leaves none untold: who ends
    /// its sessions then tells the same ones, which are taken once.
    pub(super) async fn put(&self, batch: &Batch) -> Result<(), NatsError> {
        self.put_devices(&batch.devices).await?;
        for (imei, settings) in &batch.settings {
            // One that lost against another node's is not the fleet's.
            let _ = self.put_settings(&[(*imei, settings.clone())]).await?;
        }
        let reports: Vec<Message> = {
            let rows = self.rows();
            // A device that is at another node by now has told it more.
            let own = batch.reports.iter().filter(|(imei, _)| rows.is_own(*imei));
            own.map(|(imei, report)| Nats::any_row(&format!("report.{imei}"), wire::write_report(report)))
                .collect()
        };
        self.nats.store(reports).await.map(drop)
    }

    /// In waves of one event of each device, for those of a wave may be stored in any order.
    pub(super) async fn tell(&self, events: &[Event]) -> Result<(), NatsError> {
        for wave in waves(events) {
            let messages = wave.into_iter().map(|event| {
                let value = wire::write_event(event);
                let name = self.rows().name(event, || name_of(&value));
                let token = event.imei.map_or_else(|| "none".to_owned(), |imei| imei.to_string());
                Nats::event(&token, &name, value)
            });
            let messages: Vec<Message> = messages.collect();
            self.nats.store(messages).await?;
        }
        Ok(())
    }

    async fn put_devices(&self, devices: &[Device]) -> Result<(), NatsError> {
        let mut left: Vec<&Device> = devices.iter().collect();
        for _ in 0..TRIES {
            let wanted: Vec<(&Device, Row, u64)> = {
                let rows = self.rows();
                left.iter()
                    .filter_map(|device| match rows.next(device) {
                        Write::Over { revision, returned } => {
                            Some((*device, Row { device: (*device).clone(), returned }, revision))
                        }
                        Write::Not => None,
                    })
                    .collect()
            };
            if wanted.is_empty() {
                return Ok(());
            }
            // The word that it was lost makes way for the row, so nobody else finds it any more who would tell this.
            let back: Vec<Event> = {
                let rows = self.rows();
                let back = wanted.iter().filter(|(device, ..)| rows.comes_back(device));
                back.map(|(device, ..)| registry::back(device, clock::now())).collect()
            };
            self.tell(&back).await?;
            let messages = wanted.iter().map(|(device, row, revision)| {
                Nats::row(&format!("device.{}", device.imei), wire::write_device(row), *revision)
            });
            let stored = self.nats.store(messages.collect()).await?;
            left = Vec::new();
            for ((device, row, _), stored) in wanted.into_iter().zip(stored) {
                match stored {
                    Stored::At(revision) => {
                        self.rows().device(&row, revision);
                    }
                    Stored::Outdated => {
                        if self.look_up(device.imei).await? {
                            left.push(device);
                        }
                    }
                }
            }
        }
        // Another node writes the same rows without end, or NATS has a new leader that does not know all yet.
        Err(NatsError(format!("{} rows change while they are written", left.len())))
    }

    /// Whether all of them are the fleet's now.
    pub(super) async fn put_settings(&self, settings: &[(Imei, Settings)]) -> Result<bool, NatsError> {
        let mut messages = Vec::with_capacity(settings.len());
        let mut wanted = Vec::with_capacity(settings.len());
        let mut all = true;
        {
            let rows = self.rows();
            for (imei, settings) in settings {
                match rows.next_decision(*imei, settings.revision) {
                    Write::Over { revision, .. } => {
                        messages.push(Nats::row(
                            &format!("settings.{imei}"),
                            wire::write_settings(settings),
                            revision,
                        ));
                        wanted.push((*imei, settings.revision));
                    }
                    Write::Not => all = false,
                }
            }
        }
        for ((imei, decision), stored) in wanted.into_iter().zip(self.nats.store(messages).await?) {
            match stored {
                Stored::At(revision) => self.rows().decision(imei, decision, revision),
                Stored::Outdated => all = false,
            }
        }
        Ok(all)
    }

    /// What the bucket holds of a device now. Whether it may be written over: a row that this version cannot read may not.
    async fn look_up(&self, imei: Imei) -> Result<bool, NatsError> {
        let entry = self.nats.fleet.entry(format!("device.{imei}")).await;
        let entry = entry.map_err(|fault| NatsError(format!("reading a row: {fault}")))?;
        let revision = entry.as_ref().map_or(0, |entry| entry.revision);
        let held = entry.filter(|entry| entry.operation == Operation::Put);
        let row = held.as_ref().map(|entry| wire::read_device(imei, &entry.value));
        if matches!(row, Some(None)) {
            return Ok(false);
        }
        self.rows().found(imei, row.flatten().as_ref(), revision);
        Ok(true)
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of what an event says: the same one told again has the same.
fn name_of(value: &[u8]) -> String {
    let digest = digest(&SHA256, value);
    digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Splits events so that none of a device comes before an older one of it was stored.
fn waves(events: &[Event]) -> VecDeque<Vec<&Event>> {
    let mut waves: VecDeque<Vec<&Event>> = VecDeque::new();
    let mut depths: BTreeMap<Option<Imei>, usize> = BTreeMap::new();
    for event in events {
        // Those of no device have no order to keep.
        let depth = depths.entry(event.imei).or_default();
        if waves.len() <= *depth {
            waves.push_back(Vec::new());
        }
        waves[*depth].push(event);
        *depth += usize::from(event.imei.is_some());
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Kind, samples};

    #[test]
    fn devices_events_keep_their_order_in_waves() {
        let event = |n: usize, at_ms| Event { at_ms, ..samples::event(n, Kind::Online) };
        let events = [event(1, 1), event(2, 2), event(1, 3), event(0, 4), event(0, 5), event(1, 6)];
        let waves: Vec<Vec<i64>> = waves(&events)
            .into_iter()
            .map(|wave| wave.into_iter().map(|event| event.at_ms).collect())
            .collect();
        assert_eq!(waves, [vec![1, 2, 4, 5], vec![3], vec![6]]);
    }
}
