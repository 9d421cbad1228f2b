//! Brings a fleet from one server's database into the NATS that several share, and back. No server runs meanwhile: the fleet is
//! in one place at a time.

use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;

use super::nats::{Nats, NatsError};
use super::settings::ClusterSettings;
use super::wire::{self, Meta, Row};
use super::{Known, agree, beside, open_copy, read_fleet};
use crate::clock;
use crate::store::{
    Batch, Device, EventQuery, Fleet, Retention, Sqlite, Store, StoredEvent, ensure_closed, restore,
};

/// How many rows go at once.
const CHUNK: usize = 4096;
/// Of a look at the fleet by none of its nodes.
const NOBODY: u8 = 0;

/// What was brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Devices, those that never came among them.
    pub devices: usize,
    /// Events.
    pub events: usize,
}

/// Brings what the database at `store` holds into NATS, where no fleet may be yet. `progress` is told how much there is and
/// how much of it is done.
///
/// # Errors
/// In words; the database is as it was, and what is in NATS is none that a node takes: it is finished by doing it again.
pub async fn share(
    settings: &ClusterSettings,
    store: &Path,
    retention: Retention,
    mut progress: impl FnMut(usize, usize),
) -> Result<Moved, String> {
    if !store.exists() {
        return Err(format!("{}: there is no such file", store.display()));
    }
    ensure_closed(store).map_err(|fault| fault.to_string())?;
    let from = Sqlite::open(store, retention, clock::now()).map_err(|fault| fault.to_string())?;
    let fleet = from.load().map_err(|fault| fault.to_string())?;
    nobody_online(&fleet.devices, "stop the server first, in good order")?;
    let told = |fault: NatsError| format!("NATS at {}: {fault}", settings.shown());
    let nats = Nats::open(settings, retention.sessions + retention.refusals).await.map_err(told)?;
    let meta = agree(&nats).await.map_err(told)?;
    let (Known { fleet: held, .. }, _) = read_fleet(&nats, NOBODY).await.map_err(told)?;
    let is_empty = held.devices.is_empty() && held.settings.is_empty();
    if !meta.moving && !is_empty {
        return Err(format!("there is a fleet of {} devices in NATS already", held.devices.len()));
    }
    put_meta(&nats, &Meta { moving: true, ..meta.clone() }).await.map_err(told)?;
    let moved = bring(&nats, &from, &fleet, &mut progress).await?;
    put_meta(&nats, &Meta { moving: false, ..meta }).await.map_err(told)?;
    Ok(moved)
}

async fn bring(
    nats: &Nats,
    from: &Sqlite,
    fleet: &Fleet,
    progress: &mut impl FnMut(usize, usize),
) -> Result<Moved, String> {
    let told = |fault: NatsError| format!("NATS: {fault}: what was brought so far is there; do it again");
    let page = |after, limit| {
        from.events(&EventQuery { after: Some(after), imei: None, limit }).map_err(|fault| fault.to_string())
    };
    let rows = fleet.devices.len() + fleet.settings.len() + fleet.reports.len();
    let (mut after, mut events) = (0, 0);
    loop {
        let found = page(after, CHUNK)?.events;
        let Some(last) = found.last() else { break };
        after = last.id;
        events += found.len();
        let messages = found.iter().map(|StoredEvent { id, event }| {
            let token = event.imei.map_or_else(|| "none".to_owned(), |imei| imei.to_string());
            // Who begins again tells none of them twice.
            Nats::event(&token, &format!("moved-{id}"), wire::write_event(event))
        });
        nats.store(messages.collect()).await.map_err(told)?;
        progress(events, events + rows);
    }
    let devices = fleet.devices.iter().map(|device| {
        let row = Row { device: device.clone(), returned: 0 };
        (format!("device.{}", device.imei), wire::write_device(&row))
    });
    let settings =
        fleet.settings.iter().map(|(imei, held)| (format!("settings.{imei}"), wire::write_settings(held)));
    let reports =
        fleet.reports.iter().map(|(imei, report)| (format!("report.{imei}"), wire::write_report(report)));
    let all: Vec<(String, Vec<u8>)> = settings.chain(reports).chain(devices).collect();
    for (number, chunk) in all.chunks(CHUNK).enumerate() {
        let messages = chunk.iter().map(|(key, value)| Nats::any_row(key, value.clone()));
        nats.store(messages.collect()).await.map_err(told)?;
        progress(events + number * CHUNK + chunk.len(), events + rows);
    }
    let never_came =
        fleet.settings.keys().filter(|imei| fleet.devices.iter().all(|device| device.imei != **imei));
    Ok(Moved { devices: fleet.devices.len() + never_came.count(), events })
}

