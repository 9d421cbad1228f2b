//! The time floor: the latest moment that is known to have passed, kept over restarts in the state folder.
//!
//! It begins at the time this program was built, and is raised from the server's time in an authenticated native session:
//! forward only, and written at most once a day, as flash wears. A server with a wrong clock must not shut its devices
//! out, which a floor past the end of their certificates would do for good. So the server's word
//! - is weighed against the device's clock where that is synchronised: two clocks that disagree raise nothing;
//! - else raises the floor by 90 days at most, so that there is time to notice;
//! - never raises it past the earliest end of the certificates just used, the server's and the device's: they were
//!   accepted, so it is no later than that by anybody's reckoning, and a server so accepted is accepted again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file;
use crate::trusted_time::Basis;

/// Seconds since 1970 that had passed when this program was built, from `SOURCE_DATE_EPOCH` where the build sets it.
pub const BUILT: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => seconds(text.as_bytes()),
    None => RELEASED,
};

/// 2026-11-01, the month this version was written in.
const RELEASED: u64 = 1_793_491_200;

/// How often the file is written, at most. Under a day, so that the server's time, asked for once a day, is not too early
/// for it by a hair each time.
pub const WRITE_EVERY: Duration = Duration::from_secs(23 * 3600);

/// How far two clocks may be apart that agree.
const AGREEMENT: Duration = Duration::from_secs(24 * 3600);

/// How far one step takes a floor when only the server vouches for it: short beside the life of a certificate.
const LONGEST_STEP: Duration = Duration::from_secs(90 * 24 * 3600);

/// The floor's file.
#[derive(Clone, Debug)]
pub struct FloorFile(PathBuf);

impl FloorFile {
    /// The file in the state folder.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("time-floor"))
    }

    /// The floor that was kept; a file that is missing, cut or garbage is as good as none.
    #[must_use]
    pub fn read(&self) -> u64 {
        let kept = fs::read_to_string(&self.0).ok();
        kept.and_then(|text| text.trim_end().parse().ok()).unwrap_or(0).max(BUILT)
    }

    /// Keeps a floor.
    ///
    /// # Errors
    /// The folder is missing, full or read-only.
    pub fn write(&self, floor: u64) -> io::Result<()> {
        file::replace(&self.0, &format!("{floor}\n"))
    }
}

/// The floor to keep from now on, if it is worth a write. `server` is the server's time and `end` the earliest end of the
/// certificates just used; all in seconds since 1970.
#[must_use]
pub fn raised(floor: u64, clock: Basis, server: u64, end: u64) -> Option<u64> {
    let vouched = match clock {
        // Two clocks that agree vouch for each other; of two that don't, one is wrong, and who knows which.
        Basis::Clock(clock) => (clock.abs_diff(server) <= AGREEMENT.as_secs()).then(|| clock.min(server))?,
        Basis::Floor(_) | Basis::FloorInstead(_) => server.min(floor.saturating_add(LONGEST_STEP.as_secs())),
    };
    let raised = vouched.min(end);
    (raised >= floor.saturating_add(WRITE_EVERY.as_secs())).then_some(raised)
}

/// Decimal digits as a number; what is not a digit ends it.
const fn seconds(text: &[u8]) -> u64 {
    let (mut index, mut value) = (0, 0);
    while index < text.len() && text[index].is_ascii_digit() {
        value = value * 10 + (text[index] - b'0') as u64;
        index += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;
    const FLOOR: u64 = 20_000 * DAY;

    const FAR: u64 = FLOOR + 10_000 * DAY;

    #[test]
    fn clocks_that_agree_raise_the_floor_once_a_day() {
        let clock = |seconds| Basis::Clock(seconds);
        assert_eq!(raised(FLOOR, clock(FLOOR + 2 * DAY), FLOOR + 2 * DAY + 9, FAR), Some(FLOOR + 2 * DAY));
        assert_eq!(raised(FLOOR, clock(FLOOR + DAY / 2), FLOOR + DAY / 2, FAR), None);
    }

    #[test]
    fn clocks_that_disagree_raise_nothing() {
        assert_eq!(raised(FLOOR, Basis::Clock(FLOOR + 2 * DAY), FLOOR + 4000 * DAY, FAR), None);
        assert_eq!(raised(FLOOR, Basis::Clock(FLOOR + 4000 * DAY), FLOOR + 2 * DAY, FAR), None);
    }

    #[test]
    fn unknown_time_takes_the_servers_word_in_steps() {
        for basis in [Basis::Floor(FLOOR), Basis::FloorInstead(FLOOR)] {
            assert_eq!(raised(FLOOR, basis, FLOOR + 30 * DAY, FAR), Some(FLOOR + 30 * DAY));
            assert_eq!(raised(FLOOR, basis, FLOOR + 9000 * DAY, FAR), Some(FLOOR + 90 * DAY));
            assert_eq!(raised(FLOOR, basis, FLOOR - DAY, FAR), None);
        }
    }

    /// However often a server in 2099 is believed: what it was accepted with is accepted again.
    #[test]
    fn floor_never_passes_the_end_of_the_certificates() {
        let (end, server) = (FLOOR + 200 * DAY, FLOOR + 26_000 * DAY);
        let mut floor = FLOOR;
        for _ in 0..1000 {
            floor = raised(floor, Basis::Floor(floor), server, end).unwrap_or(floor);
            assert!(floor <= end);
        }
        assert_eq!(floor, end);
        assert_eq!(
            raised(FLOOR, Basis::Clock(FLOOR + 8 * DAY), FLOOR + 8 * DAY, FLOOR + 5 * DAY),
            Some(FLOOR + 5 * DAY)
        );
    }

    #[test]
    fn garbage_in_the_file_is_no_floor() {
        let folder = std::env::temp_dir().join(format!("moorline-floor-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = FloorFile::new(&folder);
        assert_eq!(file.read(), BUILT);
        for garbage in ["", "\0\0\0", "12", "99999999999999999999999", "-5"] {
            fs::write(folder.join("time-floor"), garbage).unwrap();
            assert_eq!(file.read(), BUILT, "{garbage:?}");
        }
        file.write(BUILT + DAY).unwrap();
        assert_eq!(file.read(), BUILT + DAY);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn build_time_is_read_from_digits() {
        assert_eq!(seconds(b"1793491200"), RELEASED);
        assert_eq!(seconds(b"12x"), 12);
    }
}
