//! What the bucket holds, as far as this node knows, and what may be written over it. Pure: revisions in, writes out.
//!
//! Every write names the revision that it replaces (compare-and-set). Of a device's rows the one with the higher session id
//! holds; of one session the word of the node that holds it, but for the mark that it was lost.

use std::collections::BTreeMap;

use moorline_protocol::Imei;

use super::wire::Row;
use crate::registry::node_of;
use crate::store::{Device, Event, Kind};

/// See the module.
#[derive(Debug)]
pub(super) struct Rows {
    node: u8,
    devices: BTreeMap<Imei, Seen>,
    settings: BTreeMap<Imei, Decided>,
    /// Sessions that are told to be back; the rows may not say so yet, or be of the next session already.
    back: BTreeMap<Imei, Back>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Of the bucket.
    revision: u64,
    session: u64,
    ended: bool,
    returned: u64,
}

#[derive(Clone, Copy, Debug)]
struct Back {
    session: u64,
    /// See [`Row::returned`].
    returned: u64,
}

impl Seen {
    const fn new(row: &Row, revision: u64) -> Self {
        let session = &row.device.session;
        Self { revision, session: session.id, ended: session.ended.is_some(), returned: row.returned }
    }
}

#[derive(Clone, Copy, Debug)]
struct Decided {
    /// Of the bucket.
    revision: u64,
    /// Of the decision.
    decision: u32,
}

/// What is to be done with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// Written, if the bucket still has this revision of it; 0: none.
    Over { revision: u64, returned: u64 },
    /// Nothing: what the bucket holds is newer.
    Not,
}

impl Rows {
    pub(super) const fn new(node: u8) -> Self {
        Self { node, devices: BTreeMap::new(), settings: BTreeMap::new(), back: BTreeMap::new() }
    }

    /// The bucket holds this row; what is older than what is known changes nothing. Returns whether it is not older.
    pub(super) fn device(&mut self, row: &Row, revision: u64) -> bool {
        let seen = Seen::new(row, revision);
        let known = self.devices.entry(row.device.imei).or_insert(seen);
        if known.revision < revision {
            *known = seen;
        }
        known.revision == revision
    }

    /// The bucket was asked and holds this row at this revision, or none: so it is, even where it is older than what is known. A
    /// NATS server that leads since a moment may not have all that it will have; and one may have been set back.
    pub(super) fn found(&mut self, imei: Imei, row: Option<&Row>, revision: u64) {
        let none = Seen { revision, session: 0, ended: true, returned: 0 };
        self.devices.insert(imei, row.map_or(none, |row| Seen::new(row, revision)));
    }

    /// The bucket holds this decision; what is older than what is known changes nothing.
    pub(super) fn decision(&mut self, imei: Imei, decision: u32, revision: u64) {
        let decided = Decided { revision, decision };
        let known = self.settings.entry(imei).or_insert(decided);
        if known.revision < revision {
            *known = decided;
        }
    }

    /// What becomes of what this node has to say of a device.
    pub(super) fn next(&self, device: &Device) -> Write {
        let Some(known) = self.devices.get(&device.imei) else {
            return Write::Over { revision: 0, returned: 0 };
        };
        let Seen { revision, session, ended, .. } = *known;
        if session > device.session.id {
            return Write::Not;
        }
        let is_own = node_of(device.session.id) == self.node;
        if session == device.session.id && !is_own && ended && device.session.ended.is_none() {
            // Its own node ended it.
            return Write::Not;
        }
        let same = session == device.session.id;
        Write::Over {
            revision,
            returned: if self.comes_back(device) {
                revision
            } else if same {
                self.returned(device.imei, session)
            } else {
                0
            },
        }
    }

    /// Whether what this node has to say brings a session back that the bucket says is lost.
    pub(super) fn comes_back(&self, device: &Device) -> bool {
        let is_lost = |seen: &Seen| seen.session == device.session.id && seen.ended;
        device.session.ended.is_none() && self.devices.get(&device.imei).is_some_and(is_lost)
    }

    /// Whether the device's latest session is, or was, this node's, as far as is known.
    pub(super) fn is_own(&self, imei: Imei) -> bool {
        self.devices.get(&imei).is_none_or(|seen| node_of(seen.session) == self.node)
    }

