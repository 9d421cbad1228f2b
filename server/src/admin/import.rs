//! `POST /api/devices`: devices that are to come, as CSV. All of them are added, or none.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use moorline_protocol::Imei;
use serde::Serialize;

use super::Operators;
use super::change::{alone, not_kept, read_body};
use super::problem::{BadLine, Problem};
use crate::clock;
use crate::registry::Registry;
use crate::store::{MAX_LABEL, Settings, check_text};

/// The longest body: some 800,000 IMEIs, or 200,000 with labels of the longest.
pub(super) const MAX_BODY: usize = 16 * 1024 * 1024;
/// How long it may take, also through a slow tunnel.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// More mistakes are counted, not shown.
const MISTAKES_SHOWN: usize = 100;
const FORM: &str = "an IMEI of 15 digits, then perhaps a comma and a label";

/// What came of it.
#[derive(Serialize)]
pub(super) struct Imported {
    /// So many are known now that were not.
    added: usize,
    /// So many were known already.
    known: usize,
    /// So many of these have another label now.
    labelled: usize,
}

type Lines = BTreeMap<Imei, (u64, Option<Box<str>>)>;

pub(super) async fn add(
    State(operators): State<Operators>,
    request: Request,
) -> Result<Json<Imported>, Problem> {
    let body = read_body(request, "text/csv", MAX_BODY, BODY_TIMEOUT).await?;
    alone(operators, move |operators| {
        let lines = read(&body)?;
        let now = clock::now();
        let (decided, imported) = decide(&operators.registry, lines, now.utc_ms);
        if !decided.is_empty() {
            operators.store.keep(&decided).map_err(|fault| not_kept(&fault))?;
            operators.registry.add(decided, now);
        }
        Ok(Json(imported))
    })
    .await
}

/// Every line is read before anything is done, so that all mistakes are told at once.
fn read(body: &[u8]) -> Result<Lines, Problem> {
    // Spreadsheets put a byte order mark before UTF-8.
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(text);
    let (mut lines, mut mistakes, mut mistaken) = (Lines::new(), Vec::new(), 0);
    let mut record = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
        let read = match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => take_line(&record, record.position().map_or(line, csv::Position::line), &mut lines),
            Err(fault) => Err(BadLine { line, value: String::new(), reason: unreadable(&fault) }),
        };
        if let Err(mistake) = read {
            mistaken += 1;
            if mistakes.len() < MISTAKES_SHOWN {
                mistakes.push(mistake);
            }
        }
    }
    if mistaken > 0 {
        let detail = format!("{mistaken} lines are wrong, so no device was added; a line is {FORM}");
        return Err(Problem::lines(detail, mistakes));
    }
    if lines.is_empty() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, format!("there is no line; each is {FORM}")));
    }
    Ok(lines)
}

fn unreadable(fault: &csv::Error) -> String {
    match fault.kind() {
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
        _ => fault.to_string(),
    }
}

fn take_line(record: &csv::StringRecord, line: u64, lines: &mut Lines) -> Result<(), BadLine> {
    let value = record.get(0).unwrap_or_default();
    let bad = |reason: String| BadLine { line, value: value.chars().take(32).collect(), reason };
    if line == 1 && value.eq_ignore_ascii_case("imei") {
        return Ok(());
    }
    if record.len() > 2 {
        return Err(bad(format!("it has {} columns", record.len())));
    }
    let imei: Imei = value.parse().map_err(|why| bad(format!("this is no IMEI: {why}")))?;
    let label = record.get(1).unwrap_or_default();
    check_text(label, MAX_LABEL).map_err(|why| bad(format!("its label: {why}")))?;
    let label = (!label.is_empty()).then(|| label.into());
    match lines.insert(imei, (line, label)) {
        Some((earlier, _)) => Err(bad(format!("it repeats line {earlier}"))),
        None => Ok(()),
    }
}

