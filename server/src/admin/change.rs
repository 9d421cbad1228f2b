//! How operators change what is decided of a device: on the disk first, then in memory, so that what was answered holds. One
//! change comes after the other, and bodies are bounded in length and time.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request};
use axum::http::{HeaderMap, StatusCode, header};
use moorline_protocol::Imei;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::Operators;
use super::devices::{self, DeviceView};
use super::problem::Problem;
use crate::clock;
use crate::store::{Settings, StoreError};

/// The longest body, but for one that adds devices.
pub(super) const MAX_BODY: usize = 4 * 1024;
/// How long it may take: it holds one of the operators' few connections.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes of what was decided of a device what is to be decided.
pub(super) async fn change(
    operators: Operators,
    imei: Imei,
    edit: impl Fn(Settings) -> Settings + Send + 'static,
) -> Result<Json<DeviceView>, Problem> {
    let (registry, cluster) = (Arc::clone(&operators.registry), operators.cluster.clone());
    let changed = alone(operators, move |operators| {
        let Operators { registry, store, .. } = operators;
        loop {
            let before = registry.settings(imei).ok_or_else(|| devices::unknown(imei))?;
            let revision = before.revision.wrapping_add(1);
            let after = edit(before.clone());
            if after == before {
                break;
            }
            let after = Settings { revision, ..after };
            store.keep(&[(imei, after.clone())]).map_err(|fault| not_kept(&fault))?;
            // The registry may have decided something itself meanwhile: then that is what is to be changed.
            if registry.decide(imei, after, clock::now()).is_ok() {
                break;
            }
        }
        devices::find(registry, imei)
    });
    let shown = changed.await?;
    // What was answered holds, at whichever server the device is.
    if let Some((cluster, node)) = cluster.zip(registry.holder(imei)) {
        let settled = cluster.settled(node, imei, shown.settings.revision).await;
        settled.map_err(|unanswered| Problem::elsewhere(&unanswered))?;
    }
    Ok(Json(shown.into()))
}

/// Does what waits for the disk, while no other change is made; whoever asked may hang up meanwhile without leaving half of it.
pub(super) async fn alone<T: Send + 'static>(
    operators: Operators,
    work: impl FnOnce(&Operators) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let work = tokio::task::spawn_blocking(move || {
        let _alone = operators.changes.lock().unwrap_or_else(PoisonError::into_inner);
        work(&operators)
    });
    work.await.map_err(|fault| Problem::internal(&fault))?
}

pub(super) fn not_kept(fault: &StoreError) -> Problem {
    let detail = format!("the store cannot be written, so nothing was changed: {fault}");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

/// A body that is an object of JSON; `form` shows one.
pub(super) async fn read_json<T: DeserializeOwned>(request: Request, form: &str) -> Result<T, Problem> {
    let body = read_body(request, "application/json", MAX_BODY, BODY_TIMEOUT).await?;
    // serde takes an array for an object with its fields in order; here nothing is meant by its place.
    let read = match serde_json::from_slice(&body) {
        Ok(_) if !body.trim_ascii_start().starts_with(b"{") => Err("it is no object".to_owned()),
        read => read.map_err(|fault| fault.to_string()),
    };
    read.map_err(|why| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is not of the form {form}: {why}"))
    })
}

/// A body of this media type, which no form of a web page can have.
pub(super) async fn read_body(
    request: Request,
    media_type: &str,
    most: usize,
    patience: Duration,
) -> Result<Bytes, Problem> {
    if !is_of(request.headers(), media_type) {
        let detail = format!("the body has to be of the media type {media_type}, and Content-Type to say so");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let Ok(body) = timeout(patience, Bytes::from_request(request, &())).await else {
        let detail = format!("the body did not come within {} s", patience.as_secs());
        return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
    };
    body.map_err(|rejection| {
        let detail = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => format!("the body is longer than {most} bytes"),
            _ => rejection.body_text(),
        };
        Problem::new(rejection.status(), detail)
    })
}

fn is_of(headers: &HeaderMap, media_type: &str) -> bool {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let found = named.and_then(|value| value.split(';').next());
    found.is_some_and(|found| found.trim().eq_ignore_ascii_case(media_type))
}
