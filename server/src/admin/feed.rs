//! What was stored just now, for all who follow it: read from the store once, kept ready as text, and handed to each at his
//! own pace. Who is too far behind reads the store by himself until he has caught up, so a slow one costs no memory.

mod places;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use moorline_protocol::Imei;
use tokio::sync::{Notify, watch};
use tracing::warn;

use super::connections::Peer;
use super::events::EventView;
use crate::registry::{Counts, Registry};
use crate::store::{EventPage, EventQuery, Store, StoreError, StoredEvent};
pub(super) use places::Place;
use places::Places;

/// How many of the newest events are kept ready: about 2 MB.
const READY: usize = 4096;
/// How many are read from the store, or handed to one who follows, at once.
const PAGE: usize = 256;

/// See the module.
pub struct Feed {
    store: Arc<dyn Store>,
    /// Rung after each batch that was stored.
    stored: Arc<Notify>,
    ready: Mutex<Ready>,
    tidings: watch::Sender<Tidings>,
    places: Arc<Places>,
}

/// What those who follow wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tidings {
    /// The newest event that can be had.
    pub(super) newest: i64,
    pub(super) fleet: Counts,
    /// The server stops.
    pub(super) over: bool,
}

/// All events after `floor`, up to the newest.
#[derive(Default)]
struct Ready {
    floor: i64,
    events: VecDeque<Told>,
}

/// An event as it is sent.
struct Told {
    id: i64,
    imei: Option<Imei>,
    text: Box<str>,
}

/// What comes next for one who follows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// As it is sent; may be empty, where nothing is of the wanted device.
    pub(super) text: Bytes,
    /// All up to this id is in it.
    pub(super) last: i64,
}

