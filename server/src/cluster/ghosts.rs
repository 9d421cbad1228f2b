//! Sessions that this node held when it was killed, and of which NATS knows nothing or too little: they began while it was away.
//! What the node had kept of them comes into the fleet, and their ends are told as well.

use std::collections::BTreeMap;

use moorline_protocol::Imei;

use super::spool::Spool;
use crate::clock::Now;
use crate::registry::end_unseen;
use crate::store::{Batch, Device, Event, Fleet, StoreError};

/// Ends those that the spool shows online, and has the fleet know what waits there.
pub(super) fn end(spool: &Spool, fleet: &mut Fleet, now: Now) -> Result<(), StoreError> {
    let Batch { devices, settings, reports, .. } = spool.rows()?;
    let Found { changed, events, outdated } = look(devices, &mut fleet.devices, now);
    spool.remove_devices(&outdated)?;
    spool.put(&Batch { devices: changed, events, ..Batch::default() })?;
    for (imei, waiting) in settings {
        let known = fleet.settings.entry(imei).or_default();
        if known.revision < waiting.revision {
            *known = waiting;
        }
    }
    for (imei, waiting) in reports {
        fleet.reports.entry(imei).or_insert(waiting);
    }
    Ok(())
}

/// What is to be done about what waited.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Rows that say now that their sessions ended.
    changed: Vec<Device>,
    /// The same as events.
    events: Vec<Event>,
    /// Rows that are not to be told any more.
    outdated: Vec<Imei>,
}

/// `waiting` is as the killed node left it, `known` as NATS has it.
fn look(waiting: Vec<Device>, known: &mut Vec<Device>, now: Now) -> Found {
    let places: BTreeMap<Imei, usize> =
        known.iter().enumerate().map(|(place, device)| (device.imei, place)).collect();
    let mut found = Found::default();
    for mut device in waiting {
        let place = places.get(&device.imei).copied();
        let other = place.map(|place| &known[place].session);
        let is_older = other.is_some_and(|other| other.id > device.session.id);
        let was_lost = other.is_some_and(|other| other.id == device.session.id && other.ended.is_some());
        if device.session.ended.is_none() {
            if !was_lost {
                found.events.push(end_unseen(&mut device, now));
            }
            if was_lost || is_older {
                found.outdated.push(device.imei);
                continue;
            }
            found.changed.push(device.clone());
        }
        match place {
            _ if is_older => {}
            Some(place) => known[place] = device,
            None => known.push(device),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::store::{Kind, samples};

    fn device(session: u64, ended: bool) -> Device {
        let mut device = samples::device(if ended { 2 } else { 1 });
        device.imei = samples::imei(1);
        device.session.id = session;
        device
    }

    /// What becomes of a row that waits beside one that is known: the events, whether it is told, the session that is known now.
    fn looked(waiting: &Device, known: Option<Device>) -> (Vec<(Kind, u64)>, bool, u64, bool) {
        let mut all: Vec<Device> = known.into_iter().collect();
        let found = look(vec![waiting.clone()], &mut all, clock::now());
        let events = found.events.iter().map(|event| (event.kind, event.session_id.unwrap())).collect();
        let session = &all[0].session;
        (events, found.outdated.is_empty(), session.id, session.ended.is_some())
    }

    #[test]
    fn session_that_nobody_knew_ends_and_is_known() {
        for known in [None, Some(device(5, true)), Some(device(5, false)), Some(device(7, false))] {
            assert_eq!(looked(&device(7, false), known), (vec![(Kind::Offline, 7)], true, 7, true));
        }
    }

    #[test]
    fn session_that_others_ended_does_not_come_back() {
        assert_eq!(looked(&device(7, false), Some(device(7, true))), (vec![], false, 7, true));
    }

    #[test]
    fn session_of_a_device_that_moved_ends_and_its_row_is_not_told() {
        assert_eq!(
            looked(&device(7, false), Some(device(9, false))),
            (vec![(Kind::Offline, 7)], false, 9, false)
        );
    }

    #[test]
    fn session_that_ended_is_known_so() {
        assert_eq!(looked(&device(7, true), Some(device(7, false))), (vec![], true, 7, true));
        assert_eq!(looked(&device(7, true), Some(device(9, false))), (vec![], true, 9, false));
    }
}
