//! A server while its fleet grows: what each session holds, what a handshake and a heartbeat cost, and how soon it answers.

use std::time::Duration;

use super::heartbeats::{as_many_as_can_be, expect_none_lost, paced};
use super::machine::{CROWDS_CORE, Pinned};
use super::{Kind, Subject};
use crate::failure::Failure;
use crate::load::{Beats, Crowd, Entry, Pool, Usage};
use crate::rig::Rig;

/// After the last one came: a store writes, an allocator gives back.
const SETTLE: Duration = Duration::from_secs(2);
/// What a server sets up once is there after so many.
const WARM_UP: usize = 20;

/// How it grew.
#[derive(Clone, Debug)]
pub struct Growth {
    /// Which server.
    pub kind: Kind,
    /// With nobody there, after some had been.
    pub empty: Usage,
    /// At each number of sessions.
    pub steps: Vec<Step>,
    /// Processor time of a resumed handshake, with all that a return brings along.
    pub resumed: Option<Duration>,
}

/// At a number of sessions.
#[derive(Clone, Debug)]
pub struct Step {
    /// How many stand.
    pub sessions: usize,
    /// Resident bytes for each, over what the empty server holds.
    pub bytes_each: u64,
    /// Processor time of each full handshake that led here, with all that it brings along.
    pub handshake: Duration,
    /// Of it in the kernel.
    pub handshake_kernel: Duration,
    /// Handshakes in a second, the crowd's own work on the same machine included.
    pub per_second: u32,
    /// Processor time of each heartbeat.
    pub heartbeat: Duration,
    /// Heartbeats in a second while that was measured.
    pub rate: u32,
    /// How the answers came.
    pub beats: Beats,
    /// Processor time of each heartbeat where all who came last send one without a pause, again and again.
    pub flat_out: Duration,
    /// How many are answered in a second then.
    pub flat_out_rate: u32,
}

/// Brings `sizes` devices in, one size after the other, and measures at each; then all go, and return.
///
/// # Errors
/// A device is not served.
pub fn grow(
    kind: Kind,
    rig: &Rig,
    pool: &Pool,
    sizes: &[usize],
    beats: Duration,
) -> Result<Option<Growth>, Failure> {
    let Some(subject) = Subject::start(kind, rig)? else { return Ok(None) };
    let _pinned = Pinned::to(CROWDS_CORE)?;
    let entry = Entry::in_turn();
    let last = sizes.last().copied().unwrap_or(0);
    let crowd = |members| Crowd::new(pool, members, subject.address(), kind.speech(), kind.resumes());
    warm_up(crowd(last..last + WARM_UP)?, entry)?;
    let empty = subject.usage()?;
    let (mut crowds, mut steps, mut before) = (Vec::new(), Vec::new(), 0);
    for &sessions in sizes {
        let mut newcomers = crowd(before..sessions)?;
        let (came, handshake, handshake_kernel) = subject.measured(sessions - before, || {
            let came = newcomers.arrive(entry)?;
            newcomers.idle(SETTLE)?;
            Ok(came)
        })?;
        crowds.push(newcomers);
        for crowd in &mut crowds {
            expect_none_lost(&crowd.beat_once()?)?;
        }
        let resident = subject.usage()?.resident.saturating_sub(empty.resident);
        let rate = (sessions as u32 / 2).clamp(200, 5_000);
        let (beats, heartbeat) = paced(&subject, &mut crowds, rate, beats)?;
        let (flat_out, flat_out_rate) = as_many_as_can_be(&subject, &mut crowds)?;
        steps.push(Step {
            sessions,
            bytes_each: resident / sessions as u64,
            handshake,
            handshake_kernel,
            per_second: ((sessions - before) as f64 / came.took.as_secs_f64()) as u32,
            heartbeat,
            rate,
            beats,
            flat_out,
            flat_out_rate,
        });
        before = sessions;
    }
    let resumed = if kind.resumes() { Some(come_again(&subject, &mut crowds, entry)?) } else { None };
    Ok(Some(Growth { kind, empty, steps, resumed }))
}

fn warm_up(mut crowd: Crowd, entry: Entry) -> Result<(), Failure> {
    crowd.arrive(entry)?;
    crowd.beat_once()?;
    crowd.leave();
    crowd.arrive(entry)?;
    crowd.leave();
    crowd.idle(SETTLE).map(drop)
}

/// All leave, and return with the tickets they were given.
fn come_again(subject: &Subject, crowds: &mut [Crowd], entry: Entry) -> Result<Duration, Failure> {
    crowds.iter_mut().for_each(Crowd::leave);
    let all: usize = crowds.iter().map(Crowd::len).sum();
    if let Some(first) = crowds.first_mut() {
        first.idle(SETTLE)?;
    }
    let (resumed, cost, _) = subject.measured(all, || {
        let mut resumed = 0;
        for crowd in &mut *crowds {
            resumed += crowd.arrive(entry)?.resumed;
            crowd.idle(SETTLE)?;
        }
        Ok(resumed)
    })?;
    if resumed * 100 < all * 95 {
        return Err(Failure::new(format!("only {resumed} of {all} resumed a session")));
    }
    Ok(cost)
}
