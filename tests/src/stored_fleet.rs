//! A fleet as a server's database has it after a while: devices of several makers, with what operators decided of them, what
//! they told, and how the last day was. For what has to be seen or measured with many devices at once.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use moorline_protocol::{Imei, Status};
use moorline_server::clock;
use moorline_server::expiry::Remaining;
use moorline_server::session::Dialect;
use moorline_server::store::{
    Batch, Credential, Device, Ended, Event, Hold, HoldKind, Kind, LastSession, Report, Retention, SLOT_MS,
    Settings, Slot, Sqlite, Store as _,
};

use crate::failure::Failure;

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// How many devices are written at once.
const CHUNK: u64 = 5000;

/// What devices have in common; each has one of each.
const MODEMS: [&str; 4] = ["Quectel EC25", "SIMCOM SIM7600E-H", "Telit LE910C1-EU", "u-blox SARA-R510S"];
const VERSIONS: [&str; 3] = ["0.1.0", "0.1.1", "0.2.0"];
const CAUSES: [&str; 4] = ["idle", "lost", "goodbye", "server_stopping"];
const PLACES: [&str; 8] = [
    "Harbour crane",
    "Pump house",
    "Lift",
    "Cold store",
    "Weighbridge",
    "Lock gate",
    "Substation",
    "Ferry ramp",
];

/// The device of such a number; its TAC is for test equipment.
///
/// # Errors
/// There are a million of them.
pub fn imei(number: u64) -> Result<Imei, Failure> {
    Ok(Imei::from_urn(&format!("urn:gsma:imei:00499901-{number:06}-0"))?)
}

/// What operators call it; most have no name in a large fleet.
#[must_use]
pub fn label(number: u64) -> Option<String> {
    let place = PLACES[(number / 10 % 8) as usize];
    number.is_multiple_of(10).then(|| format!("{place} {}", number / 80 + 1))
}

/// Makes the database of a server that has known so many devices, all of them offline now.
///
/// # Errors
/// It cannot be written.
#[track_caller]
pub fn store(path: &Path, devices: u64) -> Result<(), Failure> {
    let now = clock::now();
    let store = Sqlite::open(path, Retention::default(), now)?;
    for begin in (0..devices).step_by(CHUNK as usize) {
        let mut batch = Batch { next_session_id: Some(devices + 1), ..Batch::default() };
        for number in begin..devices.min(begin + CHUNK) {
            let imei = imei(number)?;
            if let Some(settings) = settings(number, now.utc_ms) {
                batch.settings.push((imei, settings));
            }
            // Some are added and never come.
            if number % 50 == 7 {
                continue;
            }
            let device = device(imei, number, now.utc_ms);
            // What has a name is looked at; a week of the others would take long to write.
            let hours = if number % 10 == 0 && number < 100 { 168 } else { 0 };
            for hour in (0..=hours).rev().step_by(3) {
                batch
                    .reports
                    .push((imei, report(number, hour, device.last_seen_ms - hour as i64 * HOUR_MS)?));
            }
            batch.events.extend(events(&device));
            batch.devices.push(device);
        }
        store.apply(&batch)?;
    }
    store.apply(&Batch { slots: day(devices as usize, now.utc_ms), ..Batch::default() })?;
    Ok(())
}

fn device(imei: Imei, number: u64, now_ms: i64) -> Device {
    let last_seen_ms = now_ms - 1000 * (number * 7919 % 86_400) as i64;
    let not_after_ms = now_ms + (number * 31 % 730) as i64 * DAY_MS + DAY_MS;
    let [_, b, c, d] = (number as u32).to_be_bytes();
    Device {
        imei,
        app_id: Some([number as u8; 16]),
        agent_version: VERSIONS[(number % 3) as usize].into(),
        modem: MODEMS[(number % 4) as usize].into(),
        first_seen_ms: now_ms - 90 * DAY_MS,
        last_seen_ms,
        session: LastSession {
            id: number + 1,
            connected_at_ms: last_seen_ms - DAY_MS,
            address: (Ipv4Addr::new(10, b, c, d), 40_000 + (number % 10_000) as u16).into(),
            dialect: if number % 20 == 3 { Dialect::Classic } else { Dialect::Native },
            tls: "1.3".into(),
            heartbeat_s: Some(1740),
            ended: Some(Ended { at_ms: last_seen_ms + 2000, cause: cause(number) }),
        },
        certificate: Some(Credential {
            serial: format!("{:032x}", u128::from(number) * 0x9e37_79b9_7f4a_7c15).into(),
            issuer: "CN=Fleet CA".into(),
            not_after_ms,
            told: Remaining::at(now_ms, not_after_ms),
        }),
    }
}

fn cause(number: u64) -> Arc<str> {
    CAUSES[(number % 4) as usize].into()
}

fn settings(number: u64, now_ms: i64) -> Option<Settings> {
    let (kind, reason) = match number % 200 {
        11 => (Some(HoldKind::Blocked), "stolen"),
        57 => (Some(HoldKind::Quarantined), "two machines come in turns: a key was copied"),
        _ => (None, ""),
    };
    let hold = kind.map(|kind| Hold { kind, since_ms: now_ms - DAY_MS, reason: reason.into() });
    let label = label(number).map(String::into_boxed_str);
    let added_ms = (number % 50 == 7).then_some(now_ms - 10 * DAY_MS);
    let is_any = hold.is_some() || label.is_some() || added_ms.is_some();
    is_any.then(|| Settings { revision: 1, hold, label, added_ms, ..Settings::default() })
}

fn report(number: u64, hours_ago: u64, at_ms: i64) -> Result<Report, Failure> {
    let status = Status {
        signal_dbm: Some(-113 + ((number * 13 + 30 + hours_ago * hours_ago / 7 % 17) % 63) as i16),
        registration: Some(1),
        operator: Some("262-01".try_into()?),
        uptime_s: Some(86_400 * 9 + number as u32),
        memory_kb: Some(51_200),
        load: Some(12),
        temperature: Some(385),
    };
    Ok(Report { status, at_ms })
}

fn events(device: &Device) -> [Event; 2] {
    let event = |at_ms, kind, cause| Event {
        at_ms,
        kind,
        imei: Some(device.imei),
        session_id: Some(device.session.id),
        address: Some(device.session.address),
        certificate: None,
        cause,
        text: None,
    };
    let ended = device.session.ended.as_ref();
    [
        event(device.session.connected_at_ms, Kind::Online, None),
        event(device.last_seen_ms, Kind::Offline, ended.map(|ended| Arc::clone(&ended.cause))),
    ]
}

/// A day with a night in it, when fewer are online, and one bad hour.
fn day(devices: usize, now_ms: i64) -> Vec<Slot> {
    let now_ms = now_ms - now_ms.rem_euclid(SLOT_MS);
    let slots = 1..=DAY_MS / SLOT_MS;
    slots
        .rev()
        .map(|before| {
            let turn = std::f64::consts::TAU * before as f64 / 288.0;
            let bad = (100..112).contains(&before);
            let share = 0.9 - 0.06 * turn.sin() - if bad { 0.2 } else { 0.0 };
            let few = devices as f64 / 400.0 * (1.2 + turn.cos());
            let many = devices as f64 / 50.0;
            Slot {
                at_ms: now_ms - before * SLOT_MS,
                online: (devices as f64 * share) as usize,
                came: if (98..104).contains(&before) { many } else { few } as u32,
                went: if (108..112).contains(&before) { many } else { few } as u32,
                refused: u32::from(before % 40 == 0),
            }
        })
        .collect()
}
