//! What the store gave up before it was posted, and what nobody wants.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use moorline_config::Document;
use serde_json::Value;

use super::*;
use crate::metrics::Metrics;
use crate::store::samples::events;
use crate::store::{Kind, Memory, Retention};

/// Takes every request and hands out the ids that came in it.
fn receiver() -> (String, Receiver<Vec<i64>>) {
    #[expect(clippy::disallowed_methods, reason = "the test is the receiver")]
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(socket);
        loop {
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                length = line
                    .to_ascii_lowercase()
                    .strip_prefix("content-length: ")
                    .map_or(length, |length| length.trim().parse().unwrap());
                line.clear();
            }
            let mut body = vec![0; length];
            if length == 0 || reader.read_exact(&mut body).is_err() {
                return;
            }
            let batch: Vec<Value> = serde_json::from_slice(&body).unwrap();
            let ids = batch.iter().map(|event| event["id"].as_str().unwrap().parse().unwrap()).collect();
            tell.send(ids).unwrap();
            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    (url, told)
}

fn work(folder: &Path, url: &str, kinds: &str, store: &Arc<Memory>, metrics: &Metrics) -> Work {
    let secret = folder.join("secret");
    std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!("[webhook]\nurl = \"{url}\"\nsecret_file = \"{}\"\n{kinds}", secret.display());
    let document = Document::parse(Path::new("server.toml"), &text).unwrap();
    let section = document.root().section("webhook");
    let settings = WebhookSettings::read(&section, None, &folder.join("fleet.db")).unwrap();
    document.finish().unwrap();
    Work {
        cursor: Cursor::open(&settings.cursor, 0).unwrap(),
        poster: Poster::new(&settings).unwrap(),
        settings,
        store: Arc::clone(store) as Arc<dyn Store>,
        metrics: metrics.webhook().clone(),
        batch: MAX_BATCH,
        trouble: None,
    }
}

#[test]
fn what_the_store_gave_up_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Memory::new(Retention { sessions: 3, ..Retention::default() }));
    store.apply(&events(&[Kind::Online; 10])).unwrap();
    let (url, told) = receiver();
    let metrics = Metrics::new();
    let mut work = work(folder.path(), &url, "", &store, &metrics);
    assert_eq!(work.round(), Next::AtOnce);
    assert_eq!(told.recv().unwrap(), [8, 9, 10]);
    assert_eq!(work.round(), Next::After(LOOK));
    let text = metrics.text().unwrap();
    for line in ["moorline_webhook_events_lost_total 7", "moorline_webhook_events_delivered_total 3"] {
        assert!(text.contains(&format!("\n{line}\n")), "{text}");
    }
    assert_eq!(Cursor::open(&work.settings.cursor, 10).unwrap().at(), 10);
}

#[test]
fn what_nobody_wants_is_passed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Memory::new(Retention::default()));
    let unwanted = vec![Kind::Online; MAX_BATCH + 1];
    store.apply(&events(&unwanted)).unwrap();
    store.apply(&events(&[Kind::Offline, Kind::Online])).unwrap();
    let (url, told) = receiver();
    let metrics = Metrics::new();
    let mut work = work(folder.path(), &url, "kinds = [\"offline\"]\n", &store, &metrics);
    assert_eq!(work.round(), Next::AtOnce);
    assert!(told.try_recv().is_err());
    // Not worth a write each time.
    assert_eq!(Cursor::open(&work.settings.cursor, 200).unwrap().at(), 0);
    assert_eq!(work.round(), Next::AtOnce);
    assert_eq!(told.recv().unwrap(), [102]);
    assert_eq!(Cursor::open(&work.settings.cursor, 200).unwrap().at(), 103);
}

#[test]
fn receiver_that_is_not_there_is_asked_less_and_less() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Memory::new(Retention::default()));
    store.apply(&events(&[Kind::Online])).unwrap();
    let metrics = Metrics::new();
    // Port 1 of loopback: nobody listens.
    let mut work = work(folder.path(), "http://127.0.0.1:1/", "", &store, &metrics);
    let pauses: Vec<_> = (0..4).map(|_| work.round()).collect();
    for (pause, most) in pauses.iter().zip([1, 2, 4, 8]) {
        let Next::After(pause) = pause else { panic!("{pauses:?}") };
        assert!(
            *pause <= Duration::from_secs(most) && *pause >= Duration::from_millis(most * 500),
            "{pauses:?}"
        );
    }
    let text = metrics.text().unwrap();
    assert!(text.contains("moorline_webhook_failures_total{reason=\"connection\"} 4\n"), "{text}");
    assert!(text.contains("moorline_webhook_oldest_waiting_timestamp_seconds 1764000000.0\n"), "{text}");
}
