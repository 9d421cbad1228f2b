//! Tells another program what happens: events out of the store, as CloudEvents, in their order, each at least once.
//!
//! ```text
//!   Store ── after the cursor ──► envelope ──► signature ──► post ──► the receiver
//!                  ▲                                           │ 2xx
//!                  └────────────────── cursor ◄────────────────┘
//! ```
//!
//! One thread, which waits for the receiver, the name servers and the disk; nobody waits for it. One request is on its way at
//! a time, so that events of a device never overtake each other. What is not taken is posted again for as long as the store
//! keeps it; where a request ended in doubt, the receiver sees an event again, under the same id.

mod cursor;
mod envelope;
mod pace;
mod post;
mod settings;
mod signature;

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tracing::{error, info, warn};

use crate::clock;
use crate::metrics::WebhookMetrics;
use crate::store::{EventQuery, Store, StoredEvent};
use cursor::Cursor;
pub use cursor::SharedCursor;
use post::{Fault, Outcome, Poster};
pub use settings::WebhookSettings;
use signature::Secrets;

/// How soon a new event is seen. What happens is stored in batches of half a second anyway.
const LOOK: Duration = Duration::from_secs(1);
/// Events of one request at most: 50 KB or so.
const MAX_BATCH: usize = 100;
/// The trouble of events that the receiver will never take.
const REFUSED: &str = "refused";

/// The thread, from outside: it ends when this is dropped, and leaves what is on its way to the next start.
#[derive(Debug)]
pub struct Webhook {
    /// Never sent on.
    _running: Sender<()>,
}

impl Webhook {
    /// Begins where the last server left off; the first time, with what happens from now on. Of servers that share a fleet the
    /// one whose turn it is posts.
    ///
    /// # Errors
    /// The file that says where that was is damaged, the store cannot be read, or there are no threads.
    pub fn start(
        settings: WebhookSettings,
        store: Arc<dyn Store>,
        metrics: WebhookMetrics,
        shared: Option<Box<dyn SharedCursor>>,
    ) -> Result<Self, String> {
        let poster = Poster::new(&settings)?;
        let cursor = match shared {
            Some(shared) => {
                info!("events are posted to {} by one of the nodes at a time", settings.shown());
                Cursor::shared(shared)
            }
            None => own_cursor(&settings, &*store)?,
        };
        let (running, stopped) = mpsc::channel();
        let mut work = Work { settings, store, metrics, cursor, poster, batch: MAX_BATCH, trouble: None };
        let begun = thread::Builder::new().name("webhook".to_owned()).spawn(move || work.run(&stopped));
        begun.map_err(|fault: io::Error| format!("no thread for the webhook: {fault}"))?;
        Ok(Self { _running: running })
    }
}

fn own_cursor(settings: &WebhookSettings, store: &dyn Store) -> Result<Cursor, String> {
    let newest = store.events(&EventQuery { after: None, imei: None, limit: 1 });
    let cursor = Cursor::open(&settings.cursor, newest.map_err(|fault| fault.to_string())?.newest)?;
    info!("events after {} are posted to {}", cursor.at(), settings.shown());
    Ok(cursor)
}

/// The thread's own.
struct Work {
    settings: WebhookSettings,
    store: Arc<dyn Store>,
    metrics: WebhookMetrics,
    cursor: Cursor,
    poster: Poster,
    /// Events of a request at most, while the receiver does not take whole ones.
    batch: usize,
    trouble: Option<Trouble>,
}

/// What goes wrong at the moment.
struct Trouble {
    attempts: u32,
    reason: &'static str,
}

/// What comes after a round.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// There may be more.
    AtOnce,
    After(Duration),
}

