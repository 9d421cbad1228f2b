//! What was decided of single devices: by operators, and by the registry itself where what comes under one IMEI cannot be one
//! device. Decisions lie beside the devices, for many are made of devices that never came, and most devices have none.

use std::net::IpAddr;
use std::time::Duration;

use moorline_protocol::Imei;

use super::lineage::Marks;
use super::{Online, Peer, Registry, State};
use crate::clock::Now;
use crate::identity::Certificate;
use crate::session::{Bounds, Cause, Dialect, Registration, Rejection};
use crate::store::{Event, Hold, HoldKind, Kind, Settings};

/// Somebody else decided meanwhile: look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outdated;

impl Registry {
    /// What was decided of this device; `None` when it neither came nor was decided of.
    #[must_use]
    pub fn settings(&self, imei: Imei) -> Option<Settings> {
        let state = self.lock();
        let is_known = state.devices.contains_key(&imei);
        state.settings.get(&imei).cloned().or_else(|| is_known.then(Settings::default))
    }

    /// Between which lengths its longest silence is granted.
    #[must_use]
    pub fn bounds(&self, imei: Imei) -> Bounds {
        self.lock().bounds_of(imei)
    }

    /// Lets a decision take effect, once the store keeps it. Where that ends the device's session it is over within moments:
    /// a hold ends any, new bounds a native one, to come back at once, since only a Welcome grants.
    ///
    /// # Errors
    /// [`Outdated`], unless `settings.revision` is the next one: nothing was changed.
    pub fn decide(&self, imei: Imei, settings: Settings, now: Now) -> Result<(), Outdated> {
        let mut state = self.lock();
        let before = state.settings.get(&imei).cloned().unwrap_or_default();
        if settings.revision != before.revision.wrapping_add(1) {
            return Err(Outdated);
        }
        for (kind, text) in told(&before, &settings) {
            self.queue.put_event(event(Some(imei), kind, text, now));
        }
        state.enforce(imei, &before, &settings);
        state.settle(imei, settings);
        Ok(())
    }

    /// Lets a decision take effect that another node made, unless what is known here is newer. Of two of one revision the one
    /// that the nodes share holds.
    pub fn follow(&self, imei: Imei, settings: Settings) {
        let mut state = self.lock();
        let before = state.settings.get(&imei).cloned().unwrap_or_default();
        if settings.revision >= before.revision && settings != before {
            state.enforce(imei, &before, &settings);
            state.settle(imei, settings);
        }
    }

    /// Lets devices that are to come be known, once the store keeps it: `decided` of `added` devices.
    pub fn add(&self, decided: Vec<(Imei, Settings)>, now: Now) {
        let mut state = self.lock();
        let text = match decided.as_slice() {
            [(imei, _)] => format!("an operator added {imei}"),
            more => format!("an operator added {} devices", more.len()),
        };
        let only = if let [(imei, _)] = decided.as_slice() { Some(*imei) } else { None };
        for (imei, settings) in decided {
            // What was decided meanwhile is newer, and made it known as well.
            if settings.revision > state.settings.get(&imei).map_or(0, |settings| settings.revision) {
                state.settle(imei, settings);
            }
        }
        self.queue.put_event(event(only, Kind::Added, text, now));
    }

    /// Ends a device's session; it may come back at once. Returns whether there was one.
    pub fn drop_session(&self, imei: Imei) -> bool {
        let state = self.lock();
        let online = state.devices.get(&imei).and_then(|entry| entry.online.as_ref());
        dismiss(online, Cause::Dropped);
        online.is_some()
    }

    /// Keeps a device out until an operator looks, and ends the session of it that stands.
    pub(super) fn quarantine(&self, state: &mut State, imei: Imei, reason: String, now: Now) {
        let settings = state.settings.get(&imei).cloned().unwrap_or_default();
        let hold = Hold { kind: HoldKind::Quarantined, since_ms: now.utc_ms, reason: reason.as_str().into() };
        let settings = Settings { revision: settings.revision.wrapping_add(1), hold: Some(hold), ..settings };
        self.queue.put_event(event(Some(imei), Kind::Quarantined, reason, now));
        self.queue.put_settings(imei, settings.clone());
        self.metrics.quarantined();
        dismiss(state.devices.get(&imei).and_then(|entry| entry.online.as_ref()), Cause::Held);
        state.settle(imei, settings);
    }
}

impl State {
    pub(super) fn bounds_of(&self, imei: Imei) -> Bounds {
        self.settings.get(&imei).map_or(Bounds::NONE, |settings| settings.bounds)
    }

