//! The operators' HTTP through real sockets, over both stores.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

mod entrance;
mod stream;

use super::Operators;
use super::rig::Rig;
use crate::clock;
use crate::store::samples::{event, imei};
use crate::store::{Kind, Queue, Retention, Sqlite, Store, Writer};

fn imeis(list: &Value) -> Vec<&str> {
    list["devices"].as_array().unwrap().iter().map(|device| device["imei"].as_str().unwrap()).collect()
}

#[test]
fn device_is_shown_with_all_that_is_known() {
    for rig in Rig::both() {
        let (status, shown) = rig.get("/api/devices/869731052403821");
        assert_eq!(status, 200);
        assert_eq!(
            shown,
            serde_json::json!({
                "imei": "869731052403821", "online": false, "protocol": "native",
                "label": null, "state": "active", "state_since": null, "state_reason": null, "added_at": null,
                "app_id": "02020202-0202-0202-0202-020202020202", "address": "127.0.0.1:4000",
                "connected_at": "2025-11-24T16:00:00.002Z", "last_seen": "2025-11-24T16:00:00.001Z",
                "first_seen": "2025-11-24T16:00:00.000Z", "heartbeat_s": 60, "agent_version": "0.1.0",
                "modem": "Quectel EC25", "tls": "1.3", "session_id": 9, "node": null,
                "certificate": {"serial": "0a", "issuer": "CN=Fleet CA", "expires_at": "2033-05-18T03:33:20.000Z"},
                "disconnected_at": "2025-11-24T16:00:00.003Z", "disconnect_cause": "idle", "status": null,
                "usage": null, "heartbeat_bounds": null,
            })
        );
    }
}

#[test]
fn devices_come_in_pages() {
    for rig in Rig::both() {
        let (_, first) = rig.get("/api/devices?limit=2");
        assert_eq!(imeis(&first), ["004999010640000", "015184008301272"]);
        assert_eq!((&first["next"], &first["total"]), (&"015184008301272".into(), &3.into()));
        let (_, second) = rig.get("/api/devices?limit=2&after=015184008301272");
        assert_eq!(imeis(&second), ["869731052403821"]);
        assert_eq!((&second["next"], &second["total"]), (&Value::Null, &3.into()));
    }
}

#[test]
fn devices_are_filtered() {
    let rig = Rig::memory();
    assert_eq!(imeis(&rig.get("/api/devices?online=true").1), [""; 0]);
    assert_eq!(imeis(&rig.get("/api/devices?protocol=classic").1), ["004999010640000"]);
    assert_eq!(imeis(&rig.get("/api/devices?search=86973&online=false").1), ["869731052403821"]);
    assert_eq!(imeis(&rig.get("/api/devices?search=quectel%20EC25").1).len(), 3);
}

#[test]
fn events_come_after_an_id_or_of_a_device() {
    for rig in Rig::both() {
        let ids = |path: &str| {
            let (status, list) = rig.get(path);
            assert_eq!(status, 200);
            let ids = list["events"]
                .as_array()
                .unwrap()
                .iter()
                .map(|event| event["id"].as_i64().unwrap())
                .collect();
            (ids, list["next"].as_i64().unwrap())
        };
        assert_eq!(ids("/api/events"), (vec![1, 2, 3], 3));
        assert_eq!(ids("/api/events?limit=2"), (vec![2, 3], 3));
        assert_eq!(ids("/api/events?after=0&limit=2"), (vec![1, 2], 2));
        assert_eq!(ids("/api/events?after=3"), (vec![], 3));
        assert_eq!(ids(&format!("/api/events?after=0&imei={}", imei(1))), (vec![2], 3));
    }
}

#[test]
fn event_is_shown_with_all_that_is_known() {
    let rig = Rig::memory();
    let (_, list) = rig.get("/api/events?after=1&limit=1");
    assert_eq!(
        list["events"][0],
        serde_json::json!({
            "id": 2, "at": "2025-11-24T16:00:00.000Z", "imei": "015184008301272", "kind": "online", "session_id": 7,
            "address": "127.0.0.1:4000", "certificate": "0a", "cause": "idle", "text": "it was silent for too long",
        })
    );
}

