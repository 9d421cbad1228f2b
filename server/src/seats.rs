//! Seats: the admission's books as the listener, the connections and the drain share them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::admission::{Admission, Eviction};
use crate::exit::Exit;
use crate::metrics::Metrics;
use crate::session::Cause;

/// See the module.
pub struct Seats {
    books: Mutex<Admission<Arc<Exit>>>,
    /// Connections whose task still runs, those that were told to go included.
    taken: AtomicUsize,
    left: Notify,
    metrics: Arc<Metrics>,
}

/// A connection's place in the books; given back when it is dropped.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    registered: bool,
}

impl Seats {
    /// For so many connections at a time.
    #[must_use]
    pub fn new(capacity: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let books = Mutex::new(Admission::new(capacity));
        Arc::new(Self { books, taken: AtomicUsize::new(0), left: Notify::new(), metrics })
    }

    /// A seat for a new connection, and why another one was sent away for it, if one was. `None`: all are held by
    /// registered devices.
    pub(crate) fn take(
        self: &Arc<Self>,
        address: IpAddr,
        exit: &Arc<Exit>,
    ) -> Option<(Seat, Option<Eviction>)> {
        let mut books = self.lock();
        let admitted = books.admit(address, Arc::clone(exit))?;
        self.metrics.waiting(books.waiting());
        drop(books);
        let why = admitted.evicted.map(|(exit, why)| {
            exit.order(Cause::NoHello, Duration::ZERO);
            why
        });
        self.taken.fetch_add(1, Ordering::Relaxed);
        Some((Seat { seats: Arc::clone(self), number: admitted.seat, registered: false }, why))
    }

    /// Sends the connection away that has been silent for the longest; `false` when there is none.
    pub(crate) fn evict_oldest(&self) -> bool {
        let oldest = self.lock().evict_oldest();
        oldest.is_some_and(|exit| {
            exit.order(Cause::NoHello, Duration::ZERO);
            true
        })
    }

    /// Waits until a connection is over.
    pub(crate) async fn someone_left(&self) {
        self.left.notified().await;
    }

    /// Tells every connection that the server stops, and each device another moment of `window` to come back in: so they
    /// return one after the other and not all at once.
    pub fn dismiss(&self, window: Duration) -> usize {
        let books = self.lock();
        let all = u32::try_from(books.everyone().count()).unwrap_or(u32::MAX);
        for (index, exit) in (0..all).zip(books.everyone()) {
            exit.order(Cause::Stopping, window.mul_f64(f64::from(index) / f64::from(all)));
        }
        all as usize
    }

    /// Waits until the last connection is over.
    pub async fn all_left(&self) {
        while self.taken() > 0 {
            self.someone_left().await;
        }
    }

    /// How many connections are not over.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Admission<Arc<Exit>>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The connection said who it is: from now on it is never sent away for another.
    pub(crate) fn register(&mut self) {
        if !self.registered {
            self.registered = true;
            let mut books = self.seats.lock();
            books.register(self.number);
            self.seats.metrics.waiting(books.waiting());
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut books = self.seats.lock();
        books.leave(self.number);
        self.seats.metrics.waiting(books.waiting());
        drop(books);
        self.seats.taken.fetch_sub(1, Ordering::Release);
        self.seats.left.notify_one();
    }
}
