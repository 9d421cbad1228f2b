//! A server in a storm: what the sessions that stand notice of it, and how a fleet comes back after a crash.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::machine::{CROWDS_CORE, Pinned};
use super::{Kind, Subject};
use crate::failure::Failure;
use crate::http::Operators;
use crate::load::{Arrival, Beats, Crowd, Entry, Pool, Times, Usage, now};
use crate::rig::{Rig, Server};

/// What the standing sessions are looked at before the storm.
const CALM: Duration = Duration::from_secs(5);
/// Heartbeats that they send in a second, all together.
const RATE: u32 = 500;

/// A storm beside sessions that stand.
#[derive(Clone, Debug)]
pub struct Storm {
    /// Which server.
    pub kind: Kind,
    /// How those who stand were answered before.
    pub before: Beats,
    /// And meanwhile.
    pub during: Beats,
    /// How the storm came in.
    pub arrival: Arrival,
}

/// A fleet's return after its server was killed.
#[derive(Clone, Debug)]
pub struct Return {
    /// Which server.
    pub kind: Kind,
    /// How many came back.
    pub devices: usize,
    /// How they came back, all at once, from the moment the server listened again.
    pub arrival: Arrival,
    /// What it held when all were there.
    pub usage: Usage,
    /// How long operators waited meanwhile for a page of the fleet; only Moorline has some.
    pub pages: Option<Times>,
}

/// Has `standing` devices beat while `coming` others come at once.
///
/// # Errors
/// A device is not served.
pub fn storm(
    kind: Kind,
    rig: &Rig,
    pool: &Pool,
    standing: usize,
    coming: usize,
) -> Result<Option<Storm>, Failure> {
    let Some(subject) = Subject::start(kind, rig)? else { return Ok(None) };
    let crowd = |members| Crowd::new(pool, members, subject.address(), kind.speech(), false);
    let (mut stand, mut come) = (crowd(0..standing)?, crowd(standing..standing + coming)?);
    stand.arrive(Entry::in_turn())?;
    let before = stand.beat(RATE, |passed| passed < CALM)?;
    let (over, still) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // On a core of its own with the server, or its own work would be what it measures.
        let watched = scope.spawn(move || {
            stand.beat(RATE, |_| still.recv_timeout(Duration::ZERO) == Err(RecvTimeoutError::Timeout))
        });
        let arrival = Pinned::to(CROWDS_CORE).and_then(|_pinned| come.arrive(Entry::at_once()));
        drop(over);
        let during = watched.join().map_err(|_| Failure::new("the one who watched panicked"))??;
        Ok(Some(Storm { kind, before, during, arrival: arrival? }))
    })
}

/// Kills a server with `devices` sessions, and has all of them at its door when it is started again.
///
/// # Errors
/// A device is not served.
pub fn come_back(kind: Kind, rig: &Rig, pool: &Pool, devices: usize) -> Result<Option<Return>, Failure> {
    let Some(mut subject) = Subject::start(kind, rig)? else { return Ok(None) };
    let mut crowd = Crowd::new(pool, 0..devices, subject.address(), kind.speech(), false)?;
    crowd.arrive(Entry::in_turn())?;
    subject.kill()?;
    crowd.idle(Duration::from_secs(1))?;
    subject.start_again()?;
    let over = &AtomicBool::new(false);
    let (arrival, pages) = thread::scope(|scope| {
        let operators = subject.moorline_server().map(Server::operators);
        let asking = operators.map(|operators| scope.spawn(move || ask_until(operators, over)));
        let arrival = Pinned::to(CROWDS_CORE).and_then(|_pinned| crowd.arrive(Entry::at_once()));
        over.store(true, Ordering::SeqCst);
        let pages = asking.map(thread::ScopedJoinHandle::join).transpose();
        let pages = pages.map_err(|_| Failure::new("the operator panicked"))?.transpose()?;
        Ok::<_, Failure>((arrival?, pages))
    })?;
    let beats = crowd.beat_once()?;
    if beats.delays.len() < devices {
        return Err(Failure::new(format!(
            "only {} of {devices} are served after the return",
            beats.delays.len()
        )));
    }
    Ok(Some(Return { kind, devices, arrival, usage: subject.usage()?, pages }))
}

/// Asks for a page of the fleet, fifty times a second at the most; how long each took.
fn ask_until(operators: Operators, over: &AtomicBool) -> Result<Times, Failure> {
    let (_silent, pace) = mpsc::channel::<()>();
    let mut times = Times::default();
    while !over.load(Ordering::SeqCst) {
        let asked = now();
        operators.json("/api/devices?limit=50")?;
        times.add(now() - asked);
        let _ = pace.recv_timeout(Duration::from_millis(20));
    }
    Ok(times)
}
