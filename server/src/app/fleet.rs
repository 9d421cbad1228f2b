//! What is known of the fleet: the store that keeps it, the thread that writes it, the registry over both.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};

use super::Failure;
use crate::clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::store::{Queue, Sqlite, Store, Unsaved, Writer};

/// See the module.
pub(super) struct Fleet {
    pub(super) registry: Arc<Registry>,
    pub(super) store: Arc<dyn Store>,
    pub(super) writer: Arc<Writer>,
}

impl Fleet {
    pub(super) fn open(config: &Config, metrics: &Arc<Metrics>) -> Result<Self, Failure> {
        let no_store = |fault: &dyn std::fmt::Display| {
            Failure::Start(format!("{}: store.path: {fault}", config.file.display()))
        };
        let store =
            Sqlite::open(&config.store, config.retention, clock::now()).map_err(|fault| no_store(&fault))?;
        let known = store.load().map_err(|fault| no_store(&fault))?;
        info!("{} devices known in {}", known.devices.len(), config.store.display());
        let (store, queue): (Arc<dyn Store>, _) = (Arc::new(store), Arc::new(Queue::new()));
        let registry =
            Registry::new(known, config.register, Arc::clone(&queue), Arc::clone(metrics), clock::now());
        let writer = Writer::start(Arc::clone(&store), queue, metrics.store().clone())
            .map_err(|fault| Failure::Start(format!("no thread for the store: {fault}")))?;
        Ok(Self { registry: Arc::new(registry), store, writer: Arc::new(writer) })
    }

    /// Stores what waits, as far as the disk lets it within `patience`.
    pub(super) async fn close(self, patience: Duration) {
        self.registry.release_ids();
        self.registry.save_slot(clock::now());
        let stopped = tokio::task::spawn_blocking(move || self.writer.stop(patience)).await;
        if let Ok(Err(Unsaved(count))) = stopped {
            error!("the disk did not take the last {count} rows for the store: they are lost");
        }
    }
}
