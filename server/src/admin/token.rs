//! Asks operators for a token, where `[operators] token_file` names some.
//!
//! Programs send it as `Authorization: Bearer`. A browser asks a person for name and password and sends Basic: the token is
//! the password, under any name. Who comes by the Unix socket was let in by the file's permissions. `/healthz` is for load
//! balancers, which have no token, and says nothing but that the process answers.

use std::net::Ipv6Addr;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::connections::{Caller, Peer};
use super::problem::Problem;
use crate::access::{Gate, Refused};

const OPEN: &str = "/healthz";

/// The answer to somebody who is not let in.
pub(super) fn refusal(gate: &Gate, request: &Request) -> Option<Response> {
    let source = match request.extensions().get::<Caller>().map(|caller| caller.peer) {
        Some(Peer::Socket) => return None,
        Some(Peer::Address(source)) => source,
        None => Ipv6Addr::UNSPECIFIED.into(),
    };
    if request.uri().path() == OPEN {
        return None;
    }
    let shown = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    gate.judge(shown, source).err().map(answer)
}

fn answer(refused: Refused) -> Response {
    let detail = match refused {
        Refused::NoToken => "a token is asked for: Authorization: Bearer TOKEN, or as the password of Basic",
        Refused::WrongToken => "the token is wrong",
        Refused::TooMany(_) => {
            "too many wrong tokens came from this address: none from there is looked at for now"
        }
    };
    if let Refused::TooMany(wait) = refused {
        let seconds = wait.as_secs() + 1;
        let mut response = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail.to_owned()).into_response();
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        return response;
    }
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, detail.to_owned()).into_response();
    for scheme in ["Bearer realm=\"moorline\"", "Basic realm=\"moorline\", charset=\"UTF-8\""] {
        response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
    }
    response
}