/// Makes the database at `store` of what NATS holds; a file that is there is kept under another name, which is returned.
///
/// # Errors
/// In words; what is in NATS and the file that is there are as they were.
pub async fn unshare(
    settings: &ClusterSettings,
    store: &Path,
    retention: Retention,
) -> Result<(Moved, Option<PathBuf>), String> {
    let told = |fault: NatsError| format!("NATS at {}: {fault}", settings.shown());
    let nats = Nats::open(settings, retention.sessions + retention.refusals).await.map_err(told)?;
    let meta = agree(&nats).await.map_err(told)?;
    let (Known { fleet, .. }, _) = read_fleet(&nats, NOBODY).await.map_err(told)?;
    nobody_online(&fleet.devices, "stop all nodes first, in good order")?;
    let last = nats.last_event().await.map_err(told)?;
    let copy = open_copy(&beside(store, "copy", &meta), retention, last)?;
    let fault = |fault: crate::store::StoreError| fault.to_string();
    let next = fleet.devices.iter().map(|device| device.session.id).max().unwrap_or(0) + 1;
    let rows = Batch {
        devices: fleet.devices.clone(),
        settings: fleet.settings.clone().into_iter().collect(),
        reports: fleet.reports.clone().into_iter().collect(),
        next_session_id: Some(next),
        ..Batch::default()
    };
    copy.follow(&rows, &[]).map_err(fault)?;
    follow_up_to(&nats, &copy, last).await.map_err(|text| text.to_string())?;
    let made = copy.backup(clock::now()).map_err(fault)?;
    let before = restore(&made, store, clock::now()).map_err(fault)?;
    // It is in its place now.
    let _ = std::fs::remove_file(made);
    let held = Sqlite::open(store, retention, clock::now()).and_then(|file| file.load()).map_err(fault)?;
    let devices = held.devices.len()
        + held.settings.keys().filter(|imei| held.devices.iter().all(|device| device.imei != **imei)).count();
    let events = usize::try_from(last).unwrap_or(usize::MAX);
    Ok((Moved { devices, events }, before))
}

/// Has the copy hold all events up to this one.
async fn follow_up_to(nats: &Nats, copy: &Sqlite, last: u64) -> Result<(), String> {
    let newest = copy
        .events(&EventQuery { after: None, imei: None, limit: 1 })
        .map_err(|fault| fault.to_string())?
        .newest;
    let mut number = newest.cast_unsigned();
    if number >= last {
        return Ok(());
    }
    let mut told = nats.events_after(number).await.map_err(|fault| fault.to_string())?;
    let mut batch = Vec::new();
    while number < last {
        let next = tokio::time::timeout(super::nats::PATIENCE, told.next()).await;
        let Ok(Some(Ok(message))) = next else { return Err("NATS: events do not come any more".to_owned()) };
        number = super::follow::read(&message, &mut batch).unwrap_or(number);
        if batch.len() >= CHUNK || number >= last {
            copy.follow(&Batch::default(), &batch).map_err(|fault| fault.to_string())?;
            batch.clear();
        }
    }
    Ok(())
}

async fn put_meta(nats: &Nats, meta: &Meta) -> Result<(), NatsError> {
    let put = nats.fleet.put("meta", wire::write(meta).into()).await;
    put.map(drop).map_err(|fault| NatsError(format!("the bucket of the fleet: {fault}")))
}

fn nobody_online(devices: &[Device], what_to_do: &str) -> Result<(), String> {
    match devices.iter().filter(|device| device.session.ended.is_none()).count() {
        0 => Ok(()),
        online => Err(format!("{online} devices are online: {what_to_do}")),
    }
}