    /// The same for a decision of this revision.
    pub(super) fn next_decision(&self, imei: Imei, decision: u32) -> Write {
        match self.settings.get(&imei) {
            None => Write::Over { revision: 0, returned: 0 },
            Some(known) if known.decision < decision => Write::Over { revision: known.revision, returned: 0 },
            Some(_) => Write::Not,
        }
    }

    /// By which name an event is known, so that it is in the stream once, whoever tells it and however often. `digest` is of
    /// all that it says.
    pub(super) fn name(&mut self, event: &Event, digest: impl FnOnce() -> String) -> String {
        match (event.kind, event.session_id) {
            (Kind::Online, Some(session)) if event.cause.is_none() => format!("begin-{session}"),
            (Kind::Offline | Kind::Replaced, Some(session)) => {
                match event.imei.map_or(0, |imei| self.returned(imei, session)) {
                    0 => format!("end-{session}"),
                    returned => format!("end-{session}-{returned}"),
                }
            }
            // A session comes back once from each time that it was taken for lost.
            (Kind::Online, Some(session)) => {
                let lost = event.imei.map_or(0, |imei| self.come_back(imei, session));
                format!("back-{session}-{lost}")
            }
            // Each node looks at every certificate.
            (Kind::CertificateExpiring, _) => {
                let imei = event.imei.map(|imei| imei.to_string()).unwrap_or_default();
                let [serial, step] =
                    [event.certificate.as_deref(), event.cause.as_deref()].map(Option::unwrap_or_default);
                format!("expiring-{imei}-{serial}-{step}")
            }
            _ => format!("{}-{}", self.node, digest()),
        }
    }

    /// Which revision said last that the session was lost, of those that it came back from; 0: none.
    fn returned(&self, imei: Imei, session: u64) -> u64 {
        let back = self.back.get(&imei).filter(|back| back.session == session);
        let seen = || self.devices.get(&imei).filter(|seen| seen.session == session);
        back.map(|back| back.returned).or_else(|| seen().map(|seen| seen.returned)).unwrap_or(0)
    }