impl Feed {
    /// Of what `store` holds; `stored` is rung when that is more. `fleet` is as it is now.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn new(store: Arc<dyn Store>, stored: Arc<Notify>, fleet: Counts) -> Result<Self, StoreError> {
        let newest = store.events(&EventQuery { after: None, imei: None, limit: 1 })?.newest;
        let tidings = Tidings { newest, fleet, over: false };
        Ok(Self {
            store,
            stored,
            ready: Mutex::new(Ready { floor: newest, events: VecDeque::new() }),
            tidings: watch::Sender::new(tidings),
            places: Arc::default(),
        })
    }

    /// Reads what is stored, as it is; never ends.
    pub(super) async fn run(&self, registry: &Registry) {
        loop {
            if let Err(fault) = self.read_new().await {
                warn!("those who follow events wait: {fault}");
            }
            let fleet = registry.counts();
            self.tidings.send_if_modified(|tidings| {
                let newest = self.lock().newest();
                let news = tidings.newest != newest || tidings.fleet != fleet;
                (tidings.newest, tidings.fleet) = (newest, fleet);
                news
            });
            self.stored.notified().await;
        }
    }

    /// Tells all who follow that the server stops.
    pub(super) fn end(&self) {
        self.tidings.send_modify(|tidings| tidings.over = true);
    }

    /// A place among those who follow, where there is one for who comes from there.
    pub(super) fn join(&self, peer: Peer) -> Option<(watch::Receiver<Tidings>, Place)> {
        let place = self.places.take(peer)?;
        Some((self.tidings.subscribe(), place))
    }

    /// The newest event that is stored; those who asked the store may know it before it can be had here.
    pub(super) async fn newest(&self) -> Result<i64, StoreError> {
        Ok(self.read(i64::MAX, None).await?.newest)
    }

    /// What came after the event `after`, or the first part of it.
    pub(super) async fn after(&self, after: i64, imei: Option<Imei>) -> Result<Next, StoreError> {
        if let Some(next) = self.lock().after(after, imei) {
            return Ok(next);
        }
        let EventPage { events, newest } = self.read(after, imei).await?;
        // A page that is not full ends where the store does.
        let last = if events.len() < PAGE { newest } else { events.last().map_or(newest, |event| event.id) };
        let mut text = String::new();
        events.into_iter().for_each(|event| text.push_str(&Told::from(event).text));
        Ok(Next { text: text.into(), last })
    }

    async fn read_new(&self) -> Result<(), StoreError> {
        if self.tidings.receiver_count() == 0 {
            // Nothing is made ready for nobody: in a storm that is much of what the server does beside cryptography, and
            // whoever comes reads from the store what is before the floor.
            let newest = self.newest().await?;
            *self.lock() = Ready { floor: newest, events: VecDeque::new() };
            return Ok(());
        }
        loop {
            let newest = self.lock().newest();
            let page = self.read(newest, None).await?;
            let full = page.events.len() >= PAGE;
            self.lock().push(page.events);
            if !full {
                return Ok(());
            }
        }
    }

    async fn read(&self, after: i64, imei: Option<Imei>) -> Result<EventPage, StoreError> {
        let (store, query) = (Arc::clone(&self.store), EventQuery { after: Some(after), imei, limit: PAGE });
        let read = tokio::task::spawn_blocking(move || store.events(&query)).await;
        read.unwrap_or_else(|fault| Err(StoreError::Failed(fault.to_string())))
    }

    fn lock(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ready {
    fn newest(&self) -> i64 {
        self.events.back().map_or(self.floor, |told| told.id)
    }

    fn push(&mut self, events: Vec<StoredEvent>) {
        self.events.extend(events.into_iter().map(Told::from));
        while self.events.len() > READY {
            self.floor = self.events.pop_front().map_or(self.floor, |told| told.id);
        }
    }

    /// Nothing, where that is no longer here.
    fn after(&self, after: i64, imei: Option<Imei>) -> Option<Next> {
        if after < self.floor {
            return None;
        }
        let begin = self.events.partition_point(|told| told.id <= after);
        let mut next = Next { text: Bytes::new(), last: after };
        let mut text = String::new();
        for told in self.events.range(begin..).take(PAGE) {
            next.last = told.id;
            if imei.is_none() || told.imei == imei {
                text.push_str(&told.text);
            }
        }
        next.text = text.into();
        Some(next)
    }
}

impl From<StoredEvent> for Told {
    fn from(stored: StoredEvent) -> Self {
        let (id, imei) = (stored.id, stored.event.imei);
        let mut text = String::new();
        // Neither fails: a `String` takes everything, and an event is a plain object.
        let json = serde_json::to_string(&EventView::from(stored)).unwrap_or_default();
        let _ = write!(text, "id: {id}\ndata: {json}\n\n");
        Self { id, imei, text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::{event, imei};
    use crate::store::{Batch, Kind, Memory, Retention};

    fn ids(text: &Bytes) -> Vec<i64> {
        let text = str::from_utf8(text).unwrap();
        text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().unwrap()).collect()
    }

    fn store(feed: &Feed, numbers: &[usize]) {
        let events = numbers.iter().map(|number| event(*number, Kind::Online)).collect();
        feed.store.apply(&Batch { events, ..Batch::default() }).unwrap();
    }

    fn feed() -> Feed {
        Feed::new(Arc::new(Memory::new(Retention::default())), Arc::default(), Counts::default()).unwrap()
    }

    async fn all_after(feed: &Feed, mut after: i64, imei: Option<Imei>) -> Vec<i64> {
        let mut all = Vec::new();
        loop {
            let next = feed.after(after, imei).await.unwrap();
            all.extend(ids(&next.text));
            if next.last == after {
                return all;
            }
            after = next.last;
        }
    }

    #[tokio::test]
    async fn events_come_from_memory_and_older_ones_from_the_store() {
        let feed = feed();
        store(&feed, &vec![1; 300]);
        let old = Feed::new(Arc::clone(&feed.store), Arc::default(), Counts::default()).unwrap();
        let _following = old.join(Peer::Socket);
        store(&old, &[1, 2, 1]);
        old.read_new().await.unwrap();
        assert_eq!(old.lock().events.len(), 3);
        assert_eq!(all_after(&old, 300, None).await, [301, 302, 303]);
        assert_eq!(all_after(&old, 301, Some(imei(1))).await, [303]);
        assert_eq!(all_after(&old, 0, None).await, (1..=303).collect::<Vec<_>>());
        assert_eq!(all_after(&old, 0, Some(imei(2))).await, [302]);
        assert_eq!(all_after(&old, 303, None).await, [0; 0]);
    }

    #[tokio::test]
    async fn memory_is_bounded_and_nobody_misses_anything() {
        let feed = feed();
        let following = feed.join(Peer::Socket);
        let many = READY + 1000;
        store(&feed, &vec![1; many]);
        feed.read_new().await.unwrap();
        assert_eq!(feed.lock().events.len(), READY);
        assert_eq!(feed.lock().floor, 1000);
        let all: Vec<_> = (1..=i64::try_from(many).unwrap()).collect();
        assert_eq!(all_after(&feed, 0, None).await, all);
        drop(following);
        store(&feed, &[1]);
        feed.read_new().await.unwrap();
        assert_eq!(feed.lock().events.capacity(), 0, "nothing is kept for nobody");
        let _following = feed.join(Peer::Socket);
        assert_eq!(all_after(&feed, 0, None).await.len(), many + 1);
    }
}
