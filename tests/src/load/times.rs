//! Many measured times and what is said of them.

use std::time::Duration;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<u32>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time within which so many of a thousand came; 1000: the longest.
    #[must_use]
    pub fn per_mille(&self, per_mille: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * per_mille).div_ceil(1000).saturating_sub(1);
        Duration::from_micros(sorted.get(place).copied().unwrap_or(0).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_sorted_times() {
        let mut times = Times::default();
        assert_eq!(times.per_mille(500), Duration::ZERO);
        (1..=100).rev().for_each(|ms| times.add(Duration::from_millis(ms)));
        for (per_mille, ms) in [(500, 50), (990, 99), (1000, 100), (0, 1)] {
            assert_eq!(times.per_mille(per_mille), Duration::from_millis(ms), "{per_mille}");
        }
    }
}
