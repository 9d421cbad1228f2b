//! By which time certificates are judged: the system clock where something keeps it right, else a lower bound of the time,
//! the floor. Decides, and asks for nothing but the two clocks.
//!
//! A clock that nobody keeps right says nothing: it may stand at 1970, or in 2099 after a bit flipped in a cheap clock
//! chip. So it is left out altogether, and one error harms as little as the other. What the floor then can prove is in
//! `verifier.rs`.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::clock::{self, Utc};
use crate::floor::BUILT;
use crate::synchronised;

/// What the device says of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Seconds since 1970.
    pub seconds: u64,
    /// Something keeps it right: see `synchronised.rs`.
    pub synchronised: bool,
}

/// The time that counts, in seconds since 1970, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The system clock, which is synchronised.
    Clock(u64),
    /// The floor, as the clock is not.
    Floor(u64),
    /// The floor, as the clock is said to be but shows a time before this program was built.
    FloorInstead(u64),
}

impl Basis {
    /// Decides. A kept floor does not overrule a synchronised clock, which so mends a floor that was raised by mistake.
    #[must_use]
    pub const fn of(clock: Reading, floor: u64) -> Self {
        match clock {
            Reading { synchronised: false, .. } => Self::Floor(floor),
            Reading { seconds, .. } if seconds < BUILT => Self::FloorInstead(floor),
            Reading { seconds, .. } => Self::Clock(seconds),
        }
    }

    /// Whether the clock counts.
    #[must_use]
    pub const fn is_clock(self) -> bool {
        matches!(self, Self::Clock(_))
    }
}

/// Follows the word "clock".
impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (why, floor) = match *self {
            Self::Clock(_) => return f.write_str("synchronised: certificates are judged by it"),
            Self::Floor(floor) => ("not synchronised", floor),
            Self::FloorInstead(floor) => ("set to before this program was built", floor),
        };
        write!(f, "{why}: certificates are judged by the floor {}", Utc::of_seconds(floor))
    }
}

/// The floor as it stands, and the way to the clock. Shared with rustls, hence the lock.
#[derive(Debug)]
pub struct TrustedTime {
    floor: Mutex<u64>,
    read: fn() -> Reading,
}

impl TrustedTime {
    /// With the system clock, and a floor in seconds since 1970.
    #[must_use]
    pub const fn new(floor: u64) -> Self {
        Self::with_clock(floor, system_clock)
    }

    /// With another clock.
    #[must_use]
    pub const fn with_clock(floor: u64, read: fn() -> Reading) -> Self {
        Self { floor: Mutex::new(floor), read }
    }

    /// What counts now.
    #[must_use]
    pub fn basis(&self) -> Basis {
        Basis::of((self.read)(), self.floor())
    }

    /// The floor, seconds since 1970.
    #[must_use]
    pub fn floor(&self) -> u64 {
        *self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises the floor; it is never lowered.
    pub fn raise(&self, to: u64) {
        let mut floor = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        *floor = to.max(*floor);
    }
}

fn system_clock() -> Reading {
    let utc_ms = clock::now().utc_ms;
    Reading {
        seconds: u64::try_from(utc_ms / 1000).unwrap_or(0),
        synchronised: synchronised::is_synchronised(utc_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: u64 = 365 * 24 * 3600;
    const FLOOR: u64 = BUILT + YEAR;

    #[test]
    fn clock_that_nobody_keeps_right_counts_for_nothing() {
        // 1970, just below and above the floor, 2099.
        for seconds in [0, 60, FLOOR - 1, FLOOR + 1, FLOOR + 72 * YEAR, u64::MAX] {
            assert_eq!(Basis::of(Reading { seconds, synchronised: false }, FLOOR), Basis::Floor(FLOOR));
        }
    }

    #[test]
    fn synchronised_clock_counts_whatever_the_floor_is() {
        for seconds in [BUILT, FLOOR - 1, FLOOR, FLOOR + 9 * YEAR] {
            assert_eq!(Basis::of(Reading { seconds, synchronised: true }, FLOOR), Basis::Clock(seconds));
        }
    }

    #[test]
    fn synchronised_clock_before_this_program_is_not_believed() {
        for seconds in [0, BUILT - 1] {
            let basis = Basis::of(Reading { seconds, synchronised: true }, FLOOR);
            assert_eq!(basis, Basis::FloorInstead(FLOOR));
        }
    }

    #[test]
    fn basis_is_told_in_words() {
        let floor = 1_795_533_767;
        assert_eq!(
            Basis::Floor(floor).to_string(),
            "not synchronised: certificates are judged by the floor 2026-11-24T15:22:47Z"
        );
        assert!(Basis::FloorInstead(floor).to_string().starts_with("set to before this program was built: "));
        assert_eq!(Basis::Clock(floor).to_string(), "synchronised: certificates are judged by it");
    }

    #[test]
    fn floor_is_never_lowered() {
        let time = TrustedTime::new(FLOOR);
        time.raise(FLOOR - 1);
        assert_eq!(time.floor(), FLOOR);
        time.raise(FLOOR + 1);
        assert_eq!(time.floor(), FLOOR + 1);
    }
}
