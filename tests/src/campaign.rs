//! Faults upon several servers that share a fleet: each alone, then some together, in an order that a seed repeats. After each it is
//! waited until everything is well, and what the devices saw is held against what every server says.
//!
//! ```text
//!   plan ─ rounds ─► Stage: servers, their lines to NATS, NATS
//!                      │ devices (load::Nomads) ─ diaries ─┐
//!                      └ API and events of each ───────────┴─► check ─► what is wrong
//! ```

mod check;
mod cost;
mod fault;
mod plan;
mod stage;
mod witness;

use std::fmt::Write as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use cost::costs;
pub use fault::Fault;
pub use plan::{Round, plan};

use crate::failure::Failure;
use crate::load::{Nomads, Orders, Pool, now};
use check::Excuse;
use stage::Stage;
use witness::Witness;

/// Within which everything has to be well after a fault: a node is taken for lost after 14 s, the rest is for a busy machine.
const WELL_WITHIN: Duration = Duration::from_secs(90);
/// What a node took in just before it was killed may not have reached NATS.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// What a campaign is run with.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// Other seeds give other campaigns.
    pub seed: u64,
    /// How many devices there are.
    pub devices: u32,
    /// How many NATS servers: one or three.
    pub nats: usize,
}

/// How a round went.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The faults.
    pub name: String,
    /// How long they lasted.
    pub lasted: Duration,
    /// How long after their end everything was well.
    pub well_after: Duration,
    /// Sessions that began meanwhile.
    pub begun: usize,
    /// Sessions that stood before and were lost.
    pub disturbed: usize,
    /// Events that were told meanwhile.
    pub events: usize,
    /// Sessions that a killed node took in and could not tell of any more.
    pub taken_along: usize,
    /// What is wrong.
    pub wrong: Vec<String>,
}

impl Campaign {
    /// Runs these rounds, and tells of each as it is over. It ends with the first in which something is wrong.
    ///
    /// # Errors
    /// A program does not do as it is told; what it does wrong is in the outcomes.
    pub fn run(
        &self,
        rounds: impl IntoIterator<Item = Round>,
        mut tell: impl FnMut(&Outcome),
    ) -> Result<Vec<Outcome>, Failure> {
        let mut stage = Stage::build(self.nats)?;
        let pool = Pool::new(stage.rig.pki(), self.devices)?;
        let nomads = Nomads::start(&pool, stage.devices(), self.seed)?;
        nomads.wait_settled(WELL_WITHIN)?;
        let mut witness = Witness::new(stage.operators());
        let mut excuses = Vec::new();
        let mut outcomes = Vec::new();
        let first = Outcome { name: "none yet".to_owned(), ..Outcome::default() };
        outcomes.push(look(first, now(), &nomads, &mut witness, &excuses)?);
        outcomes.iter().for_each(&mut tell);
        for (number, round) in rounds.into_iter().enumerate() {
            if outcomes.last().is_some_and(|outcome: &Outcome| !outcome.wrong.is_empty()) {
                break;
            }
            let mut outcome = self.play(&round, number, &mut stage, &nomads, &mut witness, &mut excuses)?;
            if !outcome.wrong.is_empty() {
                let kept = stage.keep_words()?;
                outcome.wrong.insert(0, format!("what the servers said is in {}", kept.display()));
            }
            tell(&outcome);
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn play(
        &self,
        round: &Round,
        number: usize,
        stage: &mut Stage,
        nomads: &Nomads,
        witness: &mut Witness,
        excuses: &mut Vec<Excuse>,
    ) -> Result<Outcome, Failure> {
        let devices = self.devices as usize;
        let hopping = if round.faults.contains(&Fault::Hop) { (devices / 30).max(3) } else { 0 };
        // In each second round some stay away, so that it shows whether they are shown as that.
        let resting = if number.is_multiple_of(2) { devices / 10 } else { 0 };
        nomads.order(Orders { hopping, leaving: (self.devices / 100).max(1), resting });
        let began = now();
        for fault in &round.faults {
            stage.begin(*fault)?;
        }
        let (_silent, pace) = mpsc::channel::<()>();
        let _ = pace.recv_timeout(round.lasts);
        excuses.extend(round.faults.iter().filter_map(|fault| match fault {
            Fault::Kill(server) => Some(Excuse { server: *server, from: began - ON_ITS_WAY, until: now() }),
            _ => None,
        }));
        let mut healing = round.faults.clone();
        healing.sort_by_key(Fault::heals_at);
        for fault in healing {
            stage.heal(fault)?;
        }
        nomads.order(Orders { resting, ..Orders::default() });
        let outcome = Outcome { name: round.to_string(), lasted: now() - began, ..Outcome::default() };
        let mut outcome = look(outcome, began, nomads, witness, excuses)?;
        if outcome.disturbed > 0 && round.faults.iter().all(Fault::is_not_noticed) {
            outcome.wrong.push(format!("{} devices noticed what none is to notice", outcome.disturbed));
        }
        Ok(outcome)
    }
}

/// Waits until everything is well, or it is clear that it is not.
fn look(
    mut outcome: Outcome,
    began: Instant,
    nomads: &Nomads,
    witness: &mut Witness,
    excuses: &[Excuse],
) -> Result<Outcome, Failure> {
    let (healed, told) = (now(), witness.events().len());
    nomads.wait_settled(WELL_WITHIN)?;
    let (_silent, pace) = mpsc::channel::<()>();
    loop {
        let diaries = nomads.diaries();
        let fleet: Vec<_> =
            diaries.iter().enumerate().map(|(number, diary)| (nomads.imei(number), &**diary)).collect();
        outcome.wrong = witness.look(&fleet);
        let verdict = check::check(witness.events(), &fleet, excuses);
        outcome.wrong.extend(verdict.wrong);
        outcome.well_after = now() - healed;
        if outcome.wrong.is_empty() || outcome.well_after > WELL_WITHIN {
            let stays = || diaries.iter().flatten();
            outcome.begun = stays().filter(|stay| stay.began >= began).count();
            let disturbed =
                stays().filter(|stay| stay.lost && stay.began < began && stay.ended > Some(began));
            outcome.disturbed = disturbed.count();
            outcome.events = witness.events().len() - told;
            outcome.taken_along = verdict.taken_along;
            return Ok(outcome);
        }
        let _ = pace.recv_timeout(Duration::from_millis(500));
    }
}

/// What is told of an outcome as soon as it is known: a row of the table.
#[must_use]
pub fn row(outcome: &Outcome) -> String {
    let Outcome { name, lasted, well_after, begun, disturbed, events, taken_along, wrong } = outcome;
    let (lasted, well_after) = (lasted.as_secs_f64(), well_after.as_secs_f64());
    let mut row = format!(
        "| {name} | {lasted:.1} s | {well_after:.1} s | {begun} | {disturbed} | {events} | {taken_along} | {} |",
        wrong.len()
    );
    for wrong in wrong.iter().take(20) {
        let _ = write!(row, "\n    {wrong}");
    }
    row
}

/// The table's head.
pub const HEAD: &str =
    "| fault | lasted | well after | sessions begun | disturbed | events | taken along | wrong |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |";
