//! `/api/events/stream`: events as they are stored, as server-sent events (HTML, section 9.2). Each has its id, so that
//! whoever was cut off comes back with Last-Event-ID and misses none.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Frame;
use moorline_protocol::Imei;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::warn;

use super::Operators;
use super::connections::Caller;
use super::feed::{Feed, Place, Tidings};
use super::problem::Problem;
use super::query::Parameters;
use crate::metrics::OperatorMetrics;
use crate::registry::Counts;
use crate::store::StoreError;

/// So often something is said, so that both ends know that the line stands.
const ALIVE: Duration = Duration::from_secs(15);
/// Said to those for whom there is no place.
const RETRY_AFTER_S: u16 = 5;
/// How long a browser waits before it comes back, in milliseconds.
const BEGINNING: &str = "retry: 2000\n\n";

pub(super) async fn stream(
    State(operators): State<Operators>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(&uri, &["after", "imei"])?;
    let after = match headers.get("last-event-id") {
        // It is what a browser saw last, and the query is where it once began.
        Some(id) => Some(read_id(id)?),
        None => parameters.number("after", 0..=i64::MAX)?,
    };
    let imei: Option<Imei> = parameters.parsed("imei", "an IMEI")?;
    let Some((tidings, place)) = operators.feed.join(caller.peer) else { return Ok(full()) };
    // As many may follow as there are places, and that many may ask for something else meanwhile.
    caller.leave_seat();
    let (sender, receiver) = mpsc::channel(1);
    let metrics = operators.metrics.operators().clone();
    let follower = Follower { feed: operators.feed, metrics, tidings, imei, sender, _place: place };
    tokio::spawn(follower.follow(after));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CONNECTION, HeaderValue::from_static("close")),
        // Or nginx collects it before it passes it on.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::new(Following(receiver))).into_response())
}

fn read_id(id: &HeaderValue) -> Result<i64, Problem> {
    let text = id.to_str().unwrap_or("?");
    let id = text.parse().ok().filter(|id| *id >= 0);
    id.ok_or_else(|| Problem::parameter("Last-Event-ID", text, "the id of an event"))
}

fn full() -> Response {
    let detail = "as many follow the events as there is room for, or as one address may: try again later, or ask for /api/events";
    let mut response = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail.to_owned()).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
    response
}

/// One who follows, from the server's side.
struct Follower {
    feed: Arc<Feed>,
    metrics: OperatorMetrics,
    tidings: watch::Receiver<Tidings>,
    imei: Option<Imei>,
    /// Takes one piece at a time: who does not listen is not told more.
    sender: mpsc::Sender<Bytes>,
    _place: Place,
}

/// He is gone, or the server goes.
struct Over;

impl Follower {
    async fn follow(mut self, after: Option<i64>) {
        self.metrics.stream_began();
        // Either way the stream ends; who wants to, comes back.
        let Err(Over) = self.tell_all(after).await;
        self.metrics.stream_ended();
    }

    async fn tell_all(&mut self, after: Option<i64>) -> Result<Infallible, Over> {
        self.tell(BEGINNING.into()).await?;
        let newest = self.tidings.borrow().newest;
        let mut after = after.unwrap_or(newest);
        if after > newest && after > self.feed.newest().await.map_err(|fault| cut_off(&fault))? {
            // Another database, or an older one that was put in its place.
            self.tell("event: anew\ndata: {}\n\n".into()).await?;
            after = 0;
        }
        let mut fleet = None;
        loop {
            let now = *self.tidings.borrow_and_update();
            if now.over {
                return Err(Over);
            }
            if self.imei.is_none() && fleet != Some(now.fleet) {
                fleet = Some(now.fleet);
                self.tell(counted(now.fleet)).await?;
            }
            while after < now.newest && !self.tidings.borrow().over {
                after = self.tell_after(after).await?;
            }
            self.wait().await?;
        }
    }

    /// Tells what came after this event, as much as goes at once; says up to which it did.
    async fn tell_after(&self, after: i64) -> Result<i64, Over> {
        let next = self.feed.after(after, self.imei).await.map_err(|fault| cut_off(&fault))?;
        if !next.text.is_empty() {
            self.tell(next.text).await?;
        }
        Ok(next.last)
    }

    /// Until there are tidings; says now and then that the line stands.
    async fn wait(&mut self) -> Result<(), Over> {
        loop {
            tokio::select! {
                () = self.sender.closed() => return Err(Over),
                changed = timeout(ALIVE, self.tidings.changed()) => match changed {
                    Ok(changed) => return changed.map_err(|_| Over),
                    Err(_) => self.tell(": alive\n\n".into()).await?,
                }
            }
        }
    }

    async fn tell(&self, text: Bytes) -> Result<(), Over> {
        self.sender.send(text).await.map_err(|_| Over)
    }
}

fn counted(fleet: Counts) -> Bytes {
    let Counts { known, online, blocked, quarantined, never_seen } = fleet;
    let counts = serde_json::json!({
        "known": known, "online": online, "blocked": blocked, "quarantined": quarantined, "never_seen": never_seen,
    });
    format!("event: fleet\ndata: {counts}\n\n").into()
}

fn cut_off(fault: &StoreError) -> Over {
    warn!("somebody who followed events was cut off: {fault}");
    Over
}

/// The same, as the body of an answer.
struct Following(mpsc::Receiver<Bytes>);

impl HttpBody for Following {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|text| text.map(|text| Ok(Frame::data(text))))
    }
}