impl Work {
    fn run(&mut self, stopped: &Receiver<()>) {
        loop {
            let wait = match self.round() {
                Next::AtOnce => Duration::ZERO,
                Next::After(wait) => wait,
            };
            if stopped.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    /// Posts what comes next, if there is anything.
    fn round(&mut self) -> Next {
        match self.cursor.take() {
            Ok(true) => {}
            Ok(false) => {
                self.metrics.oldest_waiting(None);
                return Next::After(LOOK);
            }
            Err(text) => return self.failed(Fault::new("store", text)),
        }
        let query = EventQuery { after: Some(self.cursor.at()), imei: None, limit: self.batch };
        let events = match self.store.events(&query) {
            Ok(page) => page.events,
            Err(fault) => return self.failed(Fault::new("store", fault.to_string())),
        };
        let Some(last) = events.last().map(|stored| stored.id) else {
            self.metrics.oldest_waiting(None);
            return Next::After(LOOK);
        };
        let lost = (last - self.cursor.at()) - i64::try_from(events.len()).unwrap_or(i64::MAX);
        let wanted: Vec<StoredEvent> =
            events.into_iter().filter(|stored| self.settings.wants(stored.event.kind)).collect();
        let outcome = match &wanted[..] {
            [] => ControlFlow::Continue(Outcome::Taken),
            [oldest, ..] => {
                self.metrics.oldest_waiting(Some(oldest.event.at_ms));
                self.post(&wanted)
            }
        };
        match outcome {
            ControlFlow::Break(fault) | ControlFlow::Continue(Outcome::Failed(fault)) => {
                return self.failed(fault);
            }
            ControlFlow::Continue(Outcome::Taken) => self.taken(&wanted),
            ControlFlow::Continue(Outcome::Refused(_)) if wanted.len() > 1 => {
                // One of them is to blame, and the others must not go with it.
                self.batch = (self.batch / 2).max(1);
                return Next::AtOnce;
            }
            ControlFlow::Continue(Outcome::Refused(status)) => self.refused(&wanted, status),
        }
        if lost > 0 {
            warn!(
                "up to {lost} events before {last} were not posted: the store had given them up before the receiver took them"
            );
            self.metrics.lost(lost.unsigned_abs());
        }
        self.advance(last, !wanted.is_empty() || lost > 0);
        Next::AtOnce
    }

    fn post(&self, wanted: &[StoredEvent]) -> ControlFlow<Fault, Outcome> {
        // Read anew each time, so that a secret is replaced without a restart.
        let secrets = match Secrets::read(&self.settings.secret) {
            Ok(secrets) => secrets,
            Err(text) => return ControlFlow::Break(Fault::new("secret", text)),
        };
        let message = envelope::of(wanted, &self.settings.source);
        ControlFlow::Continue(self.poster.post(&message, &secrets, clock::now()))
    }

    fn taken(&mut self, wanted: &[StoredEvent]) {
        if wanted.is_empty() {
            return;
        }
        self.metrics.delivered(wanted.len());
        self.batch = (self.batch * 2).min(MAX_BATCH);
        if self.trouble.take().is_some() {
            info!("the webhook's receiver takes events again");
        }
    }

    /// The log tells the first of a row, the metrics count all.
    fn refused(&mut self, wanted: &[StoredEvent], status: u16) {
        self.metrics.refused(wanted.len());
        let trouble = self.trouble.replace(Trouble { attempts: 0, reason: REFUSED });
        if trouble.is_none_or(|trouble| trouble.reason != REFUSED) {
            for StoredEvent { id, event } in wanted {
                let kind = event.kind.as_str();
                warn!("event {id} ({kind}) is passed over: the webhook's receiver answered {status} to it");
            }
        }
    }

    /// Has the log told when it begins to fail or fails otherwise than before, and says when to try again.
    fn failed(&mut self, fault: Fault) -> Next {
        let Fault { reason, text, retry_after } = fault;
        self.metrics.failed(reason);
        let trouble = self.trouble.get_or_insert(Trouble { attempts: 0, reason: "" });
        trouble.attempts = trouble.attempts.saturating_add(1);
        if trouble.reason != reason {
            trouble.reason = reason;
            warn!("events are not posted to {}: {text}. They wait in the store", self.settings.shown());
        }
        Next::After(pace::pause(trouble.attempts, chance(), retry_after))
    }

    fn advance(&mut self, to: i64, matters: bool) {
        self.cursor.advance(to);
        if (matters || self.cursor.is_far_ahead())
            && let Err(fault) = self.cursor.keep()
        {
            error!(
                "how far events were posted cannot be kept ({fault}): after a restart, some are posted again"
            );
        }
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without chance, many servers would come back in step: no more than that.
    let _ = SystemRandom::new().fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
