//! Whether something keeps the clock right, by whoever can be asked: the kernel, else systemd-timesyncd.
//!
//! The hardened service may not call adjtimex(2), as a filter of system calls takes the question and the setting of the
//! clock for one. A file then tells the same of the NTP client that systems with systemd have.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::adjtimex;

/// Touched at each successful synchronisation: systemd-timesyncd.service(8). Every half hour or so, where its server is
/// reached.
const TIMESYNCD: &str = "/run/systemd/timesync/synchronized";

/// The kernel takes a clock that nobody corrects for right until its error may have reached 16 s, at 500 ppm
/// (`NTP_PHASE_LIMIT` and `MAXFREQ`, linux/timex.h).
const LASTS: Duration = Duration::from_secs(32_000);

/// A file's time comes from the tick before the clock's.
const TICK: Duration = Duration::from_millis(20);

/// Whether the system clock, which shows `utc_ms` since 1970, can be believed. Without an answer it cannot.
#[must_use]
pub fn is_synchronised(utc_ms: i64) -> bool {
    adjtimex::is_synchronised().unwrap_or_else(|| was_touched_lately(Path::new(TIMESYNCD), utc_ms))
}

/// By the clock in question: one that was set by hand since, either way, shows another time than the file's.
fn was_touched_lately(file: &Path, utc_ms: i64) -> bool {
    let clock = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(utc_ms).unwrap_or(0)) + TICK;
    fs::metadata(file)
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|touched| clock.duration_since(touched).is_ok_and(|age| age <= LASTS))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn clock_is_believed_for_some_hours_after_the_file_was_touched() {
        let path = std::env::temp_dir().join(format!("moorline-synchronized-{}", std::process::id()));
        let touched_ms = 1_795_533_767_000;
        assert!(!was_touched_lately(&path, touched_ms));
        let touched = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_533_767_000);
        File::create(&path).unwrap().set_modified(touched).unwrap();
        for (age_ms, believed) in [
            (0, true),
            (8 * HOUR_MS, true),
            (9 * HOUR_MS, false),
            (365 * 24 * HOUR_MS, false),
            (-HOUR_MS, false),
            (-touched_ms, false),
        ] {
            assert_eq!(was_touched_lately(&path, touched_ms + age_ms), believed, "{age_ms}");
        }
        fs::remove_file(path).unwrap();
    }
}
