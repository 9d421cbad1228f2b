//! What nodes share, as JSON: rows of the bucket, events of the stream, the word by which a node is heard. It knows no NATS.
//!
//! Unknown members are passed over, so that a node reads what a later one writes; what a later version could not leave
//! compatible gets another [`VERSION`].

use std::net::SocketAddr;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use moorline_protocol::{Imei, Status};
use serde::{Deserialize, Serialize};

use crate::expiry::Remaining;
use crate::session::{Bounds, Dialect};
use crate::store::{Credential, Device, Ended, Event, Hold, HoldKind, Kind, LastSession, Report, Settings};

/// Of the form of all this; kept in the bucket by the node that made it.
pub(super) const VERSION: u32 = 1;

/// What tells one fleet's buckets from another's.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Meta {
    pub(super) version: u32,
    /// Random, of the fleet.
    pub(super) id: String,
    /// A fleet is on its way there, and not whole yet.
    #[serde(default)]
    pub(super) moving: bool,
}

/// By this a node is heard.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Beat {
    pub(super) number: u8,
    /// Of the process, random.
    pub(super) boot: String,
    /// Whether it ended its sessions and will not be heard again.
    #[serde(default)]
    pub(super) left: bool,
    /// Of the program.
    pub(super) version: String,
    /// How many sessions it holds.
    pub(super) online: usize,
}

/// What a node is asked by another.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Whether it is there.
    Here,
    /// To end the device's session.
    Drop { imei: String },
    /// Whether a decision of this revision is in force.
    Settled { imei: String, revision: u32 },
}

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Answer {
    pub(super) done: bool,
}

#[derive(Deserialize, Serialize)]
struct DeviceRow {
    app_id: Option<String>,
    agent_version: String,
    modem: String,
    first_seen: i64,
    last_seen: i64,
    session: u64,
    connected_at: i64,
    address: SocketAddr,
    protocol: String,
    tls: String,
    heartbeat_s: Option<u32>,
    ended_at: Option<i64>,
    ended_cause: Option<String>,
    certificate: Option<CertificateRow>,
    /// See [`Row::returned`].
    #[serde(default, skip_serializing_if = "is_zero")]
    returned: u64,
}

#[derive(Deserialize, Serialize)]
struct CertificateRow {
    serial: String,
    issuer: String,
    expires: i64,
    told: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct SettingsRow {
    revision: u32,
    hold: Option<HoldRow>,
    label: Option<String>,
    added_at: Option<i64>,
    min_s: Option<NonZeroU32>,
    max_s: Option<NonZeroU32>,
}

#[derive(Deserialize, Serialize)]
struct HoldRow {
    kind: String,
    since: i64,
    reason: String,
}

#[derive(Deserialize, Serialize)]
struct ReportRow {
    at: i64,
    #[serde(flatten)]
    status: Status,
}

#[derive(Deserialize, Serialize)]
struct EventRow {
    at: i64,
    kind: String,
    imei: Option<String>,
    session: Option<u64>,
    address: Option<SocketAddr>,
    certificate: Option<String>,
    cause: Option<String>,
    text: Option<String>,
}

/// A device's row, with what the registry has no use for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) device: Device,
    /// Of a session that was taken for lost and stood: which revision of the row said so.
    pub(super) returned: u64,
}

/// What one key of the bucket holds.
pub(super) enum Held {
    Device(Box<Row>),
    Settings(Imei, Settings),
    Report(Imei, Report),
    /// Nothing of a device, or of a kind that a later version has.
    Other,
}