fn decide(registry: &Registry, lines: Lines, now_ms: i64) -> (Vec<(Imei, Settings)>, Imported) {
    let (mut decided, mut imported) = (Vec::new(), Imported { added: 0, known: 0, labelled: 0 });
    for (imei, (_, label)) in lines {
        let before = registry.settings(imei);
        let is_known = before.is_some();
        let before = before.unwrap_or_default();
        let is_named = label.is_some() && label != before.label;
        imported.added += usize::from(!is_known);
        imported.known += usize::from(is_known);
        imported.labelled += usize::from(is_known && is_named);
        if !is_known || is_named {
            let revision = before.revision.wrapping_add(1);
            let added_ms = if is_known { before.added_ms } else { Some(now_ms) };
            decided.push((
                imei,
                Settings { revision, added_ms, label: label.or_else(|| before.label.clone()), ..before },
            ));
        }
    }
    (decided, imported)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::rig::Rig;
    use super::*;

    const CSV: &str = "Content-Type: text/csv\r\n";

    fn post(rig: &Rig, body: &str) -> (u16, Value) {
        rig.send("POST /api/devices", CSV, body)
    }

    #[test]
    fn devices_are_added_and_named() {
        for rig in Rig::both() {
            let file = "\u{feff}IMEI,label\r\n990016259811154,\"Crane, north\"\r\n\r\n 869731052403821 , Pump \r\n004401083030128\r\n";
            assert_eq!(post(&rig, file), (200, json!({"added": 2, "known": 1, "labelled": 1})));
            assert_eq!(post(&rig, file), (200, json!({"added": 0, "known": 3, "labelled": 0})));
            let (_, device) = rig.get("/api/devices/990016259811154");
            assert_eq!((&device["label"], &device["online"]), (&json!("Crane, north"), &json!(false)));
            assert_eq!((&device["protocol"], &device["last_seen"]), (&Value::Null, &Value::Null));
            assert!(device["added_at"].is_string());
            assert_eq!(rig.get("/api/devices/869731052403821").1["label"], "Pump");
            assert_eq!(rig.get("/api/devices?seen=false").1["total"], 2);
        }
    }

    #[test]
    fn one_bad_line_adds_nothing_and_every_bad_line_is_told() {
        let rig = Rig::memory();
        let body = format!(
            "990016259811154\n990016259811155\nhello\n990016259811154,again\n004401083030128,a,b\n004401083030128,{}\n",
            "x".repeat(65)
        );
        let (status, problem) = post(&rig, &body);
        assert_eq!(status, 400);
        assert!(problem["detail"].as_str().unwrap().starts_with("5 lines are wrong, so no device was added"));
        let told: Vec<_> = problem["lines"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| (&line["line"], &line["reason"]))
            .collect();
        let wanted = [
            (2, "this is no IMEI: its check digit is 5 where 4 would be right"),
            (3, "this is no IMEI: it holds something other than digits"),
            (4, "it repeats line 1"),
            (5, "it has 3 columns"),
            (6, "its label: it is longer than 64 bytes"),
        ]
        .map(|(line, reason)| (json!(line), json!(reason)));
        assert_eq!(told, wanted.iter().map(|(line, reason)| (line, reason)).collect::<Vec<_>>());
        assert_eq!(rig.get("/api/devices").1["total"], 3);
    }

    #[test]
    fn what_is_no_such_file_is_told_so() {
        let rig = Rig::memory();
        for body in ["", "\n\n", "imei,label\n"] {
            let (status, problem) = post(&rig, body);
            assert!(
                status == 400 && problem["detail"].as_str().unwrap().starts_with("there is no line"),
                "{problem}"
            );
        }
        assert_eq!(rig.send("POST /api/devices", "Content-Type: application/json\r\n", "{}").0, 415);
        let long = "990016259811154\n".repeat(MAX_BODY / 16 + 1);
        let (status, problem) = post(&rig, &long);
        assert_eq!(
            (status, &problem["detail"]),
            (413, &json!(format!("the body is longer than {MAX_BODY} bytes")))
        );
        let many = "hello\n".repeat(1000);
        let (_, problem) = post(&rig, &many);
        assert_eq!(problem["lines"].as_array().unwrap().len(), MISTAKES_SHOWN);
    }
}
