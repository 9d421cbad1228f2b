//! `/healthz`: whether the process answers. `/readyz`: whether it does what it is there for.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Operators;
use super::problem::Problem;
use crate::registry::Counts;
use crate::store::Health;

/// Whether devices are served; set by whoever opens and closes the device port.
#[derive(Debug, Default)]
pub struct Readiness {
    accepting: AtomicBool,
}

impl Readiness {
    /// The device port was opened, or closed.
    pub fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting, Ordering::Relaxed);
    }
}

#[derive(Serialize)]
pub(super) struct Ready {
    ready: bool,
    online: usize,
    /// Rows that wait to be stored.
    queued: usize,
    /// Events that were never stored since the start.
    lost_events: u64,
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(operators): State<Operators>) -> Result<Json<Ready>, Problem> {
    let health = operators.writer.health();
    let reasons = reasons(&operators, &health);
    if !reasons.is_empty() {
        return Err(Problem::unavailable(reasons));
    }
    let online = operators.registry.online();
    Ok(Json(Ready { ready: true, online, queued: health.queued, lost_events: health.lost }))
}

/// Has the metrics show how it is right now: a writer that hangs in the disk does not count what waits for it.
pub(super) fn note(operators: &Operators) {
    let health = operators.writer.health();
    operators.metrics.ready(reasons(operators, &health).is_empty());
    operators.metrics.store().queue_length(health.queued);
    if let Some(cluster) = &operators.cluster {
        let heard = cluster.nodes().iter().filter(|node| node.is_heard).count();
        operators.metrics.cluster(heard, health.trouble.is_none() && cluster.trouble().is_none());
    }
    operators.metrics.tables().found((operators.tables)());
    operators.metrics.tables().texts(operators.registry.shared_texts());
    let Counts { known, blocked, quarantined, .. } = operators.registry.counts();
    for (state, devices) in
        [("active", known - blocked - quarantined), ("blocked", blocked), ("quarantined", quarantined)]
    {
        operators.metrics.devices(state, devices);
    }
}

/// Why the server cannot do its work; empty when it can.
fn reasons(operators: &Operators, health: &Health) -> Vec<String> {
    let closed = !operators.readiness.accepting.load(Ordering::Relaxed);
    let port = closed.then(|| "devices are not accepted: the server starts or stops".to_owned());
    port.into_iter().chain(of_storing(operators, health)).collect()
}

/// Why operators see less than there is.
pub(super) fn troubles(operators: &Operators) -> Vec<String> {
    of_storing(operators, &operators.writer.health())
}

fn of_storing(operators: &Operators, health: &Health) -> Vec<String> {
    let store = health.trouble.as_ref().map(|trouble| {
        format!(
            "the store cannot be written: {trouble} ({} rows wait, {} were lost)",
            health.queued, health.lost
        )
    });
    let cluster = operators.cluster.as_ref().and_then(|cluster| cluster.trouble());
    store.into_iter().chain(cluster).collect()
}
