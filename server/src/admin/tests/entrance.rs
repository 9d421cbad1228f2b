//! Who gets in: tokens, forged hosts and origins, and clients who would keep others out.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::super::rig::Rig;
use crate::access::Access;
use crate::store::{Memory, Retention};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const NEXT: &str = "fedcba9876543210fedcba9876543210";
/// "anybody:" and the token.
const BASIC: &str = "Basic YW55Ym9keTowMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZg==";

/// Every page there is, and one there is not.
const PATHS: [&str; 16] = [
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/api/devices",
    "/api/devices/869731052403821",
    "/api/devices/869731052403821/history",
    "/api/devices/869731052403821/heartbeat",
    "/api/devices/869731052403821/state",
    "/api/devices/869731052403821/label",
    "/api/devices/869731052403821/drop",
    "/api/fleet",
    "/api/backup",
    "/api/events",
    "/api/events/stream",
    "/nowhere",
];

fn with(access: Access) -> Rig {
    let rig = Rig::over(std::sync::Arc::new(Memory::new(Retention::default())), None);
    Rig::serve_with(rig.operators.clone(), None, access)
}

/// What a request with these lines in its head is answered.
fn ask(rig: &Rig, line: &str, head: &str) -> String {
    rig.raw(&format!("{line} HTTP/1.1\r\nConnection: close\r\n{head}\r\n"))
}

fn status(rig: &Rig, line: &str, head: &str) -> u16 {
    ask(rig, line, &format!("Host: localhost\r\n{head}")).split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn token_is_asked_for_everywhere_but_where_balancers_look() {
    let rig = with(Access::of(&format!("{TOKEN}\n{NEXT}"), &[]));
    for path in PATHS {
        let line = format!("GET {path}");
        let wanted = if path == "/healthz" { 200 } else { 401 };
        assert_eq!(status(&rig, &line, ""), wanted, "{path}");
    }
    for method in ["PUT", "DELETE", "POST", "OPTIONS", "HEAD", "PATCH"] {
        assert_eq!(status(&rig, &format!("{method} /api/devices/869731052403821/heartbeat"), ""), 401);
    }
    for right in [format!("Bearer {TOKEN}"), format!("bearer {NEXT}"), BASIC.to_owned()] {
        assert_eq!(status(&rig, "GET /metrics", &format!("Authorization: {right}\r\n")), 200, "{right}");
        assert_eq!(status(&rig, "GET /nowhere", &format!("Authorization: {right}\r\n")), 404, "{right}");
    }
    let refused = ask(&rig, "GET /metrics", "Host: localhost\r\n").to_lowercase();
    for line in [
        "www-authenticate: bearer realm=\"moorline\"",
        "www-authenticate: basic realm=\"moorline\"",
        "content-type: application/problem+json",
        "cache-control: no-store",
    ] {
        assert!(refused.contains(line), "{refused}");
    }
}

#[test]
fn many_wrong_tokens_are_not_looked_at() {
    let rig = with(Access::of(TOKEN, &[]));
    for _ in 0..10 {
        assert_eq!(status(&rig, "GET /metrics", "Authorization: Bearer wrong\r\n"), 401);
    }
    let refused = ask(&rig, "GET /metrics", "Host: localhost\r\nAuthorization: Bearer wrong\r\n");
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    let after = refused.to_lowercase();
    let after = after.split("retry-after: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    assert!(after.unwrap().parse::<u64>().unwrap() <= 7, "{refused}");
    assert_eq!(status(&rig, "GET /metrics", &format!("Authorization: Bearer {TOKEN}\r\n")), 429);
    assert_eq!(status(&rig, "GET /healthz", ""), 200);
}

#[test]
fn forged_hosts_and_origins_are_refused_on_every_path() {
    let rig = with(Access::of("", &["fleet.example.com"]));
    for path in PATHS {
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "TRACE"] {
            let line = format!("{method} {path}");
            let refused = ask(&rig, &line, "Host: evil.example\r\n");
            assert!(refused.starts_with("HTTP/1.1 421 "), "{line}: {refused}");
            for foreign in [
                "Origin: http://evil.example\r\n",
                "Origin: null\r\n",
                "Sec-Fetch-Site: cross-site\r\n",
                "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n",
            ] {
                assert_eq!(status(&rig, &line, foreign), 403, "{line} {foreign}");
            }
        }
    }
    // A host twice is no host (RFC 9112 section 3.2).
    let twice = ask(&rig, "GET /healthz", "Host: localhost\r\nHost: evil.example\r\n");
    assert!(twice.starts_with("HTTP/1.1 4"), "{twice}");
}

#[test]
fn own_names_are_answered_and_their_pages_may_ask() {
    let rig = with(Access::of("", &["fleet.example.com"]));
    for host in ["fleet.example.com", "Fleet.Example.Com:9090", "fleet.example.com:443"] {
        for scheme in ["http", "https"] {
            let head =
                format!("Host: {host}\r\nOrigin: {scheme}://{host}\r\nSec-Fetch-Site: same-origin\r\n");
            let answer = ask(&rig, "DELETE /api/devices/869731052403821/heartbeat", &head);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        let other = format!("Host: {host}\r\nOrigin: https://localhost\r\n");
        assert!(ask(&rig, "GET /", &other).starts_with("HTTP/1.1 403 "));
    }
    for host in ["example.com", "fleet.example.com.evil.example", "fleet.example.com.", "xfleet.example.com"]
    {
        assert!(ask(&rig, "GET /", &format!("Host: {host}\r\n")).starts_with("HTTP/1.1 421 "), "{host}");
    }
}

#[test]
fn paths_lead_nowhere_else() {
    let rig = Rig::memory();
    for path in [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/devices/../../etc/passwd",
        "/api/devices/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/api//devices",
        "//etc/passwd",
        "/api/devices/",
        "/.git/config",
        "/metrics/",
        "/api/devices/%00",
        "/api/devices/869731052403821%0d%0aX:%20y",
    ] {
        let status = status(&rig, &format!("GET {path}"), "");
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
}

fn is_answered(rig: &Rig) -> bool {
    rig.text("/api/devices").0 == 200
}

/// More clients than there are seats, each of which does `what` for as long as anybody listens.
fn crowd(rig: &Rig, what: impl Fn(&mut TcpStream)) -> Vec<TcpStream> {
    (0..200)
        .map(|_| {
            let mut socket = rig.connect();
            socket.set_write_timeout(Some(Duration::from_millis(1))).unwrap();
            what(&mut socket);
            socket
        })
        .collect()
}

#[test]
fn slow_clients_beside_a_good_one_are_no_matter() {
    let rig = Rig::memory();
    let head = "PUT /api/devices/869731052403821/heartbeat HTTP/1.1\r\nHost: localhost\r\n";
    let body = format!("{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{");
    // What each of them says cannot fail in a way that matters: it may be cut off by then.
    let silent = crowd(&rig, |_| ());
    assert!(is_answered(&rig));
    let slow_heads = crowd(&rig, |socket| drop(socket.write_all(b"GET / HTT")));
    assert!(is_answered(&rig));
    let slow_bodies = crowd(&rig, |socket| drop(socket.write_all(body.as_bytes())));
    assert!(is_answered(&rig));
    let idle = crowd(&rig, |socket| {
        let _ = socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let _ = socket.read(&mut [0; 64]);
    });
    assert!(is_answered(&rig));
    drop((silent, slow_heads, slow_bodies, idle));
}
