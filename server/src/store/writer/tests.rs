//! The writer over real stores: a file, and one whose disk is full.

use std::path::PathBuf;
use std::sync::Condvar;

use moorline_protocol::Imei;

use super::*;
use crate::clock::Now;
use crate::metrics::Metrics;
use crate::store::samples::{EVERYTHING, device, event};
use crate::store::{Batch, EventPage, EventQuery, Fleet, Hour, Kind, Memory, Retention, Settings, Slot};

/// A store that can be told to refuse, and that lets a test wait for what it has been asked.
#[derive(Debug)]
struct Disk {
    store: Memory,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    full: bool,
    stored: usize,
    refused: usize,
}

impl Disk {
    fn new(full: bool) -> Arc<Self> {
        Arc::new(Self {
            store: Memory::new(Retention::default()),
            state: Mutex::new(State { full, ..State::default() }),
            changed: Condvar::new(),
        })
    }

    fn wait_until(&self, reached: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        let waited =
            self.changed.wait_timeout_while(state, Duration::from_secs(20), |state| !reached(state)).unwrap();
        assert!(!waited.1.timed_out(), "{:?}", waited.0);
    }

    fn make_room(&self) {
        self.state.lock().unwrap().full = false;
    }
}

impl Store for Disk {
    fn load(&self) -> Result<Fleet, StoreError> {
        self.store.load()
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap();
        let result =
            if state.full { Err(StoreError::Failed("no room".to_owned())) } else { self.store.apply(batch) };
        match result {
            Ok(()) => state.stored += batch.len(),
            Err(_) => state.refused += 1,
        }
        self.changed.notify_all();
        result
    }

    fn keep(&self, settings: &[(Imei, Settings)]) -> Result<(), StoreError> {
        self.store.keep(settings)
    }

    fn backup(&self, now: Now) -> Result<PathBuf, StoreError> {
        self.store.backup(now)
    }

    fn events(&self, query: &EventQuery) -> Result<EventPage, StoreError> {
        self.store.events(query)
    }

    fn hours(&self, imei: Imei, since_ms: i64) -> Result<Vec<Hour>, StoreError> {
        self.store.hours(imei, since_ms)
    }

    fn slots(&self, since_ms: i64) -> Result<Vec<Slot>, StoreError> {
        self.store.slots(since_ms)
    }
}

fn start(disk: &Arc<Disk>) -> (Writer, Arc<Queue>, Metrics) {
    let (queue, metrics) = (Arc::new(Queue::new()), Metrics::new());
    let store: Arc<dyn Store> = Arc::<Disk>::clone(disk);
    let writer = Writer::start(store, Arc::clone(&queue), metrics.store().clone()).unwrap();
    (writer, queue, metrics)
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn what_waits_is_stored_before_the_start_is_over() {
    let (disk, queue) = (Disk::new(false), Arc::new(Queue::new()));
    queue.put_next_session_id(4711);
    let store: Arc<dyn Store> = Arc::<Disk>::clone(&disk);
    let _writer = Writer::start(store, queue, Metrics::new().store().clone()).unwrap();
    assert_eq!(disk.load().unwrap().next_session_id, 4711);
}

#[test]
fn rows_reach_the_store_unasked() {
    let disk = Disk::new(false);
    let (writer, queue, _) = start(&disk);
    queue.put_event(event(1, Kind::Online));
    queue.put_device(device(1));
    disk.wait_until(|state| state.stored == 2);
    assert_eq!(writer.stop(PATIENCE), Ok(()));
}

#[test]
fn stop_stores_what_waits() {
    let disk = Disk::new(false);
    let (writer, queue, _) = start(&disk);
    for _ in 0..20_000 {
        queue.put_event(event(1, Kind::Online));
    }
    assert_eq!(writer.stop(PATIENCE), Ok(()));
    assert_eq!(disk.events(&EVERYTHING).unwrap().events.len(), 20_000);
}

#[test]
fn full_disk_is_reported_and_its_rows_are_kept() {
    let disk = Disk::new(true);
    let (writer, queue, metrics) = start(&disk);
    queue.put_event(event(1, Kind::Online));
    disk.wait_until(|state| state.refused == 1);
    queue.put_event(event(1, Kind::Offline));
    // The third attempt comes when the second was noted.
    disk.wait_until(|state| state.refused == 3);
    let text = metrics.text().unwrap();
    assert!(text.contains("moorline_store_queue_length 2\n"), "{text}");
    assert!(!text.contains("moorline_store_failures_total 0\n"), "{text}");
    assert_eq!(writer.health().trouble.as_deref(), Some("no room"));
    disk.make_room();
    disk.wait_until(|state| state.stored == 2);
    let kinds: Vec<_> =
        disk.events(&EVERYTHING).unwrap().events.iter().map(|stored| stored.event.kind).collect();
    assert_eq!(kinds, [Kind::Online, Kind::Offline]);
    assert_eq!(writer.stop(PATIENCE), Ok(()));
    assert_eq!((writer.health().lost, writer.health().queued), (0, 0));
}

#[test]
fn stop_on_a_full_disk_says_what_is_lost() {
    let disk = Disk::new(true);
    let (writer, queue, _) = start(&disk);
    queue.put_event(event(1, Kind::Online));
    queue.put_event(event(1, Kind::Offline));
    assert_eq!(writer.stop(PATIENCE), Err(Unsaved(2)));
}

#[test]
fn storm_becomes_a_few_batches() {
    let disk = Disk::new(false);
    let (writer, queue, metrics) = start(&disk);
    for _ in 0..1_000 {
        queue.put_device(device(1));
        queue.put_event(event(1, Kind::Online));
    }
    disk.wait_until(|state| state.stored >= 1_001);
    let text = metrics.text().unwrap();
    let batches: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("moorline_store_write_seconds_count "))
        .and_then(|count| count.parse().ok())
        .unwrap();
    assert!(batches <= 5, "{batches}");
    assert_eq!(writer.stop(PATIENCE), Ok(()));
}
