//! `/api/fleet` and `/api/devices/IMEI/history`: how many devices there are, and how the fleet and its devices were over time.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use serde::Serialize;

use super::Operators;
use super::devices;
use super::problem::Problem;
use super::query::Parameters;
use super::time::Time;
use crate::clock::{self, Now};
use crate::registry::Counts;
use crate::store::{Hour, SLOT_MS, Slot, Span};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const DEFAULT_DAYS: i64 = 30;
const MOST_DAYS: i64 = 3653;

/// The fleet now and in the last hours.
#[derive(Serialize)]
pub(super) struct FleetView {
    known: usize,
    online: usize,
    offline: usize,
    never_seen: usize,
    blocked: usize,
    quarantined: usize,
    /// One for every five minutes in which the server ran, the oldest first; the last goes on.
    slots: Vec<SlotView>,
}

#[derive(Serialize)]
struct SlotView {
    at: Time,
    online: usize,
    came: u32,
    went: u32,
    refused: u32,
}

/// What a device told over time.
#[derive(Serialize)]
pub(super) struct HistoryView {
    /// One for every hour in which it told something, the oldest first.
    hours: Vec<HourView>,
}

#[derive(Serialize)]
struct HourView {
    /// When the last of the hour's reports came; what follows is of that one, but for the signal's span.
    at: Time,
    signal_dbm: Option<i16>,
    signal_min_dbm: Option<i16>,
    signal_max_dbm: Option<i16>,
    operator: Option<Box<str>>,
    memory_kb: Option<u32>,
    load: Option<f32>,
    temperature: Option<f32>,
}

pub(super) async fn fleet(State(operators): State<Operators>, uri: Uri) -> Result<Json<FleetView>, Problem> {
    let parameters = Parameters::read(&uri, &["hours"])?;
    let hours = parameters.number("hours", 1..=24 * 31)?.unwrap_or(24);
    let Counts { known, online, blocked, quarantined, never_seen } = operators.registry.counts();
    let look = tokio::task::spawn_blocking(move || {
        let now = clock::now();
        slots_since(&operators, now.utc_ms - hours * 60 * 60 * 1000, now)
    });
    let slots = look.await.map_err(|fault| Problem::internal(&fault))??;
    let offline = known - online - never_seen;
    let slots = slots.into_iter().map(SlotView::from).collect();
    Ok(Json(FleetView { known, online, offline, never_seen, blocked, quarantined, slots }))
}

/// What is stored, and the five minutes that go on.
pub(super) fn slots_since(operators: &Operators, since_ms: i64, now: Now) -> Result<Vec<Slot>, Problem> {
    let since_ms = since_ms - since_ms.rem_euclid(SLOT_MS);
    let mut slots = operators.store.slots(since_ms).map_err(|fault| Problem::internal(&fault))?;
    let now = operators.registry.slot(now);
    match slots.last_mut().filter(|last| last.at_ms == now.at_ms) {
        Some(last) => *last = last.then(now),
        None => slots.push(now),
    }
    Ok(slots)
}

pub(super) async fn device(
    State(operators): State<Operators>,
    Path(text): Path<String>,
    uri: Uri,
) -> Result<Json<HistoryView>, Problem> {
    let parameters = Parameters::read(&uri, &["days"])?;
    let days = parameters.number("days", 1..=MOST_DAYS)?.unwrap_or(DEFAULT_DAYS);
    let imei = devices::read_imei(&text)?;
    devices::find(&operators.registry, imei)?;
    let look =
        tokio::task::spawn_blocking(move || operators.store.hours(imei, clock::now().utc_ms - days * DAY_MS));
    let hours =
        look.await.map_err(|fault| Problem::internal(&fault))?.map_err(|fault| Problem::internal(&fault))?;
    Ok(Json(HistoryView { hours: hours.into_iter().map(HourView::from).collect() }))
}

impl From<Slot> for SlotView {
    fn from(Slot { at_ms, online, came, went, refused }: Slot) -> Self {
        Self { at: Time(at_ms), online, came, went, refused }
    }
}

impl From<Hour> for HourView {
    fn from(Hour { at_ms, signal, operator, memory_kb, load, temperature }: Hour) -> Self {
        let (last, min, max) = match signal {
            Some(Span { last, min, max }) => (Some(last), Some(min), Some(max)),
            None => (None, None, None),
        };
        Self {
            at: Time(at_ms),
            signal_dbm: last,
            signal_min_dbm: min,
            signal_max_dbm: max,
            operator,
            memory_kb,
            load: load.map(devices::load),
            temperature: temperature.map(devices::degrees),
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_protocol::Status;
    use serde_json::json;

    use super::super::rig::Rig;
    use super::*;
    use crate::store::samples::imei;
    use crate::store::{Batch, Report};

    #[test]
    fn fleet_is_counted_and_shown_over_time() {
        for rig in Rig::both() {
            let now = clock::now().utc_ms;
            let slot = |minutes: i64, online| {
                let at_ms = now - minutes * 60_000;
                Slot { at_ms: at_ms - at_ms.rem_euclid(SLOT_MS), online, came: 3, went: 2, refused: 1 }
            };
            let slots = vec![slot(25 * 60, 9), slot(60, 7), slot(60, 8)];
            rig.operators.store.apply(&Batch { slots, ..Batch::default() }).unwrap();
            let (status, fleet) = rig.get("/api/fleet");
            assert_eq!((status, &fleet["known"], &fleet["offline"]), (200, &json!(3), &json!(3)));
            let slots = fleet["slots"].as_array().unwrap();
            assert_eq!((slots.len(), &slots[0]["online"], &slots[0]["came"]), (2, &json!(8), &json!(6)));
            // The one that goes on.
            assert_eq!((&slots[1]["online"], &slots[1]["went"]), (&json!(0), &json!(0)));
            assert_eq!(rig.get("/api/fleet?hours=48").1["slots"].as_array().unwrap().len(), 3);
            assert_eq!(rig.get("/api/fleet?hours=0").0, 400);
        }
    }

    #[test]
    fn device_is_shown_over_time() {
        for rig in Rig::both() {
            let now = clock::now().utc_ms;
            for (hours, signal_dbm) in [(49, -60), (3, -70), (3, -90), (3, -80)] {
                let status = Status {
                    signal_dbm: Some(signal_dbm),
                    operator: Some("262-01".try_into().unwrap()),
                    load: Some(150),
                    temperature: Some(-55),
                    ..Status::default()
                };
                // In one and the same hour.
                let at_ms = now - now.rem_euclid(3_600_000) - hours * 3_600_000;
                let reports = vec![(imei(2), Report { status, at_ms })];
                rig.operators.store.apply(&Batch { reports, ..Batch::default() }).unwrap();
            }
            let (status, history) = rig.get("/api/devices/869731052403821/history?days=1");
            let hours = history["hours"].as_array().unwrap();
            assert_eq!((status, hours.len()), (200, 1));
            assert_eq!(
                [&hours[0]["signal_dbm"], &hours[0]["signal_min_dbm"], &hours[0]["signal_max_dbm"]],
                [-80, -90, -70]
            );
            assert_eq!(
                (&hours[0]["operator"], &hours[0]["load"], &hours[0]["temperature"]),
                (&json!("262-01"), &json!(1.5), &json!(-5.5))
            );
            assert_eq!(
                rig.get("/api/devices/869731052403821/history").1["hours"].as_array().unwrap().len(),
                2
            );
            assert_eq!(rig.get("/api/devices/869731052403821/history?days=0").0, 400);
            assert_eq!(rig.get("/api/devices/990016259811154/history").0, 404);
        }
    }
}