#[test]
fn bad_queries_are_told_what_is_possible() {
    let rig = Rig::memory();
    for (path, parameter, value, allowed) in [
        ("/api/devices?limit=0", "limit", "0", "a number from 1 to 1000"),
        ("/api/devices?limit=ten", "limit", "ten", "a number from 1 to 1000"),
        ("/api/devices?online=yes", "online", "yes", "true or false"),
        ("/api/devices?protocol=mqtt", "protocol", "mqtt", "native or classic"),
        ("/api/devices?after=1", "after", "1", "an IMEI (it has 1 digits, an IMEI has 15)"),
        ("/api/events?after=-1", "after", "-1", "a number from 0 to 9223372036854775807"),
        ("/api/events?imei=x", "imei", "x", "an IMEI (it holds something other than digits)"),
        (
            "/api/events?kind=online",
            "kind",
            "online",
            "none of the parameters here, which are after, imei, limit",
        ),
    ] {
        let (status, problem) = rig.get(path);
        assert_eq!(status, 400, "{path}");
        assert_eq!((&problem["parameter"], &problem["value"]), (&parameter.into(), &value.into()));
        assert_eq!(problem["allowed"], allowed);
        assert_eq!(
            problem["detail"],
            format!("{parameter}={value} is not possible: {parameter} is {allowed}")
        );
    }
}

#[test]
fn strangers_and_nonsense_are_told_apart() {
    let rig = Rig::memory();
    let (status, problem) = rig.get("/api/devices/990016259811154");
    assert_eq!((status, &problem["status"], &problem["title"]), (404, &404.into(), &"Not Found".into()));
    let (status, problem) = rig.get("/api/devices/86973105240382");
    assert_eq!(status, 400);
    assert_eq!(problem["detail"], "86973105240382 is no IMEI: it has 14 digits, an IMEI has 15");
}

#[test]
fn unknown_pages_and_methods_are_problems() {
    let rig = Rig::memory();
    assert_eq!(rig.get("/api/sheep").0, 404);
    let answer = rig.raw("POST /api/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.to_lowercase().contains("allow: get,head\r\n"), "{answer}");
    assert!(answer.contains("\"detail\":\"POST is not possible here"), "{answer}");
}

#[test]
fn foreign_names_are_not_answered() {
    let rig = Rig::memory();
    let ask = |host: &str| rig.raw(&format!("GET /healthz HTTP/1.1\r\n{host}Connection: close\r\n\r\n"));
    assert!(ask("Host: localhost:9090\r\n").starts_with("HTTP/1.1 200 "));
    let refused = ask("Host: evil.example\r\n");
    assert!(refused.starts_with("HTTP/1.1 421 "), "{refused}");
    assert!(refused.contains("requests for evil.example are not answered"), "{refused}");
    assert!(ask("").starts_with("HTTP/1.1 400 "));
    let absolute = "GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(rig.raw(absolute).starts_with("HTTP/1.1 421 "));
}

#[test]
fn every_answer_has_the_headers_of_a_private_page() {
    let rig = Rig::memory();
    for path in ["/", "/api/devices", "/nowhere"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = rig.raw(&request).to_lowercase();
        for line in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "content-security-policy: default-",
        ] {
            assert!(answer.contains(line), "{line} is not in {answer}");
        }
    }
}

#[test]
fn readiness_follows_port_and_store() {
    let rig = Rig::memory();
    assert_eq!(
        rig.get("/readyz"),
        (200, serde_json::json!({"ready": true, "online": 0, "queued": 0, "lost_events": 0}))
    );
    rig.operators.readiness.set_accepting(false);
    let (status, problem) = rig.get("/readyz");
    assert_eq!(status, 503);
    assert_eq!(problem["reasons"][0], "devices are not accepted: the server starts or stops");
    assert_eq!(rig.text("/healthz").0, 200);
}

