//! How long a server takes until it listens, by how many devices it knows.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use moorline_server::clock;
use moorline_server::expiry::Remaining;
use moorline_server::session::Dialect;
use moorline_server::store::{
    Batch, Credential, Device, Ended, Event, Kind, LastSession, Retention, Sqlite, Store as _,
};

use super::Subject;
use crate::failure::Failure;
use crate::load::{Usage, imei, now};
use crate::rig::Rig;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// How many devices are in its database.
    pub known: u32,
    /// And how many events.
    pub events: u32,
    /// How large the database is, bytes.
    pub database: u64,
    /// From its start until it listens.
    pub took: Duration,
    /// What it then had used and held.
    pub usage: Usage,
}

/// Fills a database with devices that have come and gone and with so many events of them, and starts a server with it.
///
/// # Errors
/// It cannot be filled, or the server does not start.
pub fn start_with_known(rig: &Rig, known: u32, events: u32) -> Result<Start, Failure> {
    let database = rig.folder().join(format!("known-{known}-{events}.db"));
    let store = Sqlite::open(&database, Retention::default(), clock::now())?;
    let texts = Texts { version: "0.1.0".into(), modem: "Quectel EC25".into(), issuer: "CN=Test CA".into() };
    let devices = (0..known).map(|number| texts.device(number)).collect::<Result<Vec<_>, _>>()?;
    let of_devices = (0..events).zip(devices.iter().cycle());
    let events_of_devices = of_devices.map(|(number, device)| event(device, number)).collect();
    store.apply(&Batch { devices, events: events_of_devices, ..Batch::default() })?;
    drop(store);
    let size = fs::metadata(&database)?.len();
    let began = now();
    let subject = Subject::with_database(rig, &database)?;
    Ok(Start { known, events, database: size, took: now() - began, usage: subject.usage()? })
}

/// A device came, or went.
fn event(device: &Device, number: u32) -> Event {
    let went = number.is_multiple_of(2);
    Event {
        at_ms: device.last_seen_ms,
        kind: if went { Kind::Offline } else { Kind::Online },
        imei: Some(device.imei),
        session_id: Some(device.session.id),
        address: Some(device.session.address),
        certificate: None,
        cause: went.then(|| "lost".into()),
        text: went.then(|| "the connection was lost".into()),
    }
}

/// What all of them have in common.
struct Texts {
    version: Arc<str>,
    modem: Arc<str>,
    issuer: Arc<str>,
}

impl Texts {
    fn device(&self, number: u32) -> Result<Device, Failure> {
        let then = clock::now().utc_ms - 60_000;
        Ok(Device {
            imei: imei(number)?,
            app_id: Some([7; 16]),
            agent_version: Arc::clone(&self.version),
            modem: Arc::clone(&self.modem),
            first_seen_ms: then,
            last_seen_ms: then,
            session: LastSession {
                id: u64::from(number) + 1,
                connected_at_ms: then,
                address: SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0000 + number), 40_000)),
                dialect: Dialect::Native,
                tls: "1.3".into(),
                heartbeat_s: Some(60),
                ended: Some(Ended { at_ms: then, cause: "lost".into() }),
            },
            certificate: Some(Credential {
                serial: format!("{number:040x}").into(),
                issuer: Arc::clone(&self.issuer),
                not_after_ms: then + 365 * 24 * 60 * 60 * 1000,
                told: Remaining::Later,
            }),
        })
    }
}
