//! `/api/devices/IMEI/heartbeat`: the bounds that an operator sets for one device. What was answered is on the disk.

use std::num::NonZeroU32;

use axum::Json;
use axum::extract::{Path, Request, State};
use serde::Deserialize;

use super::Operators;
use super::change::{change, read_json};
use super::devices::{self, DeviceView};
use super::problem::Problem;
use crate::session::{Bounds, LEAST, LONGEST};
use crate::store::Settings;

/// The body; a bound that is left out is the fleet's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    min_s: Option<i64>,
    max_s: Option<i64>,
}

pub(super) async fn set(
    State(operators): State<Operators>,
    Path(text): Path<String>,
    request: Request,
) -> Result<Json<DeviceView>, Problem> {
    let imei = devices::read_imei(&text)?;
    let bounds = read_bounds(&read_json(request, "{\"min_s\": 60, \"max_s\": 300}").await?)?;
    change(operators, imei, move |settings| Settings { bounds, ..settings }).await
}

pub(super) async fn clear(
    State(operators): State<Operators>,
    Path(text): Path<String>,
) -> Result<Json<DeviceView>, Problem> {
    change(operators, devices::read_imei(&text)?, |settings| Settings { bounds: Bounds::NONE, ..settings })
        .await
}

fn read_bounds(wanted: &Wanted) -> Result<Bounds, Problem> {
    let bounds =
        Bounds { min_s: read_bound("min_s", wanted.min_s)?, max_s: read_bound("max_s", wanted.max_s)? };
    match (bounds.min_s, bounds.max_s) {
        (Some(min), Some(max)) if min > max => {
            Err(Problem::parameter("min_s", &min.to_string(), &format!("at most max_s, which is {max}")))
        }
        _ => Ok(bounds),
    }
}

