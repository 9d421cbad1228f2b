//! What every request passes and every answer gets: protection of a page that has no password from other web pages.
//!
//! A web page elsewhere can point its own name at a loopback address (DNS rebinding) and have the browser of somebody who
//! may look here ask for it. The browser then sends that name as Host. So requests are answered only when their Host is an
//! address or `localhost`, which no foreign page has. Without that trick a page elsewhere can still have a browser send what
//! changes something, though not read the answer. Browsers then name the page's Origin, so that has to be this server itself.

use std::net::{IpAddr, Ipv6Addr};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::Problem;

const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

pub(super) async fn guard(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let checked = check_host(request.version(), headers, request.uri().authority())
        .and_then(|()| if request.method().is_safe() { Ok(()) } else { check_origin(headers) });
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    response.headers_mut().extend(HEADERS);
    response
}

fn check_host(
    version: Version,
    headers: &HeaderMap,
    target: Option<&axum::http::uri::Authority>,
) -> Result<(), Problem> {
    let named = headers.get(header::HOST).map(HeaderValue::to_str);
    let host = match (target, named) {
        // An absolute target counts more than the header (RFC 9112 section 3.2.2).
        (Some(authority), _) => authority.as_str(),
        (None, Some(Ok(host))) => host,
        // No browser leaves it out; a port check by hand does.
        (None, None) if version == Version::HTTP_10 => return Ok(()),
        (None, None | Some(Err(_))) => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "the request has no valid Host".to_owned()));
        }
    };
    if is_nobody_elses(host) {
        return Ok(());
    }
    let detail = format!(
        "requests for {} are not answered: use localhost or an address; a proxy in front has to send such a Host",
        host.escape_debug()
    );
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail))
}

/// Lets programs pass, which send neither header, and pages of this server.
fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let named = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = named("host").unwrap_or_default();
    let own_origin = named("origin").is_none_or(|origin| origin.strip_prefix("http://") == Some(host));
    let own_site = named("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"));
    if own_origin && own_site {
        return Ok(());
    }
    let detail = "a web page of another site may not change anything here".to_owned();
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

/// Whether no foreign page can be of this host: `localhost` (RFC 6761 section 6.3), or an address, with or without a port.
fn is_nobody_elses(host: &str) -> bool {
    if let Some(bracketed) = host.strip_prefix('[') {
        let address = bracketed.split_once(']').map(|(address, _)| address);
        return address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_answered() {
        for host in ["localhost", "LocalHost:9090", "127.0.0.1:9090", "10.0.0.5", "[::1]:9090", "[fe80::1]"] {
            assert!(is_nobody_elses(host), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let may = |pairs: &[(&'static str, &'static str)]| {
            let mut headers =
                HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("127.0.0.1:9090"))]);
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            check_origin(&headers).is_ok()
        };
        assert!(may(&[]));
        assert!(may(&[("origin", "http://127.0.0.1:9090"), ("sec-fetch-site", "same-origin")]));
        for foreign in ["http://evil.example", "null", "http://127.0.0.1:8080", "https://127.0.0.1:9090", ""]
        {
            assert!(!may(&[("origin", foreign)]), "{foreign}");
        }
        for foreign in ["cross-site", "same-site", "anything"] {
            assert!(!may(&[("sec-fetch-site", foreign)]), "{foreign}");
        }
    }

    #[test]
    fn names_that_somebody_may_own_are_not() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9090",
            "[::1.evil.example]",
            "[::1",
            "",
            "1",
            "localhost.",
        ] {
            assert!(!is_nobody_elses(host), "{host}");
        }
    }
}
