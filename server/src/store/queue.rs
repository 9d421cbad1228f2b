//! What waits to be stored: bounded, and never a reason for a session to wait. It knows no store and no thread.
//!
//! Device rows coalesce, one per device, so there are never more than devices. Events are counted: when the store has
//! been failing for so long that they are too many, the oldest are given up and the loss is counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moorline_protocol::Imei;

use super::history::{Report, Slot};
use super::record::{Device, Event};
use super::settings::Settings;

/// Events of devices that may wait: about 10 MB at the worst.
pub const MAX_EVENTS: usize = 65_536;
/// Refusals that may wait, apart, since anybody can bring them about: about 1 MB at the worst.
pub const MAX_REFUSALS: usize = 4_096;
/// Slots that may wait: a day's.
const MAX_SLOTS: usize = 288;
/// What one transaction takes at most, so that none takes long.
const MAX_BATCH: usize = 8_192;

/// What one transaction stores.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Device rows, new or changed.
    pub devices: Vec<Device>,
    /// What the server itself decided of devices.
    pub settings: Vec<(Imei, Settings)>,
    /// What devices told of themselves.
    pub reports: Vec<(Imei, Report)>,
    /// The fleet's slots, the oldest first.
    pub slots: Vec<Slot>,
    /// Events, in the order in which they happened.
    pub events: Vec<Event>,
    /// No session has this id or a higher one; `None`: as it was.
    pub next_session_id: Option<u64>,
}

impl Batch {
    /// How many rows there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.devices.len()
            + self.settings.len()
            + self.reports.len()
            + self.slots.len()
            + self.events.len()
            + self.next_session_id.is_some() as usize
    }

    /// Whether there is nothing to store.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The queue between the registry and the writer.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    devices: BTreeMap<Imei, Device>,
    settings: BTreeMap<Imei, Settings>,
    reports: BTreeMap<Imei, Report>,
    slots: BTreeMap<i64, Slot>,
    events: VecDeque<Numbered>,
    refusals: VecDeque<Numbered>,
    next_session_id: Option<u64>,
    /// The numbers before and after all that wait; they order the events of both lines.
    first_number: i64,
    last_number: i64,
    lost: u64,
    stopping: bool,
}

