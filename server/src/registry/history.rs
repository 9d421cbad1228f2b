//! How devices and the fleet are over time, as far as the store is told of it.

use std::ops::ControlFlow;

use moorline_protocol::Status;

use super::{Entry, Presence, Registry, State};
use crate::clock::Now;
use crate::store::{Report, SLOT_MS, Slot};

/// A device that is heard anew after so long has the store told, so that a crash costs at most that much of `last_seen`.
const SAVE_LAST_SEEN_AFTER_MS: i64 = 10 * 60 * 1000;

/// A device's reports are stored this seldom; what it tells in between is shown until the server stops.
const SAVE_REPORT_AFTER_MS: i64 = 60 * 1000;

impl Registry {
    /// A device tells how it and its line are.
    pub fn report(&self, presence: &Presence, status: Status, now: Now) {
        let mut state = self.lock();
        if let Some(entry) = state.devices.get_mut(&presence.imei) {
            let report = Report { status, at_ms: now.utc_ms };
            // A clock that was set back must not keep reports from being stored.
            if (now.utc_ms - entry.report_stored_ms).abs() >= SAVE_REPORT_AFTER_MS {
                entry.report_stored_ms = now.utc_ms;
                self.queue.put_report(presence.imei, report.clone());
            }
            entry.report = Some(Box::new(report));
        }
    }

    /// Has the store told how the fleet was since the last call. Call it at least once in every [`SLOT_MS`], and at the end.
    pub fn save_slot(&self, now: Now) {
        let mut state = self.lock();
        let slot = state.slot_at(now);
        state.slot = Slot::default();
        self.queue.put_slot(slot);
    }

    /// The five minutes that go on.
    #[must_use]
    pub fn slot(&self, now: Now) -> Slot {
        self.lock().slot_at(now)
    }

    /// Has the store told when devices were last heard that have been online for long. Call it every minute or so.
    pub fn save_last_seen(&self, now: Now) {
        self.in_chunks(None, |state, imeis| {
            for imei in imeis {
                let entry = state.devices.get_mut(imei).map(Box::as_mut);
                let Some(Entry { device, online: Some(online), .. }) = entry else { continue };
                let last_seen_ms = online.presence.last_seen_ms().min(now.utc_ms);
                if last_seen_ms - device.last_seen_ms >= SAVE_LAST_SEEN_AFTER_MS {
                    device.last_seen_ms = last_seen_ms;
                    self.queue.put_device(device.clone());
                }
            }
            ControlFlow::Continue(())
        });
    }
}

impl State {
    fn slot_at(&self, now: Now) -> Slot {
        let at_ms = now.utc_ms - now.utc_ms.rem_euclid(SLOT_MS);
        Slot { at_ms, online: self.online_anywhere(), ..self.slot }
    }
}
