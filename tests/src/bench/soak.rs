//! A server over time, while a part of its fleet comes and goes: what it holds must not grow.

use std::fmt::Write as _;
use std::time::Duration;

use super::machine::{CROWDS_CORE, Pinned};
use super::{Kind, Subject};
use crate::failure::Failure;
use crate::load::{Crowd, Entry, Pool, Usage};
use crate::rig::Rig;

/// How often it is looked at.
const LOOKS: u32 = 20;
/// Heartbeats in a second.
const RATE: u32 = 500;

/// See the module.
#[derive(Clone, Debug)]
pub struct Soak {
    /// How many sessions stood all the time.
    pub standing: usize,
    /// How many came and went, each time.
    pub coming: usize,
    /// What was seen, in turn.
    pub looks: Vec<Look>,
}

/// A look at it.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Since the beginning.
    pub at: Duration,
    /// What the server held.
    pub usage: Usage,
    /// How many had come so far.
    pub arrivals: usize,
    /// How many heartbeats were answered so far.
    pub answered: usize,
}

/// Has `standing` devices beat for such a time, while `coming` others leave and come, resuming their sessions.
///
/// # Errors
/// A device is not served, or a session was lost.
pub fn soak(rig: &Rig, pool: &Pool, standing: usize, coming: usize, time: Duration) -> Result<Soak, Failure> {
    let kind = Kind::Moorline { sessions: 20_000 };
    let subject = Subject::start(kind, rig)?.ok_or_else(|| Failure::new("there is no server"))?;
    let _pinned = Pinned::to(CROWDS_CORE)?;
    let mut stand = Crowd::new(pool, 0..standing, subject.address(), kind.speech(), true)?;
    let mut come = Crowd::new(pool, standing..standing + coming, subject.address(), kind.speech(), true)?;
    stand.arrive(Entry::in_turn())?;
    let (mut at, mut arrivals, mut answered, mut looks) = (Duration::ZERO, standing, 0, Vec::new());
    for _ in 0..LOOKS {
        arrivals += come.arrive(Entry::in_turn())?.waits.len();
        let beats = stand.beat(RATE, |passed| passed < time / LOOKS)?;
        answered += beats.delays.len() + come.beat_once()?.delays.len();
        at += beats.took;
        looks.push(Look { at, usage: subject.usage()?, arrivals, answered });
        come.leave();
        if beats.lost > 0 || stand.idle(Duration::from_millis(500))? > 0 {
            return Err(Failure::new("a session was lost while nothing happened"));
        }
    }
    Ok(Soak { standing, coming, looks })
}

impl Soak {
    pub(super) fn table(&self, page: &mut String) {
        let Self { standing, coming, looks } = self;
        let _ = write!(
            page,
            "## Over time\n\n{standing} sessions stand and send {RATE} heartbeats a second; {coming} others leave and come again, resuming their \
             sessions, before each look.\n\n\
             | after | arrivals | heartbeats answered | resident | of it heap and stacks | descriptors |\n\
             | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        );
        for Look { at, usage, arrivals, answered } in looks {
            let _ = writeln!(
                page,
                "| {} s | {arrivals} | {answered} | {:.1} MB | {:.1} MB | {} |",
                at.as_secs(),
                usage.resident as f64 / 1e6,
                usage.anonymous as f64 / 1e6,
                usage.descriptors,
            );
        }
        page.push('\n');
    }
}
