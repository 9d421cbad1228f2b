//! Brings what waits in the queue to the store: one thread, which alone waits for the disk.
//!
//! It lingers half a second after the first row, so that a storm of reconnects becomes a few transactions and an event is
//! in the store within a second. What cannot be stored waits and is tried again, until the store lets itself be written.

use std::fmt;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::queue::Queue;
use super::{Store, StoreError};
use crate::clock;
use crate::metrics::StoreMetrics;

/// How long the first row of a batch waits for others.
const LINGER: Duration = Duration::from_millis(500);
/// How soon a failed write is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The thread, from outside.
pub struct Writer {
    store: Arc<dyn Store>,
    queue: Arc<Queue>,
    trouble: Arc<Mutex<Option<StoreError>>>,
    stored: Arc<Notify>,
    thread: JoinHandle<()>,
    /// Says nothing; hangs up when the thread is done.
    done: Mutex<Receiver<()>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("thread", &self.thread).finish_non_exhaustive()
    }
}

/// How the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Why nothing is stored at the moment.
    pub trouble: Option<String>,
    /// How many rows wait.
    pub queued: usize,
    /// How many events were given up.
    pub lost: u64,
}

/// So many rows were not stored when the writer stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsaved(pub usize);

impl Writer {
    /// Stores what waits already, then starts the thread. So a server that makes its registry first has reserved its
    /// session ids before it gives any, and knows from the start whether the store can be written.
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub fn start(store: Arc<dyn Store>, queue: Arc<Queue>, metrics: StoreMetrics) -> io::Result<Self> {
        let (running, done) = mpsc::channel();
        let (trouble, stored) = (Arc::new(Mutex::new(None)), Arc::new(Notify::new()));
        let mut work = Work {
            store: Arc::clone(&store),
            queue: Arc::clone(&queue),
            metrics,
            trouble: Arc::clone(&trouble),
            stored: Arc::clone(&stored),
            told_lost: 0,
            counted_lost: 0,
        };
        // A failure is noted as any later one is, and what failed waits.
        let _ = work.store_all();
        work.count();
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || {
            work.run();
            // Whoever holds the store last closes it: not this thread, in which the process's end would cut it short.
            drop(work);
            drop(running);
        })?;
        Ok(Self { store, queue, trouble, stored, thread, done: Mutex::new(done) })
    }

    /// Rung after each batch that was stored.
    #[must_use]
    pub fn stored(&self) -> Arc<Notify> {
        Arc::clone(&self.stored)
    }

    /// How the store is.
    #[must_use]
    pub fn health(&self) -> Health {
        let backlog = self.store.backlog();
        let trouble = lock(&self.trouble).as_ref().map(ToString::to_string).or(backlog.trouble);
        let died = || {
            self.thread.is_finished().then(|| "the store's writer has ended: restart the server".to_owned())
        };
        Health {
            trouble: trouble.or_else(died),
            queued: self.queue.len() + backlog.rows,
            lost: self.queue.lost() + backlog.lost,
        }
    }

    /// Stores what waits and ends the thread. Blocks, but not longer than `patience`: a disk may hang.
    ///
    /// # Errors
    /// Some of it could not be stored.
    pub fn stop(&self, patience: Duration) -> Result<(), Unsaved> {
        self.queue.stop();
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(patience);
        match (done, self.queue.len()) {
            (Err(RecvTimeoutError::Disconnected), 0) => Ok(()),
            // A batch that hangs in the disk is not in the queue.
            (_, unsaved) => Err(Unsaved(unsaved.max(1))),
        }
    }
}

/// The thread's own.
struct Work {
    store: Arc<dyn Store>,
    queue: Arc<Queue>,
    metrics: StoreMetrics,
    trouble: Arc<Mutex<Option<StoreError>>>,
    stored: Arc<Notify>,
    /// Losses that the log has told.
    told_lost: u64,
    /// Losses that the metrics have.
    counted_lost: u64,
}

impl Work {
    fn run(&mut self) {
        loop {
            self.queue.wait_for_work();
            self.queue.linger(LINGER);
            let stopping = self.queue.is_stopping();
            let stored = self.store_all();
            self.count();
            match stored {
                Ok(()) if stopping && self.queue.is_empty() => return,
                Ok(()) => {}
                Err(()) if stopping => return,
                Err(()) => self.queue.rest(RETRY),
            }
        }
    }

    /// Until nothing waits, or the store refuses.
    fn store_all(&mut self) -> Result<(), ()> {
        loop {
            let batch = self.queue.take();
            if batch.is_empty() {
                return Ok(());
            }
            let began = clock::now().instant;
            let result = self.store.apply(&batch);
            self.metrics.write_seconds.observe(clock::now().instant.duration_since(began).as_secs_f64());
            let failed = result.is_err();
            if failed {
                self.metrics.failures.inc();
                self.queue.put_back(batch);
            } else {
                batch.events.iter().for_each(|event| self.metrics.stored(event.kind));
            }
            self.note(result.err());
            if failed {
                return Err(());
            }
            self.stored.notify_one();
        }
    }

    /// Tells the log when the store begins to fail, fails otherwise than before, or is well again.
    fn note(&mut self, now: Option<StoreError>) {
        let before = std::mem::replace(&mut *lock(&self.trouble), now.clone());
        if before == now {
            return;
        }
        match (before, now) {
            (_, Some(trouble)) => error!(
                "the store cannot be written: {trouble}. Sessions go on; what happens is kept in memory and stored later"
            ),
            (Some(_), None) => info!("the store can be written again"),
            (None, None) => {}
        }
    }

    fn count(&mut self) {
        let backlog = self.store.backlog();
        self.metrics.queue_length(self.queue.len() + backlog.rows);
        let lost = self.queue.lost() + backlog.lost;
        self.metrics.lost.inc_by(lost - self.counted_lost);
        self.counted_lost = lost;
        // The first loss at once, then each time it has doubled: a log is no counter.
        if lost > self.told_lost * 2 {
            warn!("{lost} events were given up so far: more waited to be stored than are kept in memory");
            self.told_lost = lost;
        }
    }
}

fn lock(trouble: &Mutex<Option<StoreError>>) -> MutexGuard<'_, Option<StoreError>> {
    trouble.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
