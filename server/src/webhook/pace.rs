//! How long to wait before a request is made again. Pure: chance is an argument.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// The longest that a receiver may ask for: a wrong `Retry-After` must not end it all.
const LONGEST_ASKED: Duration = Duration::from_secs(60 * 60);

/// The pause after so many attempts in vain: doubled with each, and half of it by chance (0 to 1); no shorter than what the
/// receiver asked for.
pub(super) fn pause(attempts: u32, chance: f64, asked: Option<Duration>) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let whole = (FIRST * 2_u32.pow(doublings)).min(LONGEST);
    let pause = whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
    asked.map_or(pause, |asked| pause.max(asked.min(LONGEST_ASKED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_minutes() {
        let whole: Vec<_> = [1, 2, 3, 8, 9, 10, u32::MAX].map(|n| pause(n, 1.0, None).as_secs()).into();
        assert_eq!(whole, [1, 2, 4, 128, 256, 300, 300]);
        assert_eq!(pause(1, 0.0, None), Duration::from_millis(500));
    }

    #[test]
    fn receiver_is_heard_within_reason() {
        let asked = |seconds| pause(1, 1.0, Some(Duration::from_secs(seconds))).as_secs();
        assert_eq!([asked(0), asked(40), asked(1_000_000)], [1, 40, 3600]);
    }
}
