//! What a heartbeat costs a server. Of two that stand side by side in turns, too, so that whatever else the machine does meets
//! both alike.

use std::time::Duration;

use super::machine::{CROWDS_CORE, Pinned};
use super::{Kind, Subject};
use crate::failure::Failure;
use crate::load::{Beats, Crowd, Entry, Pool};
use crate::rig::Rig;

/// How many are sent without a pause: about a second's work, for the kernel counts in ticks of 10 ms.
const FLAT_OUT: usize = 100_000;
/// How many are sent in a second, once where each wakes the machine and once where there is always one.
const RATES: [u32; 2] = [500, 5_000];

/// Two servers in turns.
#[derive(Clone, Debug)]
pub struct Turns {
    /// Which.
    pub kinds: [Kind; 2],
    /// How many sessions each held.
    pub sessions: usize,
    /// How many turns each had.
    pub rounds: u32,
    /// Processor time of each heartbeat at so many a second; `None`: without a pause.
    pub costs: Vec<(Option<u32>, [Duration; 2])>,
}

/// Has `sessions` devices of each beat in turns, in each turn for `time` at each rate.
///
/// # Errors
/// A device is not served.
pub fn in_turns(
    kinds: [Kind; 2],
    rig: &Rig,
    pool: &Pool,
    sessions: usize,
    rounds: u32,
    time: Duration,
) -> Result<Option<Turns>, Failure> {
    let [Some(one), Some(other)] = [Subject::start(kinds[0], rig)?, Subject::start(kinds[1], rig)?] else {
        return Ok(None);
    };
    let _pinned = Pinned::to(CROWDS_CORE)?;
    let mut sides = [one, other].map(|subject| (subject, Vec::new()));
    for (subject, crowd) in &mut sides {
        let kind = subject.kind();
        let mut devices = Crowd::new(pool, 0..sessions, subject.address(), kind.speech(), kind.resumes())?;
        devices.arrive(Entry::in_turn())?;
        crowd.push(devices);
    }
    let paces = RATES.map(Some).into_iter().chain([None]);
    let mut costs: Vec<_> = paces.map(|pace| (pace, [Duration::ZERO; 2])).collect();
    for _ in 0..rounds {
        for (pace, costs) in &mut costs {
            for ((subject, crowd), cost) in sides.iter_mut().zip(costs) {
                *cost += match *pace {
                    Some(rate) => paced(subject, crowd, rate, time)?.1,
                    None => as_many_as_can_be(subject, crowd)?.0,
                } / rounds;
            }
        }
    }
    Ok(Some(Turns { kinds, sessions, rounds, costs }))
}

/// The newest crowd beats so often in a second, all together; the others stand beside it.
pub(super) fn paced(
    subject: &Subject,
    crowds: &mut [Crowd],
    rate: u32,
    time: Duration,
) -> Result<(Beats, Duration), Failure> {
    let Some(crowd) = crowds.last_mut() else { return Err(Failure::new("nobody is there")) };
    let before = subject.usage()?.processor;
    let beats = crowd.beat(rate, |passed| passed < time)?;
    expect_none_lost(&beats)?;
    let cost = (subject.usage()?.processor - before) / (beats.delays.len().max(1) as u32);
    Ok((beats, cost))
}

/// The same, but all send one without a pause, and again when all are answered; how many that makes in a second.
pub(super) fn as_many_as_can_be(subject: &Subject, crowds: &mut [Crowd]) -> Result<(Duration, u32), Failure> {
    let Some(crowd) = crowds.last_mut() else { return Err(Failure::new("nobody is there")) };
    let rounds = FLAT_OUT.div_ceil(crowd.len());
    let (took, cost, _) = subject.measured(rounds * crowd.len(), || {
        (0..rounds).try_fold(Duration::ZERO, |took, _| {
            let beats = crowd.beat_once()?;
            expect_none_lost(&beats)?;
            Ok(took + beats.took)
        })
    })?;
    Ok((cost, ((rounds * crowd.len()) as f64 / took.as_secs_f64()) as u32))
}

pub(super) fn expect_none_lost(beats: &Beats) -> Result<(), Failure> {
    if beats.lost > 0 {
        return Err(Failure::new(format!("{} sessions were lost while nothing happened", beats.lost)));
    }
    Ok(())
}
