//! The ids of sessions where several nodes give them. An id is the session's epoch: of two sessions of one device the one with
//! the higher id is the newer.
//!
//! A hybrid logical clock in milliseconds, with the node's number in the last byte: an id is higher than all that its node knew
//! of, and no two nodes give the same. Whoever hears of a higher one takes its clock over, and all go on with time, each by
//! itself: so a device that comes to another node while the two do not hear each other has the higher id there as well, and
//! whose machine's clock is wrong does not matter.

use std::time::Instant;

use crate::clock::Now;

/// How many bits of a session's id name its node.
const NODE_BITS: u32 = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Epoch {
    node: u8,
    /// What the clock showed, and when.
    ms: u64,
    at: Instant,
    /// The next id is no lower.
    next: u64,
}

impl Epoch {
    /// The machine's clock is as good as any to begin with.
    pub(super) fn new(node: u8, now: Now) -> Self {
        Self { node, ms: now.utc_ms.max(0).cast_unsigned(), at: now.instant, next: 0 }
    }

    /// Ids that are given from now on are higher than this one.
    pub(super) fn meet(&mut self, session_id: u64, now: Now) {
        let met = session_id >> NODE_BITS;
        self.next = self.next.max(met + 1);
        if met > self.shows(now) {
            (self.ms, self.at) = (met, now.instant);
        }
    }

    pub(super) fn give(&mut self, now: Now) -> u64 {
        let id = self.shows(now).max(self.next);
        self.next = id + 1;
        id << NODE_BITS | u64::from(self.node)
    }

    fn shows(&self, now: Now) -> u64 {
        let passed = now.instant.saturating_duration_since(self.at).as_millis();
        self.ms.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn at(begun: Now, ms: i64) -> Now {
        Now { instant: begun.instant + Duration::from_millis(ms.cast_unsigned()), utc_ms: begun.utc_ms + ms }
    }

    #[test]
    fn ids_grow_and_are_each_nodes_own() {
        let begun = clock::now();
        let (mut one, mut other) = (Epoch::new(1, begun), Epoch::new(2, begun));
        let ids: Vec<u64> = (0..4).flat_map(|_| [one.give(begun), other.give(begun)]).collect();
        assert!(ids.is_sorted() && ids.iter().all(|id| ids.iter().filter(|same| *same == id).count() == 1));
    }

    #[test]
    fn device_that_moves_between_nodes_that_do_not_hear_each_other_has_the_higher_id() {
        let begun = clock::now();
        // An hour ahead, which the other has heard of once.
        let wrong = Now { utc_ms: begun.utc_ms + 3_600_000, ..begun };
        let (mut one, mut other) = (Epoch::new(1, wrong), Epoch::new(2, begun));
        other.meet(one.give(wrong), begun);
        let mut before = 0;
        for second in 1..10 {
            // Many come to the first.
            (0..500).for_each(|_| before = one.give(at(wrong, second * 1000)));
            assert!(other.give(at(begun, second * 1000 + 500)) > before);
        }
    }

    #[test]
    fn clock_that_is_set_back_gives_no_id_again() {
        let begun = clock::now();
        let mut epoch = Epoch::new(1, begun);
        let before = epoch.give(begun);
        let back = Now { utc_ms: 0, ..at(begun, 5) };
        assert!(epoch.give(back) > before);
        let mut restarted = Epoch::new(1, back);
        restarted.meet(before, back);
        assert!(restarted.give(back) > before);
    }
}