fn read_bound(name: &str, wanted: Option<i64>) -> Result<Option<NonZeroU32>, Problem> {
    let Some(seconds) = wanted else { return Ok(None) };
    let (least, longest) = (LEAST.as_secs(), LONGEST.as_secs());
    let fits = u32::try_from(seconds).ok().filter(|bound| (least..=longest).contains(&u64::from(*bound)));
    fits.and_then(NonZeroU32::new).map(Some).ok_or_else(|| {
        let allowed = format!("a number of seconds from {least} to {longest}, or null for the fleet's");
        Problem::parameter(name, &seconds.to_string(), &allowed)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::sync::Arc;

    use moorline_protocol::Imei;

    use serde_json::{Value, json};

    use super::super::change::MAX_BODY;
    use super::super::rig::Rig;
    use super::*;
    use crate::clock::{self, Now};
    use crate::store::samples::imei;
    use crate::store::{
        Batch, EventPage, EventQuery, Fleet, Hour, Memory, Retention, Slot, Sqlite, Store, StoreError,
    };

    const LINE: &str = "/api/devices/869731052403821/heartbeat";
    const JSON: &str = "Content-Type: application/json\r\n";

    fn put(rig: &Rig, body: &str) -> (u16, Value) {
        rig.send(&format!("PUT {LINE}"), JSON, body)
    }

    fn detail((status, problem): (u16, Value)) -> (u16, String) {
        (status, problem["detail"].as_str().unwrap().to_owned())
    }

    fn shown(rig: &Rig) -> Value {
        rig.get("/api/devices/869731052403821").1["heartbeat_bounds"].clone()
    }

    #[test]
    fn bounds_are_set_changed_and_cleared() {
        for rig in Rig::both() {
            for (body, bounds) in [
                (r#"{"min_s": 60, "max_s": 300}"#, json!({"min_s": 60, "max_s": 300})),
                (r#"{"max_s": 86400}"#, json!({"min_s": null, "max_s": 86_400})),
                (r#"{"min_s": 1, "max_s": null}"#, json!({"min_s": 1, "max_s": null})),
                ("{}", Value::Null),
                (r#"{"min_s": 7, "max_s": 7}"#, json!({"min_s": 7, "max_s": 7})),
            ] {
                let (status, device) = put(&rig, body);
                assert_eq!((status, &device["heartbeat_bounds"]), (200, &bounds), "{body}");
                assert_eq!(shown(&rig), bounds);
            }
            let (status, device) = rig.send(&format!("DELETE {LINE}"), "", "");
            assert_eq!((status, &device["heartbeat_bounds"]), (200, &Value::Null));
            assert_eq!(shown(&rig), Value::Null);
        }
    }

    #[test]
    fn what_was_answered_is_in_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let file = Arc::new(
            Sqlite::open(&folder.path().join("fleet.db"), Retention::default(), clock::now()).unwrap(),
        );
        let rig = Rig::over(Arc::<Sqlite>::clone(&file), Some(folder));
        for (body, kept) in [(r#"{"max_s": 300}"#, NonZeroU32::new(300)), ("{}", None)] {
            assert_eq!(put(&rig, body).0, 200);
            let settings = file.load().unwrap().settings;
            assert_eq!(settings.get(&imei(2)).and_then(|settings| settings.bounds.max_s), kept);
        }
    }

    #[test]
    fn mistaken_bodies_are_told_what_is_possible() {
        let rig = Rig::memory();
        let allowed = "a number of seconds from 1 to 86400, or null for the fleet's";
        let form = "the body is not of the form {\"min_s\": 60, \"max_s\": 300}: ";
        for (body, wanted) in [
            (r#"{"min_s": 0}"#, format!("min_s=0 is not possible: min_s is {allowed}")),
            (r#"{"max_s": 86401}"#, format!("max_s=86401 is not possible: max_s is {allowed}")),
            (r#"{"max_s": -5}"#, format!("max_s=-5 is not possible: max_s is {allowed}")),
            (r#"{"max_s": 4294967356}"#, format!("max_s=4294967356 is not possible: max_s is {allowed}")),
            (
                r#"{"min_s": 300, "max_s": 60}"#,
                "min_s=300 is not possible: min_s is at most max_s, which is 60".to_owned(),
            ),
            (r#"{"mim_s": 60}"#, format!("{form}unknown field `mim_s`, expected `min_s` or `max_s`")),
            (r#"{"min_s": 1, "min_s": 2}"#, format!("{form}duplicate field `min_s`")),
            (r#"{"min_s": "1m"}"#, format!("{form}invalid type: string \"1m\", expected i64")),
            (r#"{"min_s": 1.5}"#, format!("{form}invalid type: floating point `1.5`, expected i64")),
            ("[60, 300]", format!("{form}it is no object")),
            ("", format!("{form}EOF while parsing a value")),
            ("min_s=60", format!("{form}expected value")),
            (r#"{"min_s": 60} and more"#, format!("{form}trailing characters")),
        ] {
            let (status, told) = detail(put(&rig, body));
            assert!(status == 400 && told.starts_with(&wanted), "{body}: {status}: {told}");
        }
        let long = format!("{{\"min_s\": {}1}}", " ".repeat(MAX_BODY));
        assert_eq!(detail(put(&rig, &long)), (413, "the body is longer than 4096 bytes".to_owned()));
        assert_eq!(shown(&rig), Value::Null);
    }

    #[test]
    fn strangers_and_nonsense_are_told_apart() {
        let rig = Rig::memory();
        for method in ["PUT", "DELETE"] {
            let send = |who: &str| {
                detail(rig.send(&format!("{method} /api/devices/{who}/heartbeat"), JSON, "{\"max_s\": 60}"))
            };
            let (status, told) = send("990016259811154");
            assert!(status == 404 && told.ends_with("990016259811154 ever came or was added"), "{told}");
            let (status, told) = send("86973105240382");
            assert!(status == 400 && told.starts_with("86973105240382 is no IMEI: "), "{told}");
        }
        let answer = rig.raw(&format!("GET {LINE} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.to_lowercase().contains("allow: put,delete\r\n"), "{answer}");
    }

    /// Forms can send any bytes as text/plain, and browsers tell whose page sends.
    #[test]
    fn pages_of_other_sites_change_nothing() {
        let rig = Rig::memory();
        let body = "{\"max_s\": 60}";
        for (head, status) in [
            ("", 415),
            ("Content-Type: text/plain\r\n", 415),
            ("Content-Type: application/jsonp\r\n", 415),
            (&format!("{JSON}Origin: http://evil.example\r\n"), 403),
            (&format!("{JSON}Origin: null\r\n"), 403),
            (&format!("{JSON}Sec-Fetch-Site: cross-site\r\n"), 403),
        ] {
            assert_eq!(rig.send(&format!("PUT {LINE}"), head, body).0, status, "{head}");
        }
        assert_eq!(rig.send(&format!("DELETE {LINE}"), "Origin: http://evil.example\r\n", "").0, 403);
        let foreign = format!(
            "PUT {LINE} HTTP/1.1\r\nHost: evil.example\r\n{JSON}Connection: close\r\nContent-Length: 13\r\n\r\n{body}"
        );
        assert!(rig.raw(&foreign).starts_with("HTTP/1.1 421 "));
        assert_eq!(shown(&rig), Value::Null);
        let own = "Content-Type: Application/JSON; charset=utf-8\r\nOrigin: http://localhost\r\n";
        assert_eq!(rig.send(&format!("PUT {LINE}"), own, body).0, 200);
    }

    #[test]
    fn body_that_does_not_come_gives_its_seat_back() {
        let rig = Rig::memory();
        let head = format!("PUT {LINE} HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 9\r\n\r\n{{");
        let slow: Vec<_> = (0..100)
            .map(|_| {
                let mut socket = rig.connect();
                socket.write_all(head.as_bytes()).unwrap();
                socket
            })
            .collect();
        // All seats are taken, and this one has no timeout shorter than theirs.
        assert_eq!(rig.text("/healthz").0, 200);
        drop(slow);
    }

    /// A store whose disk is full.
    #[derive(Debug)]
    struct Full(Memory);

    impl Store for Full {
        fn load(&self) -> Result<Fleet, StoreError> {
            self.0.load()
        }

        fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
            self.0.apply(batch)
        }

        fn keep(&self, _: &[(Imei, Settings)]) -> Result<(), StoreError> {
            Err(StoreError::Failed("the disk is full".to_owned()))
        }

        fn backup(&self, now: Now) -> Result<PathBuf, StoreError> {
            self.0.backup(now)
        }

        fn events(&self, query: &EventQuery) -> Result<EventPage, StoreError> {
            self.0.events(query)
        }

        fn hours(&self, imei: Imei, since_ms: i64) -> Result<Vec<Hour>, StoreError> {
            self.0.hours(imei, since_ms)
        }

        fn slots(&self, since_ms: i64) -> Result<Vec<Slot>, StoreError> {
            self.0.slots(since_ms)
        }
    }

    #[test]
    fn what_cannot_be_kept_does_not_hold() {
        let rig = Rig::over(Arc::new(Full(Memory::new(Retention::default()))), None);
        let told = detail(put(&rig, "{\"max_s\": 60}"));
        let wanted = "the store cannot be written, so nothing was changed: the disk is full".to_owned();
        assert_eq!(told, (503, wanted));
        assert_eq!(shown(&rig), Value::Null);
        // Nothing is to be kept here.
        assert_eq!(put(&rig, "{}").0, 200);
    }
}
