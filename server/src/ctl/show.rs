//! Devices and events as people read them. Takes the API's JSON; what is not there is a dash.

use serde_json::Value;

use super::{times, usage};

pub(super) const DEVICE_HEAD: [&str; 7] =
    ["IMEI", "STATE", "SINCE", "LAST SEEN", "PROTOCOL", "ADDRESS", "MODEM"];

pub(super) const ABSENT: &str = "-";

pub(super) fn device_row(device: &Value, now_ms: i64) -> [String; 7] {
    let since = if is_online(device) { "connected_at" } else { "disconnected_at" };
    [
        text(device, "imei"),
        state(device),
        ago(device, since, now_ms),
        ago(device, "last_seen", now_ms),
        text(device, "protocol"),
        text(device, "address"),
        text(device, "modem"),
    ]
}

pub(super) fn device(device: &Value, now_ms: i64) -> Vec<(&'static str, String)> {
    let certificate = &device["certificate"];
    let mut pairs = vec![
        ("IMEI", text(device, "imei")),
        ("Label", text(device, "label")),
        ("State", state(device)),
        ("Admission", admission(device, now_ms)),
        ("Connected", time(device, "connected_at", now_ms)),
    ];
    if !is_online(device) {
        pairs.push(("Disconnected", time(device, "disconnected_at", now_ms)));
    }
    pairs.extend([
        ("Last seen", time(device, "last_seen", now_ms)),
        ("First seen", time(device, "first_seen", now_ms)),
        ("Address", text(device, "address")),
        ("Protocol", format!("{} over TLS {}", text(device, "protocol"), text(device, "tls"))),
        ("Heartbeat", device["heartbeat_s"].as_u64().map_or_else(|| ABSENT.to_owned(), |s| format!("{s} s"))),
        ("  bounds", bounds(&device["heartbeat_bounds"])),
        ("Session", text(device, "session_id")),
        ("Application", text(device, "app_id")),
        ("Agent", text(device, "agent_version")),
        ("Modem", text(device, "modem")),
        ("Certificate", text(certificate, "serial")),
        ("  issued by", text(certificate, "issuer")),
        ("  expires", time(certificate, "expires_at", now_ms)),
    ]);
    pairs.extend(usage::pairs(&device["usage"], now_ms));
    pairs
}

pub(super) const HOUR_HEAD: [&str; 6] = ["TIME (UTC)", "SIGNAL", "SPAN", "OPERATOR", "MEMORY", "TEMPERATURE"];

pub(super) fn hour_row(hour: &Value) -> [String; 6] {
    let with_unit = |name: &str, unit: &str| match text(hour, name) {
        absent if absent == ABSENT => absent,
        value => format!("{value} {unit}"),
    };
    let span = match (hour["signal_min_dbm"].as_i64(), hour["signal_max_dbm"].as_i64()) {
        (Some(min), Some(max)) if min != max => format!("{min} to {max}"),
        _ => ABSENT.to_owned(),
    };
    [
        hour["at"].as_str().and_then(times::plain).unwrap_or_else(|| ABSENT.to_owned()),
        with_unit("signal_dbm", "dBm"),
        span,
        text(hour, "operator"),
        with_unit("memory_kb", "KiB"),
        with_unit("temperature", "°C"),
    ]
}

/// How wide the columns of events are before their last; fixed, for events are written as they happen.
pub(super) const EVENT_WIDTHS: [usize; 5] = [19, 15, 17, 21, 0];
pub(super) const EVENT_HEAD: [&str; 5] = ["TIME (UTC)", "IMEI", "EVENT", "ADDRESS", "WHAT HAPPENED"];

pub(super) fn event_row(event: &Value) -> [String; 5] {
    let session = event["session_id"].as_u64().map(|id| format!("session {id}"));
    let told = event["text"].as_str().map(str::to_owned);
    let what: Vec<_> = session.into_iter().chain(told).collect();
    [
        event["at"].as_str().and_then(times::plain).unwrap_or_else(|| ABSENT.to_owned()),
        text(event, "imei"),
        text(event, "kind"),
        text(event, "address"),
        if what.is_empty() { ABSENT.to_owned() } else { what.join(": ") },
    ]
}

/// A bound that an operator set for the device, in seconds as the heartbeat is; the other one is the fleet's.
fn bounds(set: &Value) -> String {
    match (set["min_s"].as_u64(), set["max_s"].as_u64()) {
        (Some(min), Some(max)) => format!("{min} to {max} s"),
        (Some(min), None) => format!("{min} s at least"),
        (None, Some(max)) => format!("{max} s at most"),
        (None, None) => "the fleet's".to_owned(),
    }
}

fn is_online(device: &Value) -> bool {
    device["online"] == true
}

fn state(device: &Value) -> String {
    let held = device["state"].as_str().filter(|state| *state != "active");
    match (is_online(device), held, device["disconnect_cause"].as_str()) {
        (true, ..) => "online".to_owned(),
        (false, Some(held), _) => held.to_owned(),
        (false, None, _) if device["first_seen"].is_null() => "never seen".to_owned(),
        (false, None, Some(cause)) => format!("offline ({cause})"),
        (false, None, None) => "offline".to_owned(),
    }
}

fn admission(device: &Value, now_ms: i64) -> String {
    let state = text(device, "state");
    let reason = device["state_reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    match device["state_since"].as_str() {
        Some(_) => format!("{state} since {}{reason}", time(device, "state_since", now_ms)),
        None => state,
    }
}

fn text(object: &Value, name: &str) -> String {
    match &object[name] {
        Value::Null => ABSENT.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn ago(object: &Value, name: &str, now_ms: i64) -> String {
    let relative = object[name].as_str().and_then(|text| times::relative(text, now_ms));
    relative.unwrap_or_else(|| ABSENT.to_owned())
}

pub(super) fn time(object: &Value, name: &str, now_ms: i64) -> String {
    let Some(text) = object[name].as_str() else { return ABSENT.to_owned() };
    match (times::plain(text), times::relative(text, now_ms)) {
        (Some(plain), Some(relative)) => format!("{plain} UTC ({relative})"),
        _ => text.to_owned(),
    }
}
