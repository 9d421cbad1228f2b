//! Several servers that share a fleet in NATS: how a tale of them begins, and what it asks of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use serde_json::Value;

use crate::failure::Failure;
use crate::http::Operators;
use crate::left_out::left_out;
use crate::load::{Crowd, Entry, Pool, Speech};
use crate::nats::{self, Nats};
use crate::rig::{Rig, Server};
use crate::wrong_clock::WrongClock;

/// What the servers are called.
pub const NAMES: [&str; 3] = ["a", "b", "c"];
/// Long enough for the others to have taken a node for lost, on a machine where others work too.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Whether this machine has what they need; said aloud where it has not.
#[must_use]
#[track_caller]
pub fn allowed() -> bool {
    let allowed = nats::is_installed();
    if !allowed {
        left_out("servers that share a fleet need nats-server (apt install nats-server)");
    }
    allowed
}

/// Servers, their NATS and devices; all ends with the value.
pub struct Several {
    /// By their names.
    pub servers: Vec<Server>,
    /// Of each server.
    pub clocks: Vec<WrongClock>,
    /// One.
    pub nats: Nats,
    /// Devices that may come.
    pub pool: Pool,
    /// Of their certificates and folders.
    pub rig: Rig,
}

impl Several {
    /// Three servers and so many devices; none where [`allowed`] says so.
    ///
    /// # Errors
    /// One does not start.
    #[track_caller]
    pub fn start(devices: u32) -> Result<Option<Self>, Failure> {
        if !allowed() {
            return Ok(None);
        }
        let (rig, nats) = (Rig::new()?, Nats::start()?);
        let mut fleet =
            Self { servers: Vec::new(), clocks: Vec::new(), nats, pool: Pool::new(rig.pki(), devices)?, rig };
        for name in NAMES {
            let clock = WrongClock::new(fleet.rig.folder())?;
            let setup = fleet.rig.server()?.clock(&clock).node(name, &fleet.nats.urls());
            fleet.servers.push(setup.start()?);
            fleet.clocks.push(clock);
        }
        Ok(Some(fleet))
    }

    /// What the server of this number shows its operators.
    #[must_use]
    pub fn operators(&self, number: usize) -> Operators {
        self.servers[number].operators()
    }

    /// What all of them show.
    #[must_use]
    pub fn all(&self) -> Vec<Operators> {
        self.servers.iter().map(Server::operators).collect()
    }

    /// These devices, with a session each at the server of this number.
    ///
    /// # Errors
    /// One is not taken in.
    #[track_caller]
    pub fn crowd(&self, members: Range<usize>, number: usize) -> Result<Crowd, Failure> {
        crowd(&self.pool, members, self.servers[number].devices())
    }
}

/// These devices of a pool, with a session each.
///
/// # Errors
/// One is not taken in.
#[track_caller]
pub fn crowd(pool: &Pool, members: Range<usize>, server: SocketAddr) -> Result<Crowd, Failure> {
    let mut crowd = Crowd::new(pool, members, server, Speech::Native, false)?;
    crowd.arrive(Entry::in_turn())?;
    Ok(crowd)
}

/// Waits until a server shows so many devices as online.
///
/// # Errors
/// It does not come to that.
#[track_caller]
pub fn wait_online(operators: Operators, count: usize) -> Result<(), Failure> {
    operators.wait_within(
        PATIENCE,
        "/api/devices?limit=1&online=true",
        &format!("{count} online"),
        |answer| (answer["total"] == count).then_some(()),
    )
}

/// Waits until a server shows so many devices as online at each of these nodes, and none anywhere else.
///
/// # Errors
/// It does not come to that.
#[track_caller]
pub fn wait_at(operators: Operators, nodes: &[(&str, usize)]) -> Result<(), Failure> {
    let sum: usize = nodes.iter().map(|(_, count)| count).sum();
    operators.wait_within(PATIENCE, "/api/devices?limit=1000&online=true", &format!("{nodes:?}"), |answer| {
        let devices = answer["devices"].as_array()?;
        let at = |node: &str| devices.iter().filter(|device| device["node"] == node).count();
        (devices.len() == sum && nodes.iter().all(|(node, count)| at(node) == *count)).then_some(())
    })
}

/// All events that a server tells, once there are so many; there are not more.
///
/// # Errors
/// There are not.
#[track_caller]
pub fn told(operators: Operators, count: usize) -> Result<Vec<Value>, Failure> {
    operators.wait_within(PATIENCE, "/api/events?limit=1000", &format!("{count} events"), |answer| {
        (answer["events"].as_array()?.len() >= count).then_some(())
    })?;
    let told = operators.events_after(0)?;
    if told.len() == count {
        return Ok(told);
    }
    Err(Failure::new(format!("{} events and not {count}: {told:#?}", told.len())))
}

/// How many sessions of each device stand, where each began once and ended at most once, in this order.
///
/// # Panics
/// When one did not.
#[must_use]
#[track_caller]
pub fn standing(events: &[Value]) -> BTreeMap<String, usize> {
    let mut standing: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in events {
        let (Some(imei), Some(session)) = (event["imei"].as_str(), event["session_id"].as_u64()) else {
            continue;
        };
        let sessions = standing.entry(imei.to_owned()).or_default();
        match event["kind"].as_str() {
            Some("online") => {
                assert!(!sessions.contains(&session), "it began twice: {event}");
                sessions.push(session);
            }
            Some("offline" | "replaced") => {
                let before = sessions.len();
                sessions.retain(|standing| *standing != session);
                assert_eq!(sessions.len() + 1, before, "it ended and did not stand: {event}");
            }
            _ => {}
        }
    }
    standing.into_iter().map(|(imei, sessions)| (imei, sessions.len())).collect()
}
