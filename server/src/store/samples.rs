//! Devices and events to test with.

use std::net::Ipv4Addr;

use moorline_protocol::Imei;

use super::{Batch, Credential, Device, Ended, Event, EventQuery, Kind, LastSession};
use crate::expiry::Remaining;
use crate::session::Dialect;

pub(crate) const EVERYTHING: EventQuery = EventQuery { after: Some(0), imei: None, limit: usize::MAX };

pub(crate) fn imei(n: usize) -> Imei {
    ["004999010640000", "015184008301272", "869731052403821"][n].parse().unwrap()
}

pub(crate) fn device(n: usize) -> Device {
    Device {
        imei: imei(n),
        app_id: (n > 0).then_some([n as u8; 16]),
        agent_version: "0.1.0".into(),
        modem: "Quectel EC25".into(),
        first_seen_ms: 1_764_000_000_000,
        last_seen_ms: 1_764_000_000_001,
        session: LastSession {
            id: 7 + n as u64,
            connected_at_ms: 1_764_000_000_002,
            address: (Ipv4Addr::LOCALHOST, 4000).into(),
            dialect: if n > 0 { Dialect::Native } else { Dialect::Classic },
            tls: "1.3".into(),
            heartbeat_s: (n > 0).then_some(60),
            ended: (n > 1).then(|| Ended { at_ms: 1_764_000_000_003, cause: "idle".into() }),
        },
        certificate: (n > 0).then(|| Credential {
            serial: "0a".into(),
            issuer: "CN=Fleet CA".into(),
            not_after_ms: 2_000_000_000_000,
            told: if n > 1 { Remaining::Month } else { Remaining::Later },
        }),
    }
}

pub(crate) fn event(n: usize, kind: Kind) -> Event {
    let whole = n > 0;
    Event {
        at_ms: 1_764_000_000_000,
        kind,
        imei: whole.then(|| imei(n)),
        session_id: whole.then_some(7),
        address: whole.then(|| (Ipv4Addr::LOCALHOST, 4000).into()),
        certificate: whole.then(|| "0a".into()),
        cause: whole.then(|| "idle".into()),
        text: whole.then(|| "it was silent for too long".into()),
    }
}

pub(crate) fn events(kinds: &[Kind]) -> Batch {
    Batch { events: kinds.iter().map(|kind| event(1, *kind)).collect(), ..Batch::default() }
}