    /// It is told that the session is back: from which revision. When it ends, that is another end from now on.
    fn come_back(&mut self, imei: Imei, session: u64) -> u64 {
        let known = self.returned(imei, session);
        let returned = match self.devices.get(&imei) {
            Some(seen) if seen.session == session && !seen.ended => known,
            Some(seen) if seen.session == session => known.max(seen.revision),
            // The row that said so made way for the next session's.
            _ => known.max(1),
        };
        self.back.insert(imei, Back { session, returned });
        returned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    const NODE: u8 = 2;

    fn own(clock: u64) -> u64 {
        clock << 8 | u64::from(NODE)
    }

    fn other(clock: u64) -> u64 {
        clock << 8 | 7
    }

    fn device(session: u64, ended: bool) -> Device {
        let mut device = samples::device(if ended { 2 } else { 1 });
        device.imei = samples::imei(1);
        device.session.id = session;
        device
    }

    fn rows(session: u64, ended: bool, revision: u64, returned: u64) -> Rows {
        let mut rows = Rows::new(NODE);
        rows.device(&Row { device: device(session, ended), returned }, revision);
        rows
    }

    #[test]
    fn higher_session_holds() {
        let over = |revision| Write::Over { revision, returned: 0 };
        assert_eq!(Rows::new(NODE).next(&device(own(1), false)), over(0));
        assert_eq!(rows(other(1), false, 9, 0).next(&device(own(2), false)), over(9));
        assert_eq!(rows(other(2), false, 9, 0).next(&device(own(1), false)), Write::Not);
        assert_eq!(rows(other(2), false, 9, 0).next(&device(own(1), true)), Write::Not);
        assert_eq!(rows(own(1), false, 9, 0).next(&device(own(1), true)), over(9));
    }

    #[test]
    fn session_that_was_taken_for_lost_comes_back_under_another_name() {
        let event = |cause: bool| {
            let mut event = samples::event(1, Kind::Offline);
            event.session_id = Some(own(1));
            if !cause {
                event.cause = None;
            }
            event
        };
        let mut lost = rows(own(1), true, 9, 0);
        assert_eq!(lost.next(&device(own(1), false)), Write::Over { revision: 9, returned: 9 });
        assert!(lost.comes_back(&device(own(1), false)) && !lost.comes_back(&device(own(1), true)));
        assert_eq!(lost.name(&event(true), String::new), format!("end-{}", own(1)));
        let mut back = rows(own(1), false, 10, 9);
        assert!(!back.comes_back(&device(own(1), false)), "its row says so");
        assert_eq!(back.next(&device(own(1), true)), Write::Over { revision: 10, returned: 9 });
        assert_eq!(back.name(&event(true), String::new), format!("end-{}-9", own(1)));
        // That it is back is one thing, before and after its row says so; when it ends in between, that is told as well.
        let returned = Event { kind: Kind::Online, ..event(true) };
        for rows in [&mut lost, &mut back] {
            assert_eq!(rows.name(&returned, String::new), format!("back-{}-9", own(1)));
            assert_eq!(rows.name(&event(true), String::new), format!("end-{}-9", own(1)));
            assert!(matches!(rows.next(&device(own(1), true)), Write::Over { returned: 9, .. }));
        }
        let mut lost_again = rows(own(1), true, 12, 9);
        for _ in 0..2 {
            assert_eq!(lost_again.name(&returned, String::new), format!("back-{}-12", own(1)));
        }
        // The device went to another node before that was told.
        let mut gone = rows(other(2), false, 13, 0);
        assert_eq!(gone.name(&event(true), String::new), format!("end-{}", own(1)), "taken for lost");
        let back = gone.name(&returned, String::new);
        let end = gone.name(&event(true), String::new);
        assert_ne!(end, format!("end-{}", own(1)), "an end of its own, after {back}");
        assert_eq!((gone.name(&returned, String::new), gone.name(&event(true), String::new)), (back, end));
    }

    #[test]
    fn others_mark_what_is_lost_and_take_nothing_back() {
        let lost = device(other(1), true);
        assert_eq!(rows(other(1), false, 9, 0).next(&lost), Write::Over { revision: 9, returned: 0 });
        assert_eq!(rows(other(1), true, 9, 0).next(&device(other(1), false)), Write::Not);
    }

    #[test]
    fn older_word_of_the_bucket_changes_nothing() {
        let mut rows = rows(other(2), false, 9, 0);
        rows.device(&Row { device: device(other(1), false), returned: 0 }, 8);
        assert_eq!(rows.next(&device(own(1), false)), Write::Not);
        let imei = samples::imei(1);
        assert_eq!(rows.next_decision(imei, 1), Write::Over { revision: 0, returned: 0 });
        rows.decision(imei, 2, 12);
        rows.decision(imei, 1, 11);
        assert_eq!(rows.next_decision(imei, 2), Write::Not);
        assert_eq!(rows.next_decision(imei, 3), Write::Over { revision: 12, returned: 0 });
    }

    #[test]
    fn what_the_bucket_has_when_asked_holds_even_if_it_is_older() {
        let mut rows = rows(own(2), true, 9, 0);
        let older = Row { device: device(own(1), false), returned: 0 };
        rows.found(samples::imei(1), Some(&older), 7);
        assert_eq!(rows.next(&device(own(3), false)), Write::Over { revision: 7, returned: 0 });
        for revision in [0, 12] {
            rows.found(samples::imei(1), None, revision);
            assert_eq!(rows.next(&device(own(3), false)), Write::Over { revision, returned: 0 });
        }
    }

    #[test]
    fn events_of_sessions_are_named_by_them_and_others_by_what_they_say() {
        let mut rows = Rows::new(NODE);
        let back = samples::event(1, Kind::Online);
        let begun = Event { cause: None, ..back.clone() };
        let digest = || "d".to_owned();
        assert_eq!(rows.name(&begun, digest), "begin-7");
        assert_eq!(rows.name(&samples::event(1, Kind::Replaced), digest), "end-7");
        assert_eq!(rows.name(&back, digest), "back-7-1");
        assert_eq!(rows.name(&samples::event(1, Kind::Refused), digest), "2-d");
        let expiring = samples::event(1, Kind::CertificateExpiring);
        assert_eq!(rows.name(&expiring, digest), "expiring-015184008301272-0a-idle");
        assert_eq!(rows.name(&samples::event(0, Kind::Offline), digest), "2-d");
    }
}
