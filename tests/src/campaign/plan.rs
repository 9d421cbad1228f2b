//! Which faults come, in which order, and how long they last: by a seed. Pure.

use std::fmt;
use std::time::Duration;

use super::Fault;
use crate::network::Chance;
use crate::several::NAMES;

/// Faults that come at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// Which.
    pub faults: Vec<Fault>,
    /// How long they last; a rolling restart takes its time.
    pub lasts: Duration,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, fault) in self.faults.iter().enumerate() {
            let and = if place == 0 { "" } else { " + " };
            write!(f, "{and}{fault}")?;
        }
        Ok(())
    }
}

/// First each fault alone, then two at a time without end.
pub fn plan(seed: u64, nats: usize) -> impl Iterator<Item = Round> {
    let mut chance = Chance(seed);
    let mut alone = kinds(nats, &mut chance);
    // So that a short campaign with another seed begins with another.
    let first = chance.up_to(alone.len() as u64 - 1) as usize;
    alone.rotate_left(first);
    let mut alone = alone.into_iter();
    std::iter::from_fn(move || {
        let faults = match alone.next() {
            Some(fault) => vec![fault],
            None => together(nats, &mut chance),
        };
        let lasts = faults.iter().map(|fault| lasts(*fault, &mut chance)).max()?;
        Some(Round { faults, lasts })
    })
}

fn kinds(nats: usize, chance: &mut Chance) -> Vec<Fault> {
    let mut server = || chance.up_to(NAMES.len() as u64 - 1) as usize;
    let mut kinds = vec![Fault::Kill(server()), Fault::CutOff(server()), Fault::Hang(server())];
    kinds.push(Fault::WrongClock { server: server(), ahead: chance.up_to(1) == 0 });
    kinds.extend([Fault::KillAllNats, Fault::Hop, Fault::Roll]);
    if nats > 1 {
        kinds.push(Fault::KillNats);
    }
    kinds
}

/// Two that may be at the same time.
fn together(nats: usize, chance: &mut Chance) -> Vec<Fault> {
    loop {
        let [first, second] = [0, 1].map(|_| {
            let kinds = kinds(nats, chance);
            kinds[chance.up_to(kinds.len() as u64 - 1) as usize]
        });
        if may_meet(first, second) {
            return vec![first, second];
        }
    }
}

fn may_meet(first: Fault, second: Fault) -> bool {
    let server = |fault| match fault {
        Fault::Kill(server) | Fault::CutOff(server) | Fault::Hang(server) => Some(server),
        // A clock hinders nothing else.
        Fault::KillNats | Fault::KillAllNats | Fault::Hop | Fault::WrongClock { .. } | Fault::Roll => None,
    };
    let of_nats = |fault| matches!(fault, Fault::KillNats | Fault::KillAllNats);
    match (first, second) {
        (Fault::WrongClock { .. }, Fault::WrongClock { .. }) => false,
        // A server that starts needs NATS, and one that stands still does not stop.
        (Fault::Roll, other) | (other, Fault::Roll) => {
            matches!(other, Fault::Hop | Fault::WrongClock { .. })
        }
        (first, second) if of_nats(first) && of_nats(second) => false,
        (first, second) => first != second && (server(first).is_none() || server(first) != server(second)),
    }
}

fn lasts(fault: Fault, chance: &mut Chance) -> Duration {
    // Shorter and longer than it takes to notice.
    Duration::from_secs(match fault {
        Fault::Kill(_) => 1 + chance.up_to(19),
        Fault::KillNats | Fault::KillAllNats => 3 + chance.up_to(17),
        Fault::CutOff(_) | Fault::WrongClock { .. } => 5 + chance.up_to(20),
        Fault::Hop => 5 + chance.up_to(10),
        Fault::Hang(_) => 15,
        Fault::Roll => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_the_same_campaign_and_another_another() {
        let rounds = |seed| plan(seed, 3).take(20).collect::<Vec<_>>();
        assert_eq!(rounds(1), rounds(1));
        assert_ne!(rounds(1), rounds(2));
        let alone: Vec<_> = rounds(3).into_iter().take(8).map(|round| round.faults.len()).collect();
        assert_eq!(alone, [1; 8]);
        assert!(rounds(4)[8..].iter().all(|round| round.faults.len() == 2));
    }
}
