//! What every request passes and every answer gets: protection from web pages of other sites, then the token where one is
//! asked for (see `token`).
//!
//! A web page elsewhere can point its own name at this server's address (DNS rebinding) and have the browser of somebody who
//! may look here ask for it. The browser then sends that name as Host. So requests are answered only when their Host is an
//! address, `localhost`, or a name of `operators.names`, which no foreign page has. Without that trick a page elsewhere can
//! still have a browser send requests, to which it adds the token that it knows (Basic), though the page cannot read the
//! answers. Browsers then name the page's Origin, and say in Sec-Fetch-Site that it is another's: so a page of another site
//! may lead here by a link, and nothing else.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::Problem;
use super::token;
use crate::access::{Access, Gate};

const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// What a page may do: what is of this server, and nothing that stands within the page itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

pub(super) async fn guard(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let mut response = match judge(&gate, &request) {
        Ok(()) => match token::refusal(&gate, &request) {
            None => next.run(request).await,
            Some(refusal) => refusal,
        },
        Err(problem) => problem.into_response(),
    };
    response.headers_mut().extend(HEADERS);
    response
}

fn judge(gate: &Gate, request: &Request) -> Result<(), Problem> {
    let (headers, access) = (request.headers(), gate.access());
    let host = named_host(request.version(), headers, request.uri().authority())?;
    if let Some(host) = host {
        check_host(host, &access)?;
    }
    check_site(request.method(), headers, host.unwrap_or_default(), &access)
}

/// Which host is asked for; none, where a program of the old kind says nothing of it.
fn named_host<'r>(
    version: Version,
    headers: &'r HeaderMap,
    target: Option<&'r Authority>,
) -> Result<Option<&'r str>, Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().map(HeaderValue::to_str);
    if hosts.next().is_some() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the request has more than one Host".to_owned()));
    }
    match (target, host) {
        // An absolute target counts more than the header (RFC 9112 section 3.2.2).
        (Some(authority), _) => Ok(Some(authority.as_str())),
        (None, Some(Ok(host))) => Ok(Some(host)),
        // No browser leaves it out; a port check by hand does.
        (None, None) if version == Version::HTTP_10 => Ok(None),
        (None, None | Some(Err(_))) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, "the request has no valid Host".to_owned()))
        }
    }
}

fn check_host(host: &str, access: &Access) -> Result<(), Problem> {
    if is_nobody_elses(host) || access.is_named(name_of(host)) {
        return Ok(());
    }
    let detail = format!(
        "requests for {} are not answered: use localhost or an address, or have it in operators.names of server.toml; a proxy \
         in front has to send such a Host",
        host.escape_debug()
    );
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail))
}

/// Lets programs pass, which send none of these headers, pages of this server, and links that somebody followed.
fn check_site(method: &Method, headers: &HeaderMap, host: &str, access: &Access) -> Result<(), Problem> {
    let named = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let own_origin = named("origin").is_none_or(|origin| is_own(origin, host, access));
    let own_site = named("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"));
    let link = method.is_safe()
        && named("sec-fetch-mode") == Some("navigate")
        && named("sec-fetch-dest") == Some("document");
    if own_origin && (own_site || link) {
        return Ok(());
    }
    let detail = "a web page of another site may not ask for anything here".to_owned();
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

/// Whether a page of that origin is of this server. A proxy that calls it by its name may speak TLS in its place.
fn is_own(origin: &str, host: &str, access: &Access) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let own_scheme = scheme == access.scheme() || (scheme == "https" && access.is_named(name_of(host)));
    own_scheme && authority == host
}

/// Without its port.
fn name_of(host: &str) -> &str {
    host.split_once(':').map_or(host, |(name, _)| name)
}

/// Whether no foreign page can be of this host: `localhost` (RFC 6761 section 6.3), or an address, with or without a port.
fn is_nobody_elses(host: &str) -> bool {
    if let Some(bracketed) = host.strip_prefix('[') {
        let address = bracketed.split_once(']').map(|(address, _)| address);
        return address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = name_of(host);
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

    fn may(method: &Method, pairs: &[(&'static str, &'static str)]) -> bool {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        check_site(method, &headers, "127.0.0.1:9090", &Access::default()).is_ok()
    }

    #[test]
    fn pages_of_other_sites_ask_for_nothing() {
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE, Method::OPTIONS]
        {
            assert!(may(&method, &[]));
            let own = [("origin", "http://127.0.0.1:9090"), ("sec-fetch-site", "same-origin")];
            assert!(may(&method, &own));
            for foreign in [
                "http://evil.example",
                "null",
                "http://127.0.0.1:8080",
                "https://127.0.0.1:9090",
                "127.0.0.1:9090",
                "",
            ] {
                assert!(!may(&method, &[("origin", foreign)]), "{method} {foreign}");
            }
            for foreign in ["cross-site", "same-site", "anything"] {
                assert!(!may(&method, &[("sec-fetch-site", foreign)]), "{method} {foreign}");
            }
        }
    }

    #[test]
    fn link_from_another_site_may_be_followed_but_not_framed_nor_posted() {
        let link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert!(may(&Method::GET, &link));
        assert!(!may(&Method::POST, &link));
        let frame = [link[0], link[1], ("sec-fetch-dest", "iframe")];
        assert!(!may(&Method::GET, &frame));
        assert!(!may(&Method::GET, &[link[0], link[1], link[2], ("origin", "http://evil.example")]));
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
