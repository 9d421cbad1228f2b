//! What sessions and events cost with one, two and three servers that share a fleet in one NATS server, beside a server alone.
//!
//! A device's coming and going is a handshake and two events. All run on this machine, the devices too: so what is done in a
//! second says how much work there is, and not what so many machines would do.

use std::fmt::Write as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::stage::NAMES;
use crate::failure::Failure;
use crate::http::Operators;
use crate::load::{Crowd, Entry, Pool, Speech, Usage, now};
use crate::nats::Nats;
use crate::programs::program;
use crate::rig::{Rig, Server};

/// How often all come and go.
const TIMES: u32 = 3;
/// How long events may take to every server.
const TOLD_WITHIN: Duration = Duration::from_secs(120);

/// What so many servers took.
struct Cost {
    name: String,
    /// From the first device's first try until all were in, all times together.
    arrival: Duration,
    /// From the first device's first try until every server had told that the last one was gone.
    told: Duration,
    servers: Duration,
    nats: Duration,
}

/// The table, of so many devices.
///
/// # Errors
/// A device is not served.
pub fn costs(devices: u32) -> Result<String, Failure> {
    let mut table = "| | sessions a second | events a second | processor time a session: servers | NATS | together | times alone |\n\
                     | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    let (program, mut alone) = (program("moorline-server")?, None);
    for nodes in 0..=NAMES.len() {
        let Cost { name, arrival, told, servers, nats } = measure(&program, nodes, devices)?;
        let sessions = f64::from(devices * TIMES);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / sessions;
        let together = each(servers + nats);
        let times = together / *alone.get_or_insert(together);
        writeln!(
            table,
            "| {name} | {:.0} | {:.0} | {:.0} µs | {:.0} µs | {together:.0} µs | {times:.2} |",
            sessions / arrival.as_secs_f64(),
            2.0 * sessions / told.as_secs_f64(),
            each(servers),
            each(nats),
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
    let used = || -> Result<(Duration, Duration), Failure> {
        let sum = |ids: Vec<u32>| {
            ids.into_iter()
                .try_fold(Duration::ZERO, |sum, id| Ok::<_, Failure>(sum + Usage::of(id)?.processor))
        };
        Ok((
            sum(servers.iter().map(|server| server.id()).collect())?,
            sum(nats.iter().flat_map(Nats::ids).collect())?,
        ))
    };
    let operators: Vec<Operators> = servers.iter().map(Server::operators).collect();
    let (before, began, mut arrival) = (used()?, now(), Duration::ZERO);
    for time in 0..TIMES {
        let comes = now();
        thread::scope(|scope| {
            let arriving: Vec<_> =
                crowds.iter_mut().map(|crowd| scope.spawn(|| crowd.arrive(Entry::in_turn()))).collect();
            arriving.into_iter().try_for_each(|arriving| {
                arriving.join().map_err(|_| Failure::new("a crowd panicked"))?.map(drop)
            })
        })?;
        arrival += now() - comes;
        crowds.iter_mut().for_each(Crowd::leave);
        let events = i64::from(2 * devices * (time + 1));
        for operators in &operators {
            operators.wait_within(TOLD_WITHIN, "/api/events?limit=1", "all events", |answer| {
                (answer["newest"].as_i64()? >= events).then_some(())
            })?;
        }
    }
    let (told, after) = (now() - began, used()?);
    let name = match nodes {
        0 => "alone, without NATS".to_owned(),
        1 => "one node".to_owned(),
        more => format!("{more} nodes"),
    };
    Ok(Cost { name, arrival, told, servers: after.0 - before.0, nats: after.1 - before.1 })
}
