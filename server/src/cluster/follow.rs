//! Follows what the nodes share: rows go to the registry, rows and events to this node's copy. Begins anew after every
//! failure, and misses nothing: of rows only the last matters, and events are asked for after the last one in the copy.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::kv::{Entry, Operation, Watch};
use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tracing::warn;

use super::nats::{Nats, Standing};
use super::rows::Rows;
use super::wire::{self, Held};
use crate::clock;
use crate::registry::Registry;
use crate::store::{Batch, Sqlite, StoredEvent};

/// How long a first row waits for others, so that the copy takes them in one transaction.
const LINGER: Duration = Duration::from_millis(50);
/// How many at most.
const MOST: usize = 4096;
/// After so long a silence it is looked whether there is more: a consumer that dies with its NATS server says nothing.
const QUIET: Duration = Duration::from_secs(5);
/// How far back a node tells again of its own devices when NATS has another leader.
const TOLD_AGAIN: Duration = Duration::from_secs(120);
/// How soon what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What follows, and whom it tells.
pub(super) struct Follower {
    pub(super) nats: Arc<Nats>,
    pub(super) rows: Arc<Mutex<Rows>>,
    pub(super) registry: Arc<Registry>,
    pub(super) copy: Arc<Sqlite>,
    /// Rung after each batch that is in the copy.
    pub(super) stored: Arc<Notify>,
    /// Of the copy.
    pub(super) trouble: Mutex<Trouble>,
}

impl Follower {
    /// Never ends. `watch` has told everything up to this number.
    pub(super) async fn rows(self: Arc<Self>, mut watch: Watch, last: u64) {
        self.follow_rows(&mut watch, last).await;
        let (mut pace, mut trouble) = (again(), Trouble::of("NATS"));
        loop {
            pace.tick().await;
            let told = self.nats.watch_fleet().await;
            if let Some(mut told) = trouble.note(told, "what other nodes tell is not heard") {
                // What the last leader took on its way down may be gone.
                self.registry.tell_again(TOLD_AGAIN, clock::now());
                self.follow_rows(&mut told, 0).await;
            }
        }
    }

    /// Never ends.
    pub(super) async fn events(self: Arc<Self>, mut last: u64) {
        let (mut pace, mut trouble) = (again(), Trouble::of("NATS"));
        loop {
            pace.tick().await;
            let told = self.nats.events_after(last).await;
            if let Some(mut told) = trouble.note(told, "events of other nodes are not heard") {
                last = self.follow_events(&mut told, last).await;
            }
        }
    }

    /// Until it fails, falls silent while there is more, or NATS has another leader: then all is read anew, for what comes just
    /// before and after may be missing.
    async fn follow_rows(&self, told: &mut Watch, mut last: u64) {
        let begun = self.nats.fleet_standing().await.unwrap_or_default();
        let mut looked = clock::now().instant;
        loop {
            let first = timeout(QUIET, told.next()).await;
            let now = clock::now().instant;
            if now.duration_since(looked) >= QUIET {
                looked = now;
                let standing = self.nats.fleet_standing().await;
                let is_behind = |standing: &Standing| first.is_err() && standing.last > last;
                if standing.is_ok_and(|standing| standing.leader != begun.leader || is_behind(&standing)) {
                    return;
                }
            }
            let first = match first {
                Ok(Some(Ok(first))) => first,
                Ok(_) => return,
                Err(_) => continue,
            };
            let mut batch = Batch::default();
            last = self.take(&first, &mut batch);
            // It ends when the time is over.
            let _ = timeout(LINGER, async {
                while batch.len() < MOST
                    && let Some(Ok(entry)) = told.next().await
                {
                    last = self.take(&entry, &mut batch);
                }
            })
            .await;
            self.keep(batch, Vec::new()).await;
        }
    }

