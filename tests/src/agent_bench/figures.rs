//! What is measured of each client, in two parts: through minutes, all of them side by side, as that only counts how often they wake;
//! and one after the other what is in the way of others, their memory, their system calls and their allocations.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::{Client, Kind};
use crate::failure::Failure;
use crate::footprint::Footprint;
use crate::relay::Bytes;
use crate::rig::Rig;
use crate::upkeep::{SystemCalls, Upkeep, mapped_files};

/// Of one client.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Which.
    pub kind: Kind,
    /// Its program, bytes.
    pub program: u64,
    /// All that it maps to run, bytes: its program and its libraries.
    pub files: u64,
    /// What it holds while its session stands.
    pub footprint: Footprint,
    /// From its start until it is quiet.
    pub connecting: Bytes,
    /// Bytes of one heartbeat with its answer.
    pub heartbeat: Bytes,
    /// System calls for each heartbeat, where strace could look on.
    pub calls: Option<f64>,
    /// Allocations for each heartbeat and bytes at the heap's peak, where they can be counted.
    pub heap: Option<(f64, u64)>,
}

/// Between two heartbeats while each is looked at: the least that mosquitto_sub takes.
const EVERY: Duration = Duration::from_secs(5);
const BEATS: u64 = 4;
/// So many come first. The agent keeps its counters on disk in its first moments, when it is a minute old and whenever it is twice as
/// old: after these there is nothing of that in the next ones.
const BEATS_BEFORE: u64 = 14;

/// What is measured of one client by itself.
///
/// # Errors
/// It does not connect, or a heartbeat does not come.
pub fn measure(kind: &Kind, rig: &Rig, server: SocketAddr) -> Result<Figures, Failure> {
    let patience = EVERY * 3;
    let client = Client::start(kind, rig, server, EVERY, false)?;
    let connecting = client.relay().bytes();
    let upkeep = Upkeep::watch(client.id(), client.relay(), BEATS_BEFORE, patience)?;
    let footprint = Footprint::of(client.id())?;
    let files = mapped_files(client.id())?;
    let program = std::fs::read_link(format!("/proc/{}/exe", client.id()))?;
    let calls = SystemCalls::watch(client.id(), client.relay(), BEATS, patience)?;
    drop(client);

    let client = Client::start(kind, rig, server, EVERY, true)?;
    let heap = match client.heap() {
        None => None,
        Some(heap) => {
            let before = heap.counted()?;
            Upkeep::watch(client.id(), client.relay(), BEATS, patience)?;
            let after = heap.counted()?;
            Some(((after.allocations - before.allocations) as f64 / BEATS as f64, after.peak))
        }
    };
    Ok(Figures {
        kind: kind.clone(),
        program: std::fs::metadata(program)?.len(),
        files: files.values().sum(),
        footprint,
        connecting,
        heartbeat: Bytes { up: upkeep.bytes.up / BEATS_BEFORE, down: upkeep.bytes.down / BEATS_BEFORE },
        calls: calls.map(|calls| calls.sum() as f64 / BEATS as f64),
        heap,
    })
}

/// Has all of them keep a session up side by side: how often each wakes in so many heartbeats, once `before` have passed.
///
/// # Errors
/// One does not connect, or a heartbeat does not come.
pub fn watch_all(
    clients: &[(Kind, SocketAddr)],
    rig: &Rig,
    every: Duration,
    before: u64,
    beats: u64,
) -> Result<Vec<Upkeep>, Failure> {
    let running: Vec<_> = clients
        .iter()
        .map(|(kind, server)| Client::start(kind, rig, *server, every, false))
        .collect::<Result<_, _>>()?;
    thread::scope(|scope| {
        let watched: Vec<_> = running
            .iter()
            .map(|client| {
                scope.spawn(move || {
                    Upkeep::watch(client.id(), client.relay(), before, every * 2)?;
                    Upkeep::watch(client.id(), client.relay(), beats, every * 2)
                })
            })
            .collect();
        let join = |watched: thread::ScopedJoinHandle<'_, _>| {
            watched.join().unwrap_or_else(|_| Err(Failure::new("a thread panicked")))
        };
        watched.into_iter().map(join).collect()
    })
}
