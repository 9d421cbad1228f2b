//! What comes over a line, and when. In a script [`PAUSE`] stands for nothing at all until the other side's next deadline; what
//! stands between two of them comes at once.

use std::time::{Duration, Instant};

/// Bytes of a port for diagnostics have it, too; there it is one more pause.
pub(super) const PAUSE: u8 = b'~';

/// The stretches of a script, each with whether it ends with a pause.
pub(super) fn stretches(script: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let mut rest = script;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.iter().position(|byte| *byte == PAUSE);
        let stretch = rest.get(..end.unwrap_or(rest.len()))?;
        rest = end.and_then(|end| rest.get(end + 1..)).unwrap_or_default();
        Some((stretch, end.is_some()))
    })
}

/// Virtual time, which begins anywhere.
pub(super) struct Clock {
    start: Instant,
    pub(super) now: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
        let start = Instant::now();
        Self { start, now: start }
    }

    pub(super) fn passed(&self) -> Duration {
        self.now - self.start
    }

    /// Goes to a deadline, unless it has passed.
    pub(super) fn go_to(&mut self, deadline: Instant) {
        self.now = self.now.max(deadline);
    }
}