    /// The same; returns the number of the last one.
    async fn follow_events(&self, told: &mut pull::Ordered, mut last: u64) -> u64 {
        loop {
            let first = match timeout(QUIET, told.next()).await {
                Ok(Some(Ok(first))) => first,
                Ok(_) => return last,
                Err(_) if self.nats.last_event().await.is_ok_and(|newest| newest > last) => return last,
                Err(_) => continue,
            };
            let mut batch = Vec::new();
            last = read(&first, &mut batch).unwrap_or(last);
            let _ = timeout(LINGER, async {
                while batch.len() < MOST
                    && let Some(Ok(message)) = told.next().await
                {
                    last = read(&message, &mut batch).unwrap_or(last);
                }
            })
            .await;
            self.keep(Batch::default(), batch).await;
        }
    }

    /// What one row tells the registry goes there at once. Returns its number.
    fn take(&self, entry: &Entry, batch: &mut Batch) -> u64 {
        if entry.operation == Operation::Put {
            self.take_row(entry, batch);
        }
        entry.revision
    }

    fn take_row(&self, entry: &Entry, batch: &mut Batch) {
        let rows = || self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        match read_row(entry) {
            Held::Device(row) => {
                if !rows().device(&row, entry.revision) {
                    // NATS was set back to an older word than its last.
                    return self.registry.tell_again_of(row.device.imei);
                }
                self.registry.learn(row.device.clone(), clock::now());
                batch.devices.push(row.device);
            }
            Held::Settings(imei, settings) => {
                rows().decision(imei, settings.revision, entry.revision);
                self.registry.follow(imei, settings.clone());
                batch.settings.push((imei, settings));
            }
            Held::Report(imei, report) => {
                self.registry.learn_report(imei, report.clone());
                batch.reports.push((imei, report));
            }
            Held::Other => {}
        }
    }

    /// Until the copy has them.
    async fn keep(&self, batch: Batch, events: Vec<StoredEvent>) {
        let (mut work, mut pace) = ((batch, events), again());
        loop {
            pace.tick().await;
            let copy = Arc::clone(&self.copy);
            let kept = tokio::task::spawn_blocking(move || {
                let kept = copy.follow(&work.0, &work.1);
                (work, kept)
            });
            let Ok((back, kept)) = kept.await else { return };
            let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            if trouble.note(kept, "operators of this node see what was until now").is_some() {
                break;
            }
            work = back;
        }
        self.stored.notify_one();
    }
}

/// What goes wrong is told once, until it is well again.
pub(super) struct Trouble {
    of: &'static str,
    is_told: bool,
}

impl Trouble {
    pub(super) const fn of(of: &'static str) -> Self {
        Self { of, is_told: false }
    }

    /// What came of a try; `meanwhile` is what that means.
    pub(super) fn note<T>(&mut self, tried: Result<T, impl fmt::Display>, meanwhile: &str) -> Option<T> {
        match tried {
            Ok(done) => {
                self.is_told = false;
                Some(done)
            }
            Err(fault) => {
                if !std::mem::replace(&mut self.is_told, true) {
                    warn!("{}: {fault}: {meanwhile}", self.of);
                }
                None
            }
        }
    }
}

/// A first try at once, and others at this pace.
pub(super) fn again() -> Interval {
    let mut pace = interval(AGAIN);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// What the row says; one that cannot be read says nothing.
pub(super) fn read_row(entry: &Entry) -> Held {
    wire::read_held(&entry.key, &entry.value).unwrap_or_else(|| {
        warn!("NATS: the row {} is none that this version knows: it is passed over", entry.key);
        Held::Other
    })
}

/// The event's number.
pub(super) fn read(message: &async_nats::jetstream::Message, batch: &mut Vec<StoredEvent>) -> Option<u64> {
    let number = message.info().ok()?.stream_sequence;
    if let Some(event) = wire::read_event(&message.payload) {
        batch.push(StoredEvent { id: number.cast_signed(), event });
    }
    Some(number)
}
