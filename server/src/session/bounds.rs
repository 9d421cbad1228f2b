//! Between which lengths a device's longest silence is granted: the fleet's bounds, and before them those that an operator
//! set for the one device. Pure; it knows neither message nor session.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use moorline_config::HumanDuration;

/// No bound is shorter.
pub const LEAST: Duration = Duration::from_secs(1);
/// No bound is longer.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What an operator set for one device, in seconds; where that is nothing, the fleet's bound holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The shortest silence granted.
    pub min_s: Option<NonZeroU32>,
    /// The longest.
    pub max_s: Option<NonZeroU32>,
}

impl Bounds {
    /// Nothing was set.
    pub const NONE: Self = Self { min_s: None, max_s: None };
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |bound: NonZeroU32| HumanDuration(seconds(bound));
        match (self.min_s, self.max_s) {
            (None, None) => f.write_str("within the fleet's bounds"),
            (Some(min), None) => write!(f, "from {} on", shown(min)),
            (None, Some(max)) => write!(f, "up to {}", shown(max)),
            (Some(min), Some(max)) => write!(f, "from {} to {}", shown(min), shown(max)),
        }
    }
}

fn seconds(bound: NonZeroU32) -> Duration {
    Duration::from_secs(bound.get().into())
}

/// The longest silence that a device wishes, and what the fleet's devices get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The device's word.
    pub wanted: Duration,
    /// The shortest that the fleet is granted.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl Wish {
    /// What comes of it. A bound of the device's own moves the fleet's other one where the two would cross.
    #[must_use]
    pub fn granted(self, own: Bounds) -> Duration {
        let min = own.min_s.map_or(self.min, seconds);
        let max = own.max_s.map_or_else(|| self.max.max(min), seconds);
        self.wanted.max(min).min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(wanted: u64, min_s: u32, max_s: u32) -> u64 {
        let [wanted, min, max] = [wanted, 10, 1800].map(Duration::from_secs);
        let own = Bounds { min_s: NonZeroU32::new(min_s), max_s: NonZeroU32::new(max_s) };
        Wish { wanted, min, max }.granted(own).as_secs()
    }

    #[test]
    fn fleets_bounds_hold_where_the_device_has_none() {
        assert_eq!([1, 60, 86_400].map(|wanted| granted(wanted, 0, 0)), [10, 60, 1800]);
        assert_eq!([1, 60, 86_400].map(|wanted| granted(wanted, 0, 300)), [10, 60, 300]);
        assert_eq!([1, 600, 86_400].map(|wanted| granted(wanted, 300, 0)), [300, 600, 1800]);
    }

    #[test]
    fn devices_own_bounds_come_first_even_beyond_the_fleets() {
        assert_eq!([1, 7200, 86_400].map(|wanted| granted(wanted, 2, 3600)), [2, 3600, 3600]);
        assert_eq!([1, 60, 86_400].map(|wanted| granted(wanted, 0, 5)), [5, 5, 5]);
        assert_eq!([1, 60, 86_400].map(|wanted| granted(wanted, 3600, 0)), [3600, 3600, 3600]);
    }
}
