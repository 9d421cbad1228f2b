//! `/api/openapi.json`: the description of this API for programs, OpenAPI 3.1. It is written by hand; a test holds it against a
//! running server.

use axum::http::header;
use axum::response::{IntoResponse, Response};

const DESCRIPTION: &str = include_str!("openapi.json");

pub(super) async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION).into_response()
}
