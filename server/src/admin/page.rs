//! The page: the fleet at `/`, one device at `/devices/IMEI`, and what both look like.
//!
//! It is made here, whole, at each request: it can be read, searched and leafed through without a script. The script keeps it
//! true (it fetches the page anew when events come, and takes over what has changed) and sends what operators order to the API.
//! Every text that a peer chose is escaped by maud, and the policy in `guard` lets no script run but this one.

mod chart;
mod device;
mod fleet;
mod words;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Operators;
use super::problem::Problem;
use crate::store::{EventQuery, Store};
pub(super) use device::device;
pub(super) use fleet::fleet;

const SCRIPT: &str = include_str!("page/page.js");
const STYLE: &str = include_str!("page/page.css");
const ICON: &str = include_str!("page/icon.svg");

pub(super) async fn script() -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT).into_response()
}

pub(super) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

pub(super) async fn icon() -> Response {
    ([(header::CONTENT_TYPE, "image/svg+xml")], ICON).into_response()
}

/// What a page is made of. Its parts that have an id and `data-live` are kept true by the script.
struct Page {
    title: String,
    /// Where the script hears of what comes.
    stream: Option<String>,
    content: Markup,
}

impl Page {
    fn render(self) -> Html<String> {
        let Self { title, stream, content } = self;
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) }
                    link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                    link rel="stylesheet" href="/assets/page.css";
                    script src="/assets/page.js" defer {}
                }
                body data-stream=[stream] {
                    a.skip href="#content" { "Skip to content" }
                    header.top {
                        a.brand href="/" { (PreEscaped(ICON)) "Moorline" }
                        p #live role="status" hidden {}
                    }
                    main #content tabindex="-1" { (content) }
                    footer {
                        span { "moorline-server " (env!("CARGO_PKG_VERSION")) }
                        nav aria-label="For programs" {
                            a href="/api/devices" { "/api/devices" } " "
                            a href="/api/events" { "/api/events" } " "
                            a href="/metrics" { "/metrics" } " "
                            a href="/readyz" { "/readyz" }
                        }
                    }
                }
            }
        };
        Html(page.into_string())
    }
}

/// Where the script hears what comes after the newest event, which has to be read before what the page shows.
fn stream_after(store: &dyn Store, more: &str) -> Result<String, Problem> {
    let page = store.events(&EventQuery { after: None, imei: None, limit: 1 });
    let newest = page.map_err(|fault| Problem::internal(&fault))?.newest;
    Ok(format!("/api/events/stream?after={newest}{more}"))
}

/// Reads what a page shows where waiting for a disk holds up nobody.
async fn look<T: Send + 'static>(
    operators: Operators,
    look: impl FnOnce(&Operators) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let looked = tokio::task::spawn_blocking(move || look(&operators)).await;
    looked.map_err(|fault| Problem::internal(&fault))?
}

/// Shows people a page where programs get a problem.
pub(super) async fn show_problems(request: Request, next: Next) -> Response {
    let is_for_people = wants_page(request.headers());
    let mut response = next.run(request).await;
    let problem = response.extensions_mut().remove::<Arc<Problem>>();
    let Some(problem) = problem.filter(|_| is_for_people) else { return response };
    let (mut head, _) = response.into_parts();
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    head.headers.remove(header::CONTENT_LENGTH);
    let content = html! {
        section.problem {
            h1 { (problem.title) }
            p { (problem.detail) }
            p { a href="/" { "All devices" } }
        }
    };
    let page = Page { title: format!("{} · Moorline", problem.title), stream: None, content };
    Response::from_parts(head, Body::from(page.render().0))
}

/// Browsers name HTML first; programs do not, or take anything.
fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let first = accepted.and_then(|value| value.split([',', ';']).next());
    first.is_some_and(|first| first.trim().eq_ignore_ascii_case("text/html"))
}

#[cfg(test)]
mod tests;
