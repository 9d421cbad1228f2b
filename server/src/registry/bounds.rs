//! What an operator grants single devices, apart from the fleet. Few have bounds of their own, so they lie beside the
//! devices and cost those without any nothing.

use std::time::Duration;

use moorline_protocol::Imei;

use super::{Registry, State};
use crate::clock::Now;
use crate::session::{Bounds, Cause, Dialect};
use crate::store::{Event, Kind};

impl Registry {
    /// What was set for this device.
    #[must_use]
    pub fn bounds(&self, imei: Imei) -> Bounds {
        self.lock().bounds_of(imei)
    }

    /// Sets them, once the store keeps them. A native session that stands is ended, to come back at once: only a Welcome
    /// grants. A classic device keeps its own interval, whatever is set.
    pub fn bound(&self, imei: Imei, bounds: Bounds, now: Now) {
        let mut state = self.lock();
        if bounds == Bounds::NONE {
            state.bounds.remove(&imei);
        } else {
            state.bounds.insert(imei, bounds);
        }
        self.queue.put_event(Event {
            at_ms: now.utc_ms,
            kind: Kind::HeartbeatSet,
            imei: Some(imei),
            session_id: None,
            address: None,
            certificate: None,
            cause: None,
            text: Some(format!("its longest silence is granted {bounds}").into()),
        });
        if let Some(entry) = state.devices.get(&imei)
            && let Some(online) = &entry.online
            && entry.device.session.dialect == Dialect::Native
        {
            online.exit.order(Cause::Dropped, Duration::ZERO);
        }
    }
}

impl State {
    pub(super) fn bounds_of(&self, imei: Imei) -> Bounds {
        self.bounds.get(&imei).copied().unwrap_or_default()
    }
}
