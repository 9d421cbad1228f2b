//! Holds the events against what the devices saw. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use moorline_protocol::Imei;
use serde_json::Value;

use crate::load::Stay;

/// A session, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) session: u64,
    pub(super) node: String,
}

/// An event of a session.
#[derive(Clone, Debug)]
pub(super) struct Event {
    id: i64,
    imei: Imei,
    session: u64,
    begins: bool,
    cause: Option<String>,
}

/// A server was killed: what it had taken in since, or just before, it may not have told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Excuse {
    pub(super) server: usize,
    pub(super) from: Instant,
    pub(super) until: Instant,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) wrong: Vec<String>,
    /// Sessions without an event that are excused.
    pub(super) taken_along: usize,
}

/// How far a session is, by its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Stands,
    Over,
    /// Others took it for lost, and may hear that it stands.
    Missed,
}

impl Event {
    /// What begins or ends a session; of other events nothing.
    pub(super) fn read(event: &Value) -> Option<Self> {
        Some(Self {
            id: event["id"].as_i64()?,
            imei: event["imei"].as_str()?.parse().ok()?,
            session: event["session_id"].as_u64()?,
            begins: match event["kind"].as_str()? {
                "online" => true,
                "offline" | "replaced" => false,
                _ => return None,
            },
            cause: event["cause"].as_str().map(str::to_owned),
        })
    }
}

/// Every session begins once and ends once at most; each that a device was welcomed in began; and those stand that devices have.
pub(super) fn check(events: &[Event], fleet: &[(Imei, &[Stay])], excuses: &[Excuse]) -> Verdict {
    let mut verdict = Verdict::default();
    let lives = lives(events, &mut verdict.wrong);
    for (imei, diary) in fleet {
        let empty = BTreeMap::new();
        let lives = lives.get(imei).unwrap_or(&empty);
        for stay in *diary {
            if lives.contains_key(&stay.session) {
                continue;
            }
            let is_excused = |excuse: &Excuse| {
                excuse.server == stay.server && (excuse.from..=excuse.until).contains(&stay.began)
            };
            if excuses.iter().any(is_excused) {
                verdict.taken_along += 1;
            } else {
                verdict.wrong.push(format!(
                    "{imei} was welcomed in session {}, of which no event tells",
                    stay.session
                ));
            }
        }
        let seen = diary.last().filter(|stay| stay.ended.is_none()).map(|stay| stay.session);
        let standing: Vec<u64> =
            lives.iter().filter(|(_, life)| **life == Life::Stands).map(|(session, _)| *session).collect();
        if standing != Vec::from_iter(seen) {
            verdict.wrong.push(format!("by the events {imei} has {standing:?}, and the device has {seen:?}"));
        }
    }
    verdict
}

fn lives(events: &[Event], wrong: &mut Vec<String>) -> BTreeMap<Imei, BTreeMap<u64, Life>> {
    let mut lives: BTreeMap<Imei, BTreeMap<u64, Life>> = BTreeMap::new();
    for Event { id, imei, session, begins, cause } in events {
        let lives = lives.entry(*imei).or_default();
        let cause = cause.as_deref();
        let next = match (begins, lives.get(session)) {
            (true, None) if cause.is_none() => Life::Stands,
            (true, Some(Life::Missed)) if cause == Some("node_back") => Life::Stands,
            (false, Some(Life::Stands)) if cause == Some("node_lost") => Life::Missed,
            (false, Some(Life::Stands)) => Life::Over,
            (_, before) => {
                let what = if *begins { "begins" } else { "ends" };
                wrong.push(format!(
                    "event {id}: session {session} of {imei} {what} ({cause:?}) after {before:?}"
                ));
                continue;
            }
        };
        lives.insert(*session, next);
    }
    lives
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{imei, now};

    /// What is wrong by these events and sessions of one device: kind, session, cause; session, whether it stands.
    fn wrong(events: &[(&str, u64, Option<&str>)], diary: &[(u64, bool)], excuses: &[Excuse]) -> Vec<String> {
        let (imei, at) = (imei(1).unwrap(), now());
        let read = |(id, (kind, session, cause)): (usize, &(&str, u64, Option<&str>))| {
            let event = serde_json::json!({
                "id": id, "imei": imei.to_string(), "kind": kind, "session_id": session, "cause": cause,
            });
            Event::read(&event).unwrap()
        };
        let events: Vec<Event> = events.iter().enumerate().map(read).collect();
        let stay = |(session, stands): &(u64, bool)| Stay {
            session: *session,
            server: 0,
            began: at,
            ended: (!stands).then_some(at),
            lost: false,
        };
        let diary: Vec<Stay> = diary.iter().map(stay).collect();
        check(&events, &[(imei, &diary)], excuses).wrong
    }

    const ON: (&str, u64, Option<&str>) = ("online", 1, None);
    const OFF: (&str, u64, Option<&str>) = ("offline", 1, Some("closed"));
    const LOST: (&str, u64, Option<&str>) = ("offline", 1, Some("node_lost"));
    const BACK: (&str, u64, Option<&str>) = ("online", 1, Some("node_back"));
    const NEXT: (&str, u64, Option<&str>) = ("online", 2, None);
    const REPLACED: (&str, u64, Option<&str>) = ("replaced", 1, Some("replaced"));

    #[test]
    fn what_is_well_is_not_found_wrong() {
        for (events, diary) in [
            (&[][..], &[][..]),
            (&[ON], &[(1, true)]),
            (&[ON, OFF], &[(1, false)]),
            (&[ON, LOST, BACK], &[(1, true)]),
            (&[ON, LOST, BACK, LOST], &[(1, false)]),
            (&[ON, NEXT, REPLACED], &[(1, false), (2, true)]),
            // The device went before it was welcomed.
            (&[ON, OFF], &[]),
        ] {
            assert_eq!(wrong(events, diary, &[]), [""; 0], "{events:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_found() {
        for (events, diary, what) in [
            (&[ON, ON][..], &[(1, true)][..], "begins"),
            (&[ON, OFF, OFF], &[(1, false)], "ends"),
            (&[ON, OFF, BACK], &[(1, false)], "begins"),
            (&[OFF], &[], "ends"),
            (&[ON, LOST], &[(1, true)], "by the events"),
            (&[ON], &[(1, false)], "by the events"),
            (&[ON, NEXT], &[(1, false), (2, true)], "by the events"),
            (&[NEXT], &[(1, false), (2, true)], "no event tells"),
        ] {
            let wrong = wrong(events, diary, &[]);
            assert!(wrong.len() == 1 && wrong[0].contains(what), "{events:?}: {wrong:?}");
        }
    }

    #[test]
    fn what_a_killed_server_took_along_is_excused() {
        let at = now();
        let excuse = |server| Excuse { server, from: at, until: at + std::time::Duration::from_secs(60) };
        assert_eq!(wrong(&[NEXT], &[(1, false), (2, true)], &[excuse(0)]), [""; 0]);
        assert_eq!(wrong(&[NEXT], &[(1, false), (2, true)], &[excuse(1)]).len(), 1);
    }
}