    /// Why this device is not to be let in.
    pub(super) fn held(&self, imei: Imei) -> Option<Rejection> {
        let hold = self.settings.get(&imei)?.hold.as_ref()?;
        Some(match hold.kind {
            HoldKind::Blocked => Rejection::Blocked,
            HoldKind::Quarantined => Rejection::Quarantined,
        })
    }

    /// Why this cannot be the device that came before under this IMEI.
    pub(super) fn contradiction(
        &mut self,
        registration: &Registration,
        peer: &Peer,
        now: Now,
    ) -> Option<String> {
        let entry = self.devices.get_mut(&registration.imei)?;
        let before = &entry.device.session;
        let before = (before.address.ip(), entry.is_online());
        let found = entry.lineage.on_session(marks(registration, peer, Some(before)), now.instant)?;
        let address = entry.device.session.address;
        Some(format!("{} (it came from {}, and from {address} before)", found.as_str(), peer.address))
    }

    /// What a decision means for the session that stands here.
    fn enforce(&mut self, imei: Imei, before: &Settings, settings: &Settings) {
        let Some(entry) = self.devices.get_mut(&imei) else { return };
        if settings.hold.is_none() && before.hold.is_some() {
            entry.lineage.forget();
        }
        let native = entry.device.session.dialect == Dialect::Native;
        if settings.hold.is_some() {
            dismiss(entry.online.as_ref(), Cause::Held);
        } else if settings.bounds != before.bounds && native {
            dismiss(entry.online.as_ref(), Cause::Dropped);
        }
    }

    /// The one place where what was decided changes, so that what is counted of it stays right.
    pub(super) fn settle(&mut self, imei: Imei, settings: Settings) {
        let holds =
            |settings: &Settings, wanted| settings.hold.as_ref().is_some_and(|hold| hold.kind == wanted);
        let came = self.devices.contains_key(&imei);
        let now = settings.clone();
        let before = self.settings.insert(imei, settings);
        for (count, kind) in
            [(&mut self.blocked, HoldKind::Blocked), (&mut self.quarantined, HoldKind::Quarantined)]
        {
            *count += usize::from(holds(&now, kind));
            *count -= usize::from(before.as_ref().is_some_and(|before| holds(before, kind)));
        }
        self.never_seen += usize::from(before.is_none() && !came);
    }
}

pub(super) fn marks<'a>(
    registration: &Registration,
    peer: &'a Peer,
    before: Option<(IpAddr, bool)>,
) -> Marks<'a> {
    let Certificate { issuer, serial, .. } = &peer.certificate;
    Marks {
        boot_id: registration.boot_id,
        certificate: (issuer, serial),
        address: peer.address.ip(),
        before: before.map(|(address, _)| address),
        takes_over: before.is_some_and(|(_, stands)| stands),
    }
}

fn dismiss(online: Option<&Online>, cause: Cause) {
    if let Some(online) = online {
        online.exit.order(cause, Duration::ZERO);
    }
}

/// What is told of a decision: all that changed.
fn told(before: &Settings, after: &Settings) -> Vec<(Kind, String)> {
    let mut told = Vec::new();
    match (&before.hold, &after.hold) {
        (Some(_), None) => told.push((Kind::Released, "an operator lets it in again".to_owned())),
        (was, Some(hold)) if was.as_ref() != Some(hold) => told.push(match hold.kind {
            HoldKind::Blocked => (Kind::Blocked, because("an operator blocked it", &hold.reason)),
            HoldKind::Quarantined => (Kind::Quarantined, because("an operator quarantined it", &hold.reason)),
        }),
        _ => {}
    }
    if before.label != after.label {
        told.push((
            Kind::Labelled,
            match &after.label {
                Some(label) => format!("its label is \"{label}\""),
                None => "its label was taken away".to_owned(),
            },
        ));
    }
    if before.bounds != after.bounds {
        told.push((Kind::HeartbeatSet, format!("its longest silence is granted {}", after.bounds)));
    }
    told
}

fn because(what: &str, reason: &str) -> String {
    if reason.is_empty() { what.to_owned() } else { format!("{what}: {reason}") }
}

fn event(imei: Option<Imei>, kind: Kind, text: String, now: Now) -> Event {
    Event {
        at_ms: now.utc_ms,
        kind,
        imei,
        session_id: None,
        address: None,
        certificate: None,
        cause: None,
        text: Some(text.into()),
    }
}

#[cfg(test)]
mod tests;
