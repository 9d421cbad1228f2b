//! What sessions and events cost with one, two and three servers that share a fleet in one NATS server, beside a server alone.
//!
//! A device's coming and going is a full handshake and two events, and heartbeats are what it does between the two. All run on this machine, the devices too: so what is done in a
//! second says how much work there is, and not what so many machines would do.

use std::fmt::Write as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::failure::Failure;
use crate::http::Operators;
use crate::load::{Crowd, Entry, Pool, Speech, Usage, now};
use crate::nats::Nats;
use crate::programs::program;
use crate::rig::{Rig, Server};
use crate::several::NAMES;

/// How often all come and go.
const TIMES: u32 = 3;
/// How often all of them beat, the last time.
const BEATS: u32 = 20;
/// How long events may take to every server.
const TOLD_WITHIN: Duration = Duration::from_secs(120);

/// What so many servers took.
struct Cost {
    name: String,
    /// From the first device's first try until all were in, all times together.
    arrival: Duration,
    /// From the first device's first try until every server had told that the last one was gone.
    told: Duration,
    /// From the first heartbeat until all were answered.
    beating: Duration,
    /// Processor time of sessions, and of heartbeats.
    sessions: Used,
    beats: Used,
}

/// Processor time.
#[derive(Clone, Copy, Default)]
struct Used {
    servers: Duration,
    nats: Duration,
}

impl Used {
    fn so_far(servers: &[Server], nats: Option<&Nats>) -> Result<Self, Failure> {
        let sum = |ids: Vec<u32>| {
            ids.into_iter()
                .try_fold(Duration::ZERO, |sum, id| Ok::<_, Failure>(sum + Usage::of(id)?.processor))
        };
        Ok(Self {
            servers: sum(servers.iter().map(|server| server.id()).collect())?,
            nats: sum(nats.map(Nats::ids).unwrap_or_default())?,
        })
    }

    fn since(self, earlier: Self) -> Self {
        Self { servers: self.servers - earlier.servers, nats: self.nats - earlier.nats }
    }
}

/// The table, of so many devices.
///
/// # Errors
/// A device is not served.
pub fn costs(devices: u32) -> Result<String, Failure> {
    let mut table = "| | sessions, each a handshake, a second | events a second | heartbeats a second | processor time a session: servers | NATS | together | times alone | processor time a heartbeat |\n\
                     | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    let (program, mut alone) = (program("moorline-server")?, None);
    for nodes in 0..=NAMES.len() {
        let Cost { name, arrival, told, beating, sessions, beats } = measure(&program, nodes, devices)?;
        let (came, beaten) = (f64::from(devices * TIMES), f64::from(devices * BEATS));
        let each = |time: Duration, count: f64| time.as_secs_f64() * 1e6 / count;
        let together = each(sessions.servers + sessions.nats, came);
        let times = together / *alone.get_or_insert(together);
        writeln!(
            table,
            "| {name} | {:.0} | {:.0} | {:.0} | {:.0} µs | {:.0} µs | {together:.0} µs | {times:.2} | {:.1} µs |",
            came / arrival.as_secs_f64(),
            2.0 * came / told.as_secs_f64(),
            beaten / beating.as_secs_f64(),
            each(sessions.servers, came),
            each(sessions.nats, came),
            each(beats.servers + beats.nats, beaten),
        )?;
    }
    Ok(table)
}

/// With so many nodes; 0: a server without NATS.
fn measure(program: &Path, nodes: usize, devices: u32) -> Result<Cost, Failure> {
    let rig = Rig::new()?;
    let nats = (nodes > 0).then(Nats::start).transpose()?;
    let start = |name: &&str| match &nats {
        Some(nats) => rig.server()?.program(program).node(name, &nats.urls()).start(),
        None => rig.server()?.program(program).start(),
    };
    let servers = NAMES[..nodes.max(1)].iter().map(start).collect::<Result<Vec<Server>, Failure>>()?;
    let pool = Pool::new(rig.pki(), devices)?;
    let share = pool.len() / servers.len();
    let crowd = |(number, server): (usize, &Server)| {
        let end = if number + 1 == servers.len() { pool.len() } else { (number + 1) * share };
        Crowd::new(&pool, number * share..end, server.devices(), Speech::Native, false)
    };
    let mut crowds = servers.iter().enumerate().map(crowd).collect::<Result<Vec<_>, Failure>>()?;
    let used = || Used::so_far(&servers, nats.as_ref());
    let operators: Vec<Operators> = servers.iter().map(Server::operators).collect();
    let (before, began, mut arrival) = (used()?, now(), Duration::ZERO);
    let (mut beating, mut beats) = (Duration::ZERO, Used::default());
    for time in 0..TIMES {
        arrival += all_at_once(&mut crowds, |crowd| crowd.arrive(Entry::in_turn()).map(drop))?;
        if time + 1 == TIMES {
            let before = used()?;
            beating = all_at_once(&mut crowds, |crowd| {
                (0..BEATS).try_for_each(|_| match crowd.beat_once()?.lost {
                    0 => Ok(()),
                    lost => Err(Failure::new(format!("{lost} sessions were lost"))),
                })
            })?;
            beats = used()?.since(before);
        }
        crowds.iter_mut().for_each(Crowd::leave);
        let events = i64::from(2 * devices * (time + 1));
        for operators in &operators {
            operators.wait_within(TOLD_WITHIN, "/api/events?limit=1", "all events", |answer| {
                (answer["newest"].as_i64()? >= events).then_some(())
            })?;
        }
    }
    let told = now() - began - beating;
    let sessions = used()?.since(before).since(beats);
    let name = match nodes {
        0 => "alone, without NATS".to_owned(),
        1 => "one node".to_owned(),
        more => format!("{more} nodes"),
    };
    Ok(Cost { name, arrival, told, beating, sessions, beats })
}

/// Has each crowd do this at the same time; how long the last one took.
fn all_at_once(
    crowds: &mut [Crowd],
    what: impl Fn(&mut Crowd) -> Result<(), Failure> + Sync,
) -> Result<Duration, Failure> {
    let began = now();
    thread::scope(|scope| {
        let doing: Vec<_> = crowds.iter_mut().map(|crowd| scope.spawn(|| what(crowd))).collect();
        let done = |doing: thread::ScopedJoinHandle<'_, _>| {
            doing.join().map_err(|_| Failure::new("a crowd panicked"))?
        };
        doing.into_iter().try_for_each(done)
    })?;
    Ok(now() - began)
}
