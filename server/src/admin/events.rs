//! `/api/events`: what happened, in the order in which it did.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;

use super::Operators;
use super::problem::Problem;
use super::query::Parameters;
use super::time::Time;
use crate::store::{Event, EventQuery, StoredEvent};

const MAX_LIMIT: usize = 1000;
const DEFAULT_LIMIT: usize = 100;

#[derive(Serialize)]
pub(super) struct EventList {
    events: Vec<EventView>,
    /// Ask for `after=` this id to get what comes after these.
    next: i64,
    /// The newest id there is, of any device. One below what was asked for says that the store began anew.
    newest: i64,
}

#[derive(Serialize)]
pub(crate) struct EventView {
    id: i64,
    at: Time,
    imei: Option<String>,
    kind: &'static str,
    session_id: Option<u64>,
    address: Option<String>,
    certificate: Option<Box<str>>,
    cause: Option<String>,
    text: Option<Box<str>>,
}

pub(super) async fn list(State(operators): State<Operators>, uri: Uri) -> Result<Json<EventList>, Problem> {
    let parameters = Parameters::read(&uri, &["after", "imei", "limit"])?;
    let query = EventQuery {
        after: parameters.number("after", 0..=i64::MAX)?,
        imei: parameters.parsed("imei", "an IMEI")?,
        limit: parameters.number("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT),
    };
    let look = tokio::task::spawn_blocking(move || operators.store.events(&query));
    let page =
        look.await.map_err(|fault| Problem::internal(&fault))?.map_err(|fault| Problem::internal(&fault))?;
    // A last page that is not full ends where the store does, whatever the filter left out.
    let full = page.events.len() >= query.limit;
    let last = page.events.last().map(|stored| stored.id).filter(|_| full);
    let next = last.unwrap_or(page.newest);
    let events = page.events.into_iter().map(EventView::from).collect();
    Ok(Json(EventList { events, next, newest: page.newest }))
}

impl From<StoredEvent> for EventView {
    fn from(StoredEvent { id, event }: StoredEvent) -> Self {
        let Event { at_ms, kind, imei, session_id, address, certificate, cause, text } = event;
        Self {
            id,
            at: Time(at_ms),
            imei: imei.map(|imei| imei.to_string()),
            kind: kind.as_str(),
            session_id,
            address: address.map(|address| address.to_string()),
            certificate,
            cause: cause.map(|cause| cause.to_string()),
            text,
        }
    }
}
