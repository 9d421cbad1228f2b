//! What is known of the fleet: the store that keeps it, the thread that writes it, the registry over both.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};

use super::Failure;
use crate::clock;
use crate::cluster::{Cluster, Joined};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::store::{Queue, Sqlite, Store, Unsaved, Writer};

/// See the module.
pub(super) struct Fleet {
    pub(super) registry: Arc<Registry>,
    pub(super) store: Arc<dyn Store>,
    pub(super) writer: Arc<Writer>,
    /// The other servers that share it, if there are any.
    pub(super) cluster: Option<Arc<Cluster>>,
}

impl Fleet {
    pub(super) async fn open(config: &Config, metrics: &Arc<Metrics>) -> Result<Self, Failure> {
        let Some(cluster) = &config.cluster else { return Self::alone(config, metrics) };
        let joined = Cluster::join(cluster, &config.store, config.retention).await;
        let joined =
            joined.map_err(|why| Failure::Start(format!("{}: cluster: {why}", config.file.display())))?;
        // The store waits for NATS, on this very thread.
        tokio::task::block_in_place(|| Self::of_several(joined, config, metrics))
    }

    fn alone(config: &Config, metrics: &Arc<Metrics>) -> Result<Self, Failure> {
        let no_store = |fault: &dyn std::fmt::Display| {
            Failure::Start(format!("{}: store.path: {fault}", config.file.display()))
        };
        let store =
            Sqlite::open(&config.store, config.retention, clock::now()).map_err(|fault| no_store(&fault))?;
        let known = store.load().map_err(|fault| no_store(&fault))?;
        info!("{} devices known in {}", known.devices.len(), config.store.display());
        Self::over(Arc::new(store), known, config, metrics)
    }

    fn of_several(joined: Joined, config: &Config, metrics: &Arc<Metrics>) -> Result<Self, Failure> {
        let store = Arc::clone(&joined.store);
        let known = store.load().map_err(|fault| Failure::Start(fault.to_string()))?;
        let cluster = Arc::clone(&joined.cluster);
        let fleet = Self::over(store, known, config, metrics)?;
        joined.begin(&fleet.registry, fleet.writer.stored());
        Ok(Self { cluster: Some(cluster), ..fleet })
    }

    fn over(
        store: Arc<dyn Store>,
        known: crate::store::Fleet,
        config: &Config,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, Failure> {
        let queue = Arc::new(Queue::new());
        let registry =
            Registry::new(known, config.register, Arc::clone(&queue), Arc::clone(metrics), clock::now());
        let writer = Writer::start(Arc::clone(&store), queue, metrics.store().clone())
            .map_err(|fault| Failure::Start(format!("no thread for the store: {fault}")))?;
        Ok(Self { registry: Arc::new(registry), store, writer: Arc::new(writer), cluster: None })
    }

    /// Stores what waits, as far as the disk lets it within `patience`.
    pub(super) async fn close(self, patience: Duration) {
        self.registry.release_ids();
        self.registry.save_slot(clock::now());
        let stopped = tokio::task::spawn_blocking(move || self.writer.stop(patience)).await;
        if let Ok(Err(Unsaved(count))) = stopped {
            error!("the store did not take the last {count} rows: they are lost");
        }
        if let Some(cluster) = self.cluster {
            // Who does not hear it takes this node for lost.
            cluster.leave(patience).await;
        }
    }
}