#[test]
fn store_that_cannot_be_written_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let file =
        Arc::new(Sqlite::open(&folder.path().join("fleet.db"), Retention::default(), clock::now()).unwrap());
    let store: Arc<dyn Store> = Arc::<Sqlite>::clone(&file);
    let rig = Rig::over(Arc::clone(&store), Some(folder));
    file.limit_pages(1);
    let queue = Arc::new(Queue::new());
    let metrics = rig.operators.metrics.store().clone();
    let writer = Writer::start(store, Arc::clone(&queue), metrics).unwrap();
    for _ in 0..1000 {
        queue.put_event(event(1, Kind::Offline));
    }
    assert!(writer.stop(Duration::from_secs(20)).is_err());
    let full = Rig::serve(Operators { writer: Arc::new(writer), ..rig.operators.clone() }, None);
    let (status, problem) = full.get("/readyz");
    assert_eq!(status, 503);
    let reason = problem["reasons"][0].as_str().unwrap();
    assert!(reason.contains("the disk is full: make room on it (1000 rows wait, 0 were lost)"), "{reason}");
    assert_eq!(full.get("/api/events").1["events"].as_array().unwrap().len(), 3);
}

#[test]
fn metrics_are_prometheus_text() {
    let rig = Rig::memory();
    rig.operators.metrics.heartbeat();
    let (status, media_type, text) = rig.text("/metrics");
    assert_eq!((status, media_type.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    assert!(text.contains("\nmoorline_heartbeats_total 1\n"), "{text}");
    assert!(text.contains("moorline_build_info{version="), "{text}");
}

#[test]
fn long_heads_are_refused() {
    let rig = Rig::memory();
    let request = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(64 * 1024));
    let mut socket = rig.connect();
    // The server may close before it has read all of it.
    let _ = socket.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(rig.text("/healthz").0, 200);
}

#[test]
fn silent_connections_give_their_seats_back() {
    let rig = Rig::memory();
    let silent: Vec<_> = (0..100).map(|_| rig.connect()).collect();
    // All seats are taken, and this one has no timeout shorter than theirs.
    assert_eq!(rig.text("/healthz").0, 200);
    drop(silent);
}

#[test]
fn nonsense_is_refused_or_closed_and_holds_up_nobody() {
    let rig = Rig::memory();
    let many_headers = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(100));
    for nonsense in [
        // A browser that was told https.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: local\x00host\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        many_headers.as_bytes(),
    ] {
        let mut socket = rig.connect();
        // The server may close before it has read all of it.
        let _ = socket.write_all(nonsense);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{nonsense:?}: {answer}");
        assert_eq!(rig.text("/healthz").0, 200);
    }
}

#[test]
fn body_without_an_end_is_not_listened_to() {
    let rig = Rig::memory();
    let mut socket = rig.connect();
    socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
        .write_all(b"POST /api/devices HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    let chunk = [b"8000\r\n".as_slice(), &[b'x'; 0x8000], b"\r\n"].concat();
    // Far more than the buffers of both kernels hold: it is closed long before the end.
    let closed = (0..10_000).any(|_| socket.write_all(&chunk).is_err_and(|fault| !is_timeout(&fault)));
    assert!(closed);
    assert_eq!(rig.text("/healthz").0, 200);
}

fn is_timeout(fault: &std::io::Error) -> bool {
    matches!(fault.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

#[test]
fn answers_that_nobody_takes_hold_up_nobody() {
    let rig = Rig::memory();
    let hoarders: Vec<_> = (0..32)
        .map(|_| {
            let mut socket = rig.connect();
            socket.set_write_timeout(Some(Duration::from_millis(1))).unwrap();
            let asked = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200);
            // Until its own questions are not taken any more either.
            while socket.write_all(&asked).is_ok() {}
            socket
        })
        .collect();
    for path in ["/healthz", "/metrics", "/api/devices"] {
        assert_eq!(rig.text(path).0, 200);
    }
    drop(hoarders);
}