/// The number is the event's place among those of both lines.
#[derive(Debug)]
struct Numbered(i64, Event);

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A device is new or has changed. A row of the same device that still waits is replaced.
    pub fn put_device(&self, device: Device) {
        self.change(|waiting| {
            waiting.devices.insert(device.imei, device);
        });
    }

    /// The server decided something of a device. An older decision that still waits is replaced.
    pub fn put_settings(&self, imei: Imei, settings: Settings) {
        self.change(|waiting| {
            waiting.settings.insert(imei, settings);
        });
    }

    /// A device told how it is. An older word that still waits is replaced.
    pub fn put_report(&self, imei: Imei, report: Report) {
        self.change(|waiting| {
            waiting.reports.insert(imei, report);
        });
    }

    /// So it was in these five minutes, beside what was told of them before.
    pub fn put_slot(&self, slot: Slot) {
        self.change(|waiting| waiting.add_slot(slot));
    }

    /// Something happened.
    pub fn put_event(&self, event: Event) {
        self.change(|waiting| waiting.push(event));
    }

    /// From now on no session has this id or a higher one.
    pub fn put_next_session_id(&self, id: u64) {
        self.change(|waiting| waiting.next_session_id = Some(id));
    }

    /// How many rows wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many events were given up so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// The next batch, not more than one transaction should take; empty when nothing waits.
    pub(crate) fn take(&self) -> Batch {
        let mut waiting = self.lock();
        let mut batch = Batch { next_session_id: waiting.next_session_id.take(), ..Batch::default() };
        while batch.len() < MAX_BATCH
            && let Some(event) = waiting.pop_event()
        {
            batch.events.push(event);
        }
        while batch.len() < MAX_BATCH
            && let Some((_, device)) = waiting.devices.pop_first()
        {
            batch.devices.push(device);
        }
        while batch.len() < MAX_BATCH
            && let Some(decided) = waiting.settings.pop_first()
        {
            batch.settings.push(decided);
        }
        while batch.len() < MAX_BATCH
            && let Some(told) = waiting.reports.pop_first()
        {
            batch.reports.push(told);
        }
        batch.slots = std::mem::take(&mut waiting.slots).into_values().collect();
        batch
    }

    /// A batch could not be stored: it waits again, before what came meanwhile.
    pub(super) fn put_back(&self, batch: Batch) {
        let mut waiting = self.lock();
        if waiting.next_session_id.is_none() {
            waiting.next_session_id = batch.next_session_id;
        }
        for device in batch.devices {
            waiting.devices.entry(device.imei).or_insert(device);
        }
        for (imei, settings) in batch.settings {
            waiting.settings.entry(imei).or_insert(settings);
        }
        for (imei, report) in batch.reports {
            waiting.reports.entry(imei).or_insert(report);
        }
        for slot in batch.slots {
            let later = waiting.slots.remove(&slot.at_ms);
            waiting.add_slot(later.map_or(slot, |later| slot.then(later)));
        }
        for event in batch.events.into_iter().rev() {
            waiting.push_front(event);
        }
    }

    /// Waits until something is there to be stored, or the queue is told to stop.
    pub(super) fn wait_for_work(&self) {
        let waiting = self.lock();
        let idle = |waiting: &mut Waiting| waiting.len() == 0 && !waiting.stopping;
        drop(self.changed.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits so long, but not longer than until the queue is told to stop or holds a full batch.
    pub(super) fn linger(&self, time: Duration) {
        let waiting = self.lock();
        let early = |waiting: &mut Waiting| !waiting.stopping && waiting.len() < MAX_BATCH;
        drop(self.changed.wait_timeout_while(waiting, time, early).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits so long, but not longer than until the queue is told to stop.
    pub(super) fn rest(&self, time: Duration) {
        let waiting = self.lock();
        let resting = |waiting: &mut Waiting| !waiting.stopping;
        drop(self.changed.wait_timeout_while(waiting, time, resting).unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Changes what waits, and wakes the writer where that tells it something new: an end of idleness, or a full batch.
    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.lock();
        change(&mut waiting);
        if waiting.len() == 1 || waiting.len() >= MAX_BATCH {
            self.changed.notify_one();
        }
    }

    /// A panic elsewhere leaves the queue whole: every change to it is one call that cannot panic half-way.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn len(&self) -> usize {
        let ids = usize::from(self.next_session_id.is_some());
        let rows = self.devices.len() + self.settings.len() + self.reports.len() + self.slots.len();
        rows + self.events.len() + self.refusals.len() + ids
    }

    fn add_slot(&mut self, slot: Slot) {
        self.slots.entry(slot.at_ms).and_modify(|before| *before = before.then(slot)).or_insert(slot);
        if self.slots.len() > MAX_SLOTS {
            self.slots.pop_first();
        }
    }

    const fn line_of(&mut self, event: &Event) -> (&mut VecDeque<Numbered>, usize) {
        if event.kind.is_refusal() {
            (&mut self.refusals, MAX_REFUSALS)
        } else {
            (&mut self.events, MAX_EVENTS)
        }
    }

    fn push(&mut self, event: Event) {
        self.last_number += 1;
        let number = self.last_number;
        let (line, most) = self.line_of(&event);
        let full = line.len() >= most;
        if full {
            line.pop_front();
        }
        line.push_back(Numbered(number, event));
        self.lost += u64::from(full);
    }

    /// Goes before all others; when there is no room, it is itself the oldest and so the one to be given up.
    fn push_front(&mut self, event: Event) {
        let (line, most) = self.line_of(&event);
        let full = line.len() >= most;
        if full {
            self.lost += 1;
            return;
        }
        self.first_number -= 1;
        let number = self.first_number;
        self.line_of(&event).0.push_front(Numbered(number, event));
    }

    fn pop_event(&mut self) -> Option<Event> {
        let number_of = |line: &VecDeque<Numbered>| line.front().map_or(i64::MAX, |numbered| numbered.0);
        let refusal_first = number_of(&self.refusals) < number_of(&self.events);
        let line = if refusal_first { &mut self.refusals } else { &mut self.events };
        line.pop_front().map(|Numbered(_, event)| event)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Kind;
    use super::*;

    fn event(kind: Kind, at_ms: i64) -> Event {
        Event {
            at_ms,
            kind,
            imei: None,
            session_id: None,
            address: None,
            certificate: None,
            cause: None,
            text: None,
        }
    }

    fn times(batch: &Batch) -> Vec<i64> {
        batch.events.iter().map(|event| event.at_ms).collect()
    }

    #[test]
    fn events_of_both_lines_keep_their_order() {
        let queue = Queue::new();
        for (at_ms, kind) in
            [Kind::Online, Kind::Refused, Kind::Offline, Kind::Refused].into_iter().enumerate()
        {
            queue.put_event(event(kind, at_ms as i64));
        }
        let batch = queue.take();
        assert_eq!(times(&batch), [0, 1, 2, 3]);
        queue.put_event(event(Kind::Online, 4));
        queue.put_back(batch);
        assert_eq!(times(&queue.take()), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn full_queue_gives_up_the_oldest_and_counts_them() {
        let queue = Queue::new();
        for at_ms in 0..(MAX_EVENTS as i64 + 3) {
            queue.put_event(event(Kind::Online, at_ms));
        }
        assert_eq!((queue.len(), queue.lost()), (MAX_EVENTS, 3));
        assert_eq!(times(&queue.take()).first(), Some(&3));
    }

    #[test]
    fn flood_of_refusals_pushes_no_other_event_out() {
        let queue = Queue::new();
        queue.put_event(event(Kind::Online, 0));
        for at_ms in 1..=(MAX_REFUSALS as i64 * 2) {
            queue.put_event(event(Kind::Refused, at_ms));
        }
        assert_eq!((queue.len(), queue.lost()), (1 + MAX_REFUSALS, MAX_REFUSALS as u64));
        assert_eq!(times(&queue.take()).first(), Some(&0));
    }

    #[test]
    fn returned_batch_gives_way_to_newer_events() {
        let queue = Queue::new();
        queue.put_event(event(Kind::Online, -1));
        let batch = queue.take();
        for at_ms in 0..(MAX_EVENTS as i64) {
            queue.put_event(event(Kind::Online, at_ms));
        }
        queue.put_back(batch);
        assert_eq!((queue.len(), queue.lost()), (MAX_EVENTS, 1));
        assert_eq!(times(&queue.take()).first(), Some(&0));
    }

    #[test]
    fn batch_is_bounded() {
        let queue = Queue::new();
        for at_ms in 0..(MAX_BATCH as i64 + 1) {
            queue.put_event(event(Kind::Online, at_ms));
        }
        assert_eq!(queue.take().len(), MAX_BATCH);
        assert_eq!(queue.take().len(), 1);
        assert!(queue.take().is_empty());
    }
}
