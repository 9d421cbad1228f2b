//! Sources that devices registered from lately. Pure, and bounded: two generations, of which the older one goes when the
//! newer is full; a device that registers again keeps its source.

use std::collections::HashSet;
use std::mem;

use crate::admission::Source;

/// Sources of a generation. A fleet in which each device has an address of its own is remembered up to this size for sure;
/// it takes about 10 MB then, and nothing for the few addresses of a carrier's NAT.
const GENERATION: usize = 1 << 17;

#[derive(Debug, Default)]
pub(super) struct Familiar {
    recent: HashSet<Source>,
    older: HashSet<Source>,
}

impl Familiar {
    /// How many they are; one that is in both generations counts twice.
    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }

    pub(super) fn contains(&self, source: Source) -> bool {
        self.recent.contains(&source) || self.older.contains(&source)
    }

    /// Returns whether it is new.
    pub(super) fn insert(&mut self, source: Source) -> bool {
        let new = !self.contains(source);
        if self.recent.len() >= GENERATION {
            self.older = mem::take(&mut self.recent);
        }
        self.recent.insert(source);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_keeps_the_latest() {
        let mut familiar = Familiar::default();
        let many = 5 * GENERATION as u128;
        for source in 0..many {
            assert!(familiar.insert(source));
        }
        assert!(familiar.len() <= 2 * GENERATION);
        assert!(familiar.contains(many - 1) && familiar.contains(many - GENERATION as u128));
        assert!(!familiar.contains(0));
        assert!(!familiar.insert(many - 1));
    }
}
