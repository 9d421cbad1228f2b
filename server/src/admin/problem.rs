//! Errors as RFC 9457 has them: `application/problem+json`, in words that say what to do.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::error;

use crate::cluster::Unanswered;

/// Why a request gets no answer. `type` is `about:blank`, which it is when left out.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    pub(super) title: &'static str,
    status: u16,
    pub(super) detail: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    parameter: Option<Box<BadParameter>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<WrongLine>,
}

/// A line of a file that is wrong.
#[derive(Debug, Serialize)]
pub(super) struct WrongLine {
    /// From 1 on.
    pub(super) line: u64,
    /// What stands there, or its beginning.
    pub(super) value: String,
    /// What is wrong with it.
    pub(super) reason: String,
}

/// What of the query is wrong.
#[derive(Debug, Serialize)]
struct BadParameter {
    parameter: String,
    value: String,
    allowed: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: String) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self {
            title,
            status: status.as_u16(),
            detail,
            parameter: None,
            reasons: Vec::new(),
            lines: Vec::new(),
        }
    }

    pub(super) fn parameter(name: &str, value: &str, allowed: &str) -> Self {
        let detail = format!("{name}={value} is not possible: {name} is {allowed}");
        let bad =
            BadParameter { parameter: name.to_owned(), value: value.to_owned(), allowed: allowed.to_owned() };
        Self { parameter: Some(Box::new(bad)), ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }

    pub(super) fn lines(detail: String, lines: Vec<WrongLine>) -> Self {
        Self { lines, ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }

    pub(super) fn unavailable(reasons: Vec<String>) -> Self {
        Self { reasons, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is not ready".to_owned()) }
    }

    /// What was asked for is another server's to do, and that one gives no answer.
    pub(super) fn elsewhere(unanswered: &Unanswered) -> Self {
        let detail = format!("{unanswered}: what was decided holds from when it hears of it");
        Self::new(StatusCode::GATEWAY_TIMEOUT, detail)
    }

    /// A fault of this side, which is in the log too.
    pub(super) fn internal(fault: &dyn fmt::Display) -> Self {
        error!("an operator's request failed: {fault}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let media_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        // For whoever shows it to a person.
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}
