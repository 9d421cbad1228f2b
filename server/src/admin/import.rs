//! `POST /api/devices`: devices that are to come, as CSV. All of them are added, or none.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use moorline_config::{BadLine, Row, count_lines, read_table};
use moorline_protocol::Imei;
use serde::Serialize;

use super::Operators;
use super::change::{alone, not_kept, read_body};
use super::problem::{Problem, WrongLine};
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

pub(super) async fn add(
    State(operators): State<Operators>,
    request: Request,
) -> Result<Json<Imported>, Problem> {
    let body = read_body(request, "text/csv", MAX_BODY, BODY_TIMEOUT).await?;
    alone(operators, move |operators| {
        let rows = read(&body)?;
        let now = clock::now();
        let (decided, imported) = decide(&operators.registry, rows, now.utc_ms);
        if !decided.is_empty() {
            operators.store.keep(&decided).map_err(|fault| not_kept(&fault))?;
            operators.registry.add(decided, now);
        }
        Ok(Json(imported))
    })
    .await
}

/// Every line is read before anything is done, so that all mistakes are told at once.
fn read(body: &[u8]) -> Result<Vec<Row>, Problem> {
    let rows = read_table(body).map_err(|bad| wrong(&bad))?;
    let bad: Vec<_> = rows
        .iter()
        .filter_map(|row| check_text(&row.label, MAX_LABEL).err().map(|why| (row, why)))
        .map(|(row, why)| BadLine::of(row, format!("its label: {why}")))
        .collect();
    if !bad.is_empty() {
        return Err(wrong(&bad));
    }
    if rows.is_empty() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, format!("there is no line; each is {FORM}")));
    }
    Ok(rows)
}

fn wrong(bad: &[BadLine]) -> Problem {
    let detail = format!("{} are wrong, so no device was added; a line is {FORM}", count_lines(bad));
    let shown = bad.iter().take(MISTAKES_SHOWN);
    let lines = shown.map(|BadLine { line, value, reason }| WrongLine {
        line: *line,
        value: value.clone(),
        reason: reason.clone(),
    });
    Problem::lines(detail, lines.collect())
}

fn decide(registry: &Registry, rows: Vec<Row>, now_ms: i64) -> (Vec<(Imei, Settings)>, Imported) {
    let (mut decided, mut imported) = (Vec::new(), Imported { added: 0, known: 0, labelled: 0 });
    for Row { imei, label, .. } in rows {
        let label: Option<Box<str>> = (!label.is_empty()).then(|| label.into());
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
        let body = "990016259811154\n990016259811155\n\nhello\n990016259811154,again\n004401083030128,\"open\n0151840083012\n";
        let (status, problem) = post(&rig, body);
        assert_eq!(status, 400);
        assert!(problem["detail"].as_str().unwrap().starts_with("4 lines are wrong, so no device was added"));
        let told: Vec<_> = problem["lines"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| (&line["line"], &line["reason"]))
            .collect();
        let wanted = [
            (2, "this is no IMEI: its check digit is 5 where 4 would be right"),
            (4, "this is no IMEI: it holds something other than digits"),
            (5, "it repeats line 1"),
            (6, "a quotation mark in it is never closed"),
        ]
        .map(|(line, reason)| (json!(line), json!(reason)));
        assert_eq!(told, wanted.iter().map(|(line, reason)| (line, reason)).collect::<Vec<_>>());
        assert_eq!(rig.get("/api/devices").1["total"], 3);
    }

    #[test]
    fn label_that_cannot_be_shown_is_told() {
        let rig = Rig::memory();
        let body = format!("990016259811154,{}\n004401083030128,a\u{1b}b\n", "x".repeat(65));
        let (status, problem) = post(&rig, &body);
        assert_eq!((status, &problem["lines"][0]["line"]), (400, &json!(1)));
        assert_eq!(problem["lines"][0]["reason"], "its label: it is longer than 64 bytes");
        assert_eq!(problem["lines"][1]["reason"], "its label: it holds \\u{1b}, which cannot be shown");
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
