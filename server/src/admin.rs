//! The operators' HTTP: the page, the API, the metrics. It reads the registry and the store, and changes what is decided
//! of devices; it knows no device connection.
//!
//! It has no users: whoever is let in may look and steer. Who that is, `access` knows. It answers only to names that a
//! foreign web page cannot have, and takes no orders from one (see `guard`). It asks the store on blocking threads, never on
//! those that serve devices.

mod backup;
mod change;
mod connections;
mod devices;
mod events;
mod feed;
mod guard;
mod health;
mod heartbeat;
mod history;
mod import;
mod nodes;
mod openapi;
mod page;
mod problem;
mod query;
mod standing;
mod stream;
mod time;
mod token;
mod usage;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};

use crate::access::Gate;
use crate::cluster::Cluster;
use crate::metrics::{self, Metrics, Tables};
use crate::registry::Registry;
use crate::store::{Store, Writer};
pub use connections::Doors;
pub(crate) use events::EventView;
pub use feed::Feed;
pub use health::Readiness;
use problem::Problem;

/// What operators are shown.
#[derive(Clone)]
pub struct Operators {
    /// Who is online, and what is known of every device.
    pub registry: Arc<Registry>,
    /// What happened.
    pub store: Arc<dyn Store>,
    /// How storing goes.
    pub writer: Arc<Writer>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How full the tables are that devices fill; the look may wait for the disk.
    pub tables: Arc<dyn Fn() -> Tables + Send + Sync>,
    /// What was stored just now.
    pub feed: Arc<Feed>,
    /// Whether devices are served.
    pub readiness: Arc<Readiness>,
    /// Held by whoever changes something.
    pub changes: Arc<Mutex<()>>,
    /// The other servers that share the fleet, if there are any.
    pub cluster: Option<Arc<Cluster>>,
    /// Held by whoever takes a backup.
    pub backup: Arc<tokio::sync::Mutex<()>>,
}

/// Serves operators until `shutdown`, then lets answers in progress finish for a moment.
pub(crate) async fn serve(
    doors: Doors,
    operators: Operators,
    gate: Arc<Gate>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (feed, registry) = (Arc::clone(&operators.feed), Arc::clone(&operators.registry));
    let shutdown = async {
        shutdown.await;
        feed.end();
    };
    let router = router(operators, Arc::clone(&gate));
    tokio::select! {
        () = connections::serve(doors, router, gate, shutdown) => {}
        () = feed.run(&registry) => {}
    }
}

fn router(operators: Operators, gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/", get(page::fleet))
        .route("/devices/{imei}", get(page::device))
        .route("/assets/page.js", get(page::script))
        .route("/assets/page.css", get(page::style))
        .route("/assets/icon.svg", get(page::icon))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(show_metrics))
        .route(
            "/api/devices",
            get(devices::list).post(import::add).layer(DefaultBodyLimit::max(import::MAX_BODY)),
        )
        .route("/api/devices/{imei}", get(devices::one))
        .route("/api/openapi.json", get(openapi::description))
        .route("/api/backup", post(backup::make))
        .route("/api/nodes", get(nodes::list))
        .route("/api/fleet", get(history::fleet))
        .route("/api/devices/{imei}/history", get(history::device))
        .route("/api/devices/{imei}/state", put(standing::set))
        .route("/api/devices/{imei}/label", put(standing::label))
        .route("/api/devices/{imei}/drop", post(standing::drop_session))
        .route("/api/devices/{imei}/heartbeat", put(heartbeat::set).delete(heartbeat::clear))
        .route("/api/events", get(events::list))
        .route("/api/events/stream", get(stream::stream))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(change::MAX_BODY))
        .layer(middleware::from_fn_with_state(gate, guard::guard))
        .layer(middleware::from_fn(page::show_problems))
        .with_state(operators)
}

async fn show_metrics(State(operators): State<Operators>) -> Result<Response, Problem> {
    // Not where devices are served: counting the open descriptors takes the kernel a while.
    let look = tokio::task::spawn_blocking(move || {
        health::note(&operators);
        operators.metrics.text()
    });
    let text =
        look.await.map_err(|fault| Problem::internal(&fault))?.map_err(|fault| Problem::internal(&fault))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no {}; / lists what there is", uri.path()))
}

async fn not_allowed(method: Method) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not possible here; Allow in this answer names what is"),
    )
}

#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod tests;
