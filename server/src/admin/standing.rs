//! `/api/devices/IMEI/state`, `/label` and `/drop`: whether a device is let in, what operators call it, and the end of its
//! session.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Operators;
use super::change::{change, read_json};
use super::devices::{self, DeviceView};
use super::problem::Problem;
use crate::clock;
use crate::store::{Hold, HoldKind, MAX_LABEL, MAX_REASON, Settings, check_text};

/// The body of `/state`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    state: String,
    #[serde(default)]
    reason: String,
}

/// The body of `/label`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    label: String,
}

/// The answer of `/drop`.
#[derive(Serialize)]
pub(super) struct Dropped {
    /// Whether there was a session, here or at another server.
    dropped: bool,
}

pub(super) async fn set(
    State(operators): State<Operators>,
    Path(text): Path<String>,
    request: Request,
) -> Result<Json<DeviceView>, Problem> {
    let imei = devices::read_imei(&text)?;
    let form = "{\"state\": \"blocked\", \"reason\": \"stolen\"}";
    let Wanted { state, reason } = read_json(request, form).await?;
    let kind = match state.as_str() {
        "active" => None,
        held => match HoldKind::ALL.into_iter().find(|kind| kind.as_str() == held) {
            Some(kind) => Some(kind),
            None => return Err(Problem::parameter("state", held, "active, blocked or quarantined")),
        },
    };
    check("reason", &reason, MAX_REASON)?;
    if kind.is_none() && !reason.is_empty() {
        return Err(Problem::parameter("reason", &reason, "for blocked and quarantined devices"));
    }
    change(operators, imei, move |settings| {
        let is_same = settings.hold.as_ref().map(|hold| (hold.kind, &*hold.reason))
            == kind.map(|kind| (kind, reason.as_str()));
        if is_same {
            return settings;
        }
        let since_ms = clock::now().utc_ms;
        let hold = kind.map(|kind| Hold { kind, since_ms, reason: reason.as_str().into() });
        Settings { hold, ..settings }
    })
    .await
}

pub(super) async fn label(
    State(operators): State<Operators>,
    Path(text): Path<String>,
    request: Request,
) -> Result<Json<DeviceView>, Problem> {
    let imei = devices::read_imei(&text)?;
    let Named { label } = read_json(request, "{\"label\": \"harbour crane 3\"}").await?;
    check("label", &label, MAX_LABEL)?;
    let label = label.trim().to_owned();
    change(operators, imei, move |settings| {
        let label = (!label.is_empty()).then(|| label.as_str().into());
        Settings { label, ..settings }
    })
    .await
}

pub(super) async fn drop_session(
    State(operators): State<Operators>,
    Path(text): Path<String>,
) -> Result<Json<Dropped>, Problem> {
    let imei = devices::read_imei(&text)?;
    devices::find(&operators.registry, imei)?;
    let elsewhere = operators.cluster.as_ref().zip(operators.registry.holder(imei));
    let dropped = match elsewhere {
        Some((cluster, node)) => {
            cluster.drop_session(node, imei).await.map_err(|unanswered| Problem::elsewhere(&unanswered))?
        }
        None => operators.registry.drop_session(imei),
    };
    Ok(Json(Dropped { dropped }))
}

fn check(name: &str, text: &str, most: usize) -> Result<(), Problem> {
    check_text(text, most)
        .map_err(|why| Problem::new(StatusCode::BAD_REQUEST, format!("the {name} is not possible: {why}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::rig::Rig;

    const DEVICE: &str = "/api/devices/869731052403821";
    const JSON: &str = "Content-Type: application/json\r\n";

    fn put(rig: &Rig, what: &str, body: &Value) -> (u16, Value) {
        rig.send(&format!("PUT {DEVICE}/{what}"), JSON, &body.to_string())
    }

    fn state(rig: &Rig) -> [Value; 3] {
        let device = rig.get(DEVICE).1;
        [device["state"].clone(), device["state_reason"].clone(), device["state_since"].clone()]
    }

    #[test]
    fn device_is_blocked_and_let_in_again() {
        for rig in Rig::both() {
            assert_eq!(state(&rig), [json!("active"), Value::Null, Value::Null]);
            let (status, device) = put(&rig, "state", &json!({"state": "blocked", "reason": "stolen"}));
            assert_eq!((status, &device["state"]), (200, &json!("blocked")));
            let [name, reason, since] = state(&rig);
            assert_eq!((name, reason), (json!("blocked"), json!("stolen")));
            // The same once more changes nothing, and so not since when either.
            put(&rig, "state", &json!({"state": "blocked", "reason": "stolen"}));
            assert_eq!(state(&rig)[2], since);
            assert_eq!(rig.get("/api/devices?state=blocked").1["total"], 1);
            assert_eq!(rig.get("/api/devices?state=active").1["total"], 2);
            assert!(rig.text("/metrics").2.contains("moorline_devices{state=\"blocked\"} 1\n"));
            assert_eq!(put(&rig, "state", &json!({"state": "active"})).0, 200);
            assert_eq!(state(&rig), [json!("active"), Value::Null, Value::Null]);
        }
    }

    #[test]
    fn label_is_set_found_and_taken_away() {
        let rig = Rig::memory();
        let (status, device) = put(&rig, "label", &json!({"label": " Harbour crane 3 "}));
        assert_eq!((status, &device["label"]), (200, &json!("Harbour crane 3")));
        assert_eq!(rig.get("/api/devices?search=CRANE").1["devices"][0]["imei"], "869731052403821");
        let (_, device) = put(&rig, "label", &json!({"label": ""}));
        assert_eq!(device["label"], Value::Null);
    }

    #[test]
    fn mistakes_are_told_what_is_possible() {
        let rig = Rig::memory();
        for (what, body, wanted) in [
            (
                "state",
                json!({"state": "asleep"}),
                "state=asleep is not possible: state is active, blocked or quarantined",
            ),
            ("state", json!({"reason": "stolen"}), "the body is not of the form {\"state\": "),
            (
                "state",
                json!({"state": "active", "reason": "found"}),
                "reason=found is not possible: reason is for blocked and quarantined devices",
            ),
            (
                "state",
                json!({"state": "blocked", "reason": "a".repeat(257)}),
                "the reason is not possible: it is longer than 256 bytes",
            ),
            (
                "label",
                json!({"label": "a\u{1b}[2J"}),
                "the label is not possible: it holds \\u{1b}, which cannot be shown",
            ),
            ("label", json!({"label": 7}), "the body is not of the form {\"label\": "),
        ] {
            let (status, problem) = put(&rig, what, &body);
            let told = problem["detail"].as_str().unwrap();
            assert!(status == 400 && told.starts_with(wanted), "{body}: {status}: {told}");
        }
        assert_eq!(state(&rig)[0], "active");
        let (status, _) =
            rig.send("PUT /api/devices/990016259811154/state", JSON, "{\"state\": \"blocked\"}");
        assert_eq!(status, 404);
    }

    #[test]
    fn session_that_is_not_there_is_not_dropped() {
        let rig = Rig::memory();
        let answer = rig.send(&format!("POST {DEVICE}/drop"), "", "");
        assert_eq!(answer, (200, json!({"dropped": false})));
        assert_eq!(rig.send("POST /api/devices/990016259811154/drop", "", "").0, 404);
    }
}
