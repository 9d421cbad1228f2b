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
                verdict.wrong.push(format!("{imei} was welcomed in session {}, of which no event tells", stay.session));
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
                wrong.push(format!("event {id}: session {session} of {imei} {what} ({cause:?}) after {before:?}"));
                continue;
            }
        };
        lives.insert(*session, next);
    }
    lives
}