/// `None`: it is none of this version.
pub(super) fn read_held(key: &str, value: &[u8]) -> Option<Held> {
    let Some((kind, imei)) = key.split_once('.') else { return Some(Held::Other) };
    let Ok(imei) = imei.parse() else { return Some(Held::Other) };
    match kind {
        "device" => read_device(imei, value).map(|row| Held::Device(Box::new(row))),
        "settings" => read_settings(value).map(|settings| Held::Settings(imei, settings)),
        "report" => read_report(value).map(|report| Held::Report(imei, report)),
        _ => Some(Held::Other),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(super) fn write_device(row: &Row) -> Vec<u8> {
    let Row { device, returned } = row;
    let Device { session, certificate, .. } = device;
    write(&DeviceRow {
        app_id: device.app_id.map(|id| BASE64_STANDARD.encode(id)),
        agent_version: device.agent_version.to_string(),
        modem: device.modem.to_string(),
        first_seen: device.first_seen_ms,
        last_seen: device.last_seen_ms,
        session: session.id,
        connected_at: session.connected_at_ms,
        address: session.address,
        protocol: session.dialect.as_str().to_owned(),
        tls: session.tls.to_string(),
        heartbeat_s: session.heartbeat_s,
        ended_at: session.ended.as_ref().map(|ended| ended.at_ms),
        ended_cause: session.ended.as_ref().map(|ended| ended.cause.to_string()),
        certificate: certificate.as_ref().map(|certificate| CertificateRow {
            serial: certificate.serial.to_string(),
            issuer: certificate.issuer.to_string(),
            expires: certificate.not_after_ms,
            told: (certificate.told != Remaining::Later).then(|| certificate.told.as_str().to_owned()),
        }),
        returned: *returned,
    })
}

/// `None`: it is none of this version.
pub(super) fn read_device(imei: Imei, bytes: &[u8]) -> Option<Row> {
    let row: DeviceRow = serde_json::from_slice(bytes).ok()?;
    let app_id = match row.app_id {
        Some(text) => Some(BASE64_STANDARD.decode(text).ok()?.try_into().ok()?),
        None => None,
    };
    let certificate = match row.certificate {
        Some(CertificateRow { serial, issuer, expires, told }) => Some(Credential {
            serial: serial.into(),
            issuer: issuer.into(),
            not_after_ms: expires,
            told: told.map_or(Some(Remaining::Later), |told| Remaining::from_name(&told))?,
        }),
        None => None,
    };
    let dialect = [Dialect::Native, Dialect::Classic].into_iter();
    let session = LastSession {
        id: row.session,
        connected_at_ms: row.connected_at,
        address: row.address,
        dialect: dialect.into_iter().find(|dialect| dialect.as_str() == row.protocol)?,
        tls: row.tls.into(),
        heartbeat_s: row.heartbeat_s,
        ended: row.ended_at.zip(row.ended_cause).map(|(at_ms, cause)| Ended { at_ms, cause: cause.into() }),
    };
    let device = Device {
        imei,
        app_id,
        agent_version: row.agent_version.into(),
        modem: row.modem.into(),
        first_seen_ms: row.first_seen,
        last_seen_ms: row.last_seen,
        session,
        certificate,
    };
    Some(Row { device, returned: row.returned })
}

pub(super) fn write_settings(settings: &Settings) -> Vec<u8> {
    let Settings { revision, hold, label, added_ms, bounds: Bounds { min_s, max_s } } = settings;
    write(&SettingsRow {
        revision: *revision,
        hold: hold.as_ref().map(|hold| HoldRow {
            kind: hold.kind.as_str().to_owned(),
            since: hold.since_ms,
            reason: hold.reason.to_string(),
        }),
        label: label.as_deref().map(str::to_owned),
        added_at: *added_ms,
        min_s: *min_s,
        max_s: *max_s,
    })
}

pub(super) fn read_settings(bytes: &[u8]) -> Option<Settings> {
    let row: SettingsRow = serde_json::from_slice(bytes).ok()?;
    let hold = match row.hold {
        Some(HoldRow { kind, since, reason }) => Some(Hold {
            kind: HoldKind::ALL.into_iter().find(|one| one.as_str() == kind)?,
            since_ms: since,
            reason: reason.into(),
        }),
        None => None,
    };
    Some(Settings {
        revision: row.revision,
        hold,
        label: row.label.map(Into::into),
        added_ms: row.added_at,
        bounds: Bounds { min_s: row.min_s, max_s: row.max_s },
    })
}

pub(super) fn write_report(report: &Report) -> Vec<u8> {
    write(&ReportRow { at: report.at_ms, status: report.status.clone() })
}

pub(super) fn read_report(bytes: &[u8]) -> Option<Report> {
    let ReportRow { at, status } = serde_json::from_slice(bytes).ok()?;
    Some(Report { status, at_ms: at })
}

pub(super) fn write_event(event: &Event) -> Vec<u8> {
    write(&EventRow {
        at: event.at_ms,
        kind: event.kind.as_str().to_owned(),
        imei: event.imei.map(|imei| imei.to_string()),
        session: event.session_id,
        address: event.address,
        certificate: event.certificate.as_deref().map(str::to_owned),
        cause: event.cause.as_deref().map(str::to_owned),
        text: event.text.as_deref().map(str::to_owned),
    })
}

pub(super) fn read_event(bytes: &[u8]) -> Option<Event> {
    let row: EventRow = serde_json::from_slice(bytes).ok()?;
    let imei = match row.imei {
        Some(text) => Some(text.parse().ok()?),
        None => None,
    };
    Some(Event {
        at_ms: row.at,
        kind: Kind::from_name(&row.kind)?,
        imei,
        session_id: row.session,
        address: row.address,
        certificate: row.certificate.map(Into::into),
        cause: row.cause.map(Into::into),
        text: row.text.map(Into::into),
    })
}

/// Of plain values, which always can be written.
pub(super) fn write(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    #[test]
    fn rows_come_back_as_they_went() {
        for n in 0..3 {
            let row = Row { device: samples::device(n), returned: n as u64 };
            assert_eq!(read_device(samples::imei(n), &write_device(&row)), Some(row));
        }
        for kind in Kind::ALL {
            for n in 0..2 {
                let event = samples::event(n, kind);
                assert_eq!(read_event(&write_event(&event)), Some(event));
            }
        }
        let status = Status {
            signal_dbm: Some(-71),
            operator: Some("262-01".try_into().unwrap()),
            ..Status::default()
        };
        let report = Report { status, at_ms: 1_764_000_000_000 };
        assert_eq!(read_report(&write_report(&report)), Some(report));
        let hold = Hold { kind: HoldKind::Quarantined, since_ms: 7, reason: "a copy".into() };
        let bounds = Bounds { min_s: NonZeroU32::new(60), max_s: None };
        let settings = Settings {
            revision: 3,
            hold: Some(hold),
            label: Some("Crane".into()),
            added_ms: Some(5),
            bounds,
        };
        for settings in [settings, Settings::default()] {
            assert_eq!(read_settings(&write_settings(&settings)), Some(settings));
        }
    }

    #[test]
    fn what_a_later_node_adds_is_passed_over_and_nonsense_is_nothing() {
        let mut row: serde_json::Value =
            serde_json::from_slice(&write_settings(&Settings::default())).unwrap();
        row["colour"] = "blue".into();
        assert_eq!(read_settings(row.to_string().as_bytes()), Some(Settings::default()));
        for bytes in [&b""[..], b"{", b"[]", b"\xff", b"{\"kind\":\"asleep\"}"] {
            assert!(read_settings(bytes).is_none() && read_event(bytes).is_none());
            assert!(read_device(samples::imei(0), bytes).is_none() && read_report(bytes).is_none());
        }
    }
}
