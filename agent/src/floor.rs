//! The time floor: the latest moment that is known to have passed, kept over restarts in the state folder.
//!
//! It is raised from the server's time after an authenticated session, forward only, and written at most once a day, as
//! flash wears. A server with a wrong clock must not shut its devices out: a floor past the end of their certificates
//! would do that for good. So a floor is raised only when the device's clock agrees with the server's, or when the device's
//! clock is known to be wrong because it is below the floor; and then by 90 days at a time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file;

/// Seconds since 1970 that had passed when this program was built, from `SOURCE_DATE_EPOCH` where the build sets it.
pub const BUILT: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => seconds(text.as_bytes()),
    None => RELEASED,
};

/// 2026-11-01, the month this version was written in.
const RELEASED: u64 = 1_793_491_200;

/// How often the file is written, at most.
const WRITE_EVERY: Duration = Duration::from_secs(24 * 3600);

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

/// The floor to keep from now on, if it is worth a write: all in seconds since 1970.
#[must_use]
pub fn raised(floor: u64, clock: u64, server: u64) -> Option<u64> {
    let trusted = if clock >= floor {
        // Two clocks that agree vouch for each other; of two that don't, one is wrong, and who knows which.
        (clock.abs_diff(server) <= AGREEMENT.as_secs()).then(|| clock.min(server))?
    } else {
        server.min(floor + LONGEST_STEP.as_secs())
    };
    (trusted >= floor.saturating_add(WRITE_EVERY.as_secs())).then_some(trusted)
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

    #[test]
    fn clocks_that_agree_raise_the_floor_once_a_day() {
        assert_eq!(raised(FLOOR, FLOOR + 2 * DAY, FLOOR + 2 * DAY + 9), Some(FLOOR + 2 * DAY));
        assert_eq!(raised(FLOOR, FLOOR + DAY - 1, FLOOR + DAY - 1), None);
    }

    #[test]
    fn clocks_that_disagree_raise_nothing() {
        assert_eq!(raised(FLOOR, FLOOR + 2 * DAY, FLOOR + 4000 * DAY), None);
        assert_eq!(raised(FLOOR, FLOOR + 4000 * DAY, FLOOR + 2 * DAY), None);
    }

    #[test]
    fn a_clock_in_1970_takes_the_servers_word_in_steps() {
        assert_eq!(raised(FLOOR, 60, FLOOR + 30 * DAY), Some(FLOOR + 30 * DAY));
        assert_eq!(raised(FLOOR, 60, FLOOR + 9000 * DAY), Some(FLOOR + 90 * DAY));
        assert_eq!(raised(FLOOR, 60, FLOOR - DAY), None);
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
