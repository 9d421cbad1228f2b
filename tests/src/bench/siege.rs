//! Honest devices beside peers that mean no good: what their sessions notice of it, and what it costs the server.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use super::machine::{CROWDS_CORE, Pinned};
use super::report::shown;
use super::{Kind, Subject};
use crate::failure::Failure;
use crate::load::{Beats, Crowd, Entry, Hostile, Pool, Seen, Usage};
use crate::rig::Rig;

/// Heartbeats that the honest send in a second, all together.
const RATE: u32 = 1_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Siege {
    /// How many honest sessions stood.
    pub honest: usize,
    /// Who was there beside them.
    pub hostile: Hostile,
    /// How the honest were answered.
    pub beats: Beats,
    /// How often the server was made to take new keys.
    pub renewed: usize,
    /// How often a hostile one was sent away, and came again.
    pub sent_away: usize,
    /// What the server held before.
    pub before: Usage,
    /// What it held when they had gone.
    pub after: Usage,
}

/// Has the honest beat for such a time while the others do what they do.
///
/// # Errors
/// A device is not served, or a session was lost.
pub fn besiege(
    rig: &Rig,
    pool: &Pool,
    honest: usize,
    hostile: Hostile,
    time: Duration,
) -> Result<Siege, Failure> {
    let kind = Kind::Moorline { sessions: 20_000 };
    let subject = Subject::start(kind, rig)?.ok_or_else(|| Failure::new("there is no server"))?;
    let _pinned = Pinned::to(CROWDS_CORE)?;
    let mut crowd = Crowd::new(pool, 0..honest, subject.address(), kind.speech(), false)?;
    crowd.arrive(Entry::in_turn())?;
    let (before, seen) = (subject.usage()?, Seen::default());
    let (pki, address) = (rig.pki(), subject.address());
    let beats = thread::scope(|scope| {
        let hostiles = scope.spawn(|| hostile.trouble(pki, address, &seen));
        let beats = crowd.beat(RATE, |passed| passed < time);
        seen.end();
        hostiles.join().map_err(|_| Failure::new("the hostile ones panicked"))??;
        beats
    })?;
    if beats.lost > 0 || crowd.up() < honest {
        return Err(Failure::new(format!(
            "{} honest sessions were lost",
            beats.lost.max(honest - crowd.up())
        )));
    }
    let (renewed, sent_away) = (seen.renewed(), seen.sent_away());
    Ok(Siege { honest, hostile, beats, renewed, sent_away, before, after: subject.usage()? })
}

impl Siege {
    pub(super) fn table(&self, page: &mut String) {
        let Self { honest, hostile: Hostile { stalled, dribbling, renewing }, beats, .. } = self;
        let _ = write!(
            page,
            "## Beside hostile peers\n\n{honest} honest sessions send {RATE} heartbeats a second, for {} s. Beside them {stalled} peers stall in the \
             handshake,\n{dribbling} send one byte after the other, and {renewing} devices have the server take new keys with each heartbeat. Whoever is \
             sent away\ncomes again.\n\n\
             | answered in, median | 99 % | longest | honest sessions lost | keys renewed | hostile ones sent away | resident before, after |\n\
             | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n\
             | {} | {} | {} | {} | {} | {} | {:.1}, {:.1} MB |\n\n",
            beats.took.as_secs(),
            shown(beats.delays.per_mille(500)),
            shown(beats.delays.per_mille(990)),
            shown(beats.delays.per_mille(1000)),
            beats.lost,
            self.renewed,
            self.sent_away,
            self.before.resident as f64 / 1e6,
            self.after.resident as f64 / 1e6,
        );
    }
}
