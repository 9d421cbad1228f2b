//! What happens goes to NATS at once, and where NATS does not answer at once, by way of this node's disk.
//!
//! ```text
//!   Writer ──► Outbox ──► Publisher ──► NATS
//!                 │            ▲
//!                 └──► Spool ──┘     while NATS is away, slow or full
//! ```
//!
//! While anything waits in the spool nothing goes past it, so the order holds. What is sent a second time, since nobody knows
//! what became of the first, NATS takes once: see `publish`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::timeout;
use tracing::{error, info};

use super::follow::again;
use super::nats::NatsError;
use super::publish::Publisher;
use super::spool::{Spool, Spooled};
use crate::store::{Backlog, Batch, StoreError};

/// What NATS does not take within this goes to the disk. Together with what the queue lingers that is less than a second.
const AT_ONCE: Duration = Duration::from_millis(400);

/// See the module.
pub(super) struct Outbox {
    publisher: Publisher,
    spool: Spool,
    /// Whether the spool is being emptied.
    is_waiting: Mutex<bool>,
    /// Rung when it is.
    emptied: Notify,
    /// Why nothing is taken at the moment.
    trouble: Mutex<Option<StoreError>>,
    runtime: Handle,
}

/// A batch on its way.
type Sending = JoinHandle<Result<(), NatsError>>;

impl Outbox {
    /// What waits in the spool already waits for [`Self::begin`], and all that comes until then.
    pub(super) fn new(publisher: Publisher, spool: Spool) -> Self {
        let is_waiting = Mutex::new(spool.len() > 0);
        let (trouble, runtime) = (Mutex::default(), Handle::current());
        Self { publisher, spool, is_waiting, emptied: Notify::new(), trouble, runtime }
    }

    pub(super) const fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Tells what an earlier process left.
    pub(super) fn begin(self: &Arc<Self>) {
        if self.is_waiting() {
            info!("{} rows waited on the disk to be told", self.spool.len());
            self.runtime.spawn(Arc::clone(self).empty(None));
        }
    }

    /// Takes a batch: it is in NATS or on the disk when this returns. For one thread, which may wait.
    pub(super) fn take(self: &Arc<Self>, batch: &Batch) -> Result<(), StoreError> {
        {
            let is_waiting = lock(&self.is_waiting);
            if *is_waiting {
                return self.spool.put(batch).map(drop);
            }
        }
        let (this, own) = (Arc::clone(self), batch.clone());
        let mut sending = self.runtime.spawn(async move {
            this.publisher.tell(&own.events).await?;
            this.publisher.put(&own).await
        });
        let sent = self.runtime.block_on(async { timeout(AT_ONCE, &mut sending).await });
        let begun = match sent.map(outcome) {
            Ok(Ok(())) => {
                self.note(None);
                return Ok(());
            }
            Ok(Err(fault)) => {
                self.note(Some(fault));
                None
            }
            Err(_) => Some(sending),
        };
        match self.spool.put(batch) {
            Ok(last) => {
                *lock(&self.is_waiting) = true;
                self.runtime.spawn(Arc::clone(self).empty(begun.map(|sending| (sending, last))));
                Ok(())
            }
            // It waits in memory then.
            Err(fault) => match begun {
                Some(sending) => outcome(self.runtime.block_on(sending)),
                None => Err(fault),
            },
        }
    }

    /// Waits until nothing is on the disk.
    pub(super) async fn emptied(&self) {
        while self.is_waiting() {
            self.emptied.notified().await;
        }
    }

    pub(super) fn backlog(&self) -> Backlog {
        let trouble = lock(&self.trouble).as_ref().map(ToString::to_string);
        Backlog { trouble, rows: self.spool.len(), lost: self.spool.lost() }
    }

    /// Sends what is in the spool until there is nothing. `begun` is what is on its way, with its last number.
    async fn empty(self: Arc<Self>, begun: Option<(Sending, i64)>) {
        if let Some((sending, last)) = begun {
            let sent = outcome(sending.await);
            let sent = sent.and_then(|()| block_in_place(|| self.spool.remove(last)));
            self.note(sent.err());
        }
        let mut pace = again();
        pace.tick().await;
        while !block_in_place(|| self.is_empty()) {
            let sent = self.send_oldest().await;
            let failed = sent.is_err();
            self.note(sent.err());
            if failed {
                pace.tick().await;
            }
        }
    }

    async fn send_oldest(&self) -> Result<(), StoreError> {
        let Some(Spooled { batch, last }) = block_in_place(|| self.spool.oldest())? else { return Ok(()) };
        self.publisher.tell(&batch.events).await.map_err(|fault| failed(&fault))?;
        // By themselves: while rows are not taken for long, events must not be sent again and again.
        block_in_place(|| self.spool.remove_events(last))?;
        self.publisher.put(&batch).await.map_err(|fault| failed(&fault))?;
        block_in_place(|| self.spool.remove(last))
    }

    /// If so, what comes next goes to NATS at once.
    fn is_empty(&self) -> bool {
        let mut is_waiting = lock(&self.is_waiting);
        *is_waiting = self.spool.len() > 0;
        if !*is_waiting {
            self.emptied.notify_one();
        }
        !*is_waiting
    }

    fn is_waiting(&self) -> bool {
        *lock(&self.is_waiting)
    }

    /// Tells the log when it begins to fail, fails otherwise than before, or is well again.
    fn note(&self, now: Option<StoreError>) {
        let before = std::mem::replace(&mut *lock(&self.trouble), now.clone());
        match (before, now) {
            (before, Some(trouble)) if before.as_ref() != Some(&trouble) => {
                error!("{trouble}: sessions go on; what happens waits on this node's disk and is told later");
            }
            (Some(_), None) => info!("NATS takes what happens again: {} rows waited", self.spool.len()),
            _ => {}
        }
    }
}

fn outcome(sent: Result<Result<(), NatsError>, tokio::task::JoinError>) -> Result<(), StoreError> {
    match sent {
        Ok(sent) => sent.map_err(|fault| failed(&fault)),
        Err(_) => Err(failed(&NatsError("what sends to it has ended".to_owned()))),
    }
}

pub(super) fn failed(fault: &NatsError) -> StoreError {
    StoreError::Failed(format!("NATS: {fault}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
