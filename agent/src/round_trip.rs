//! How long an answer may take, from how long answers took (RFC 6298). Pure, whole milliseconds. It knows no question:
//! which answers may be timed (Karn's rule) is the session's matter.

use std::time::Duration;

/// A radio that wakes from idle, or a question that TCP sends a second time, takes this without anything being wrong.
const FLOOR: Duration = Duration::from_secs(2);

/// What is longer was no round trip but a stop on the way; also keeps the sums below inside 32 bits.
const LONGEST: Duration = Duration::from_secs(600);

/// What was measured on one network; it outlives the sessions there. The default has measured nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrip {
    /// Eight times the smoothed round trip, so that an eighth of a millisecond is not lost each time (Jacobson's scaling).
    smoothed_8: u32,
    /// Four times the mean deviation from it.
    deviation_4: u32,
}

impl RoundTrip {
    /// One answer came after this long (RFC 6298 sections 2.2 and 2.3, with alpha 1/8 and beta 1/4).
    pub fn measured(&mut self, round_trip: Duration) {
        let sample = milliseconds(round_trip.min(LONGEST)).max(1);
        if self.smoothed_8 == 0 {
            *self = Self { smoothed_8: sample * 8, deviation_4: sample * 2 };
            return;
        }
        let smoothed = self.smoothed_8 / 8;
        self.deviation_4 = self.deviation_4 - self.deviation_4 / 4 + sample.abs_diff(smoothed);
        self.smoothed_8 = self.smoothed_8 - smoothed + sample;
    }

    /// How long the next answer may take: the smoothed round trip and four deviations, at least [`FLOOR`], and never more
    /// than `most`, which also holds while nothing has been measured.
    #[must_use]
    pub fn deadline(&self, most: Duration) -> Duration {
        if self.smoothed_8 == 0 {
            return most;
        }
        let expected = Duration::from_millis((self.smoothed_8 / 8 + self.deviation_4).into());
        expected.max(FLOOR).min(most)
    }
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(10);

    fn after(samples: impl IntoIterator<Item = u64>) -> RoundTrip {
        let mut round_trip = RoundTrip::default();
        samples.into_iter().for_each(|ms| round_trip.measured(Duration::from_millis(ms)));
        round_trip
    }

    #[test]
    fn nothing_measured_takes_the_most() {
        assert_eq!(RoundTrip::default().deadline(MOST), MOST);
    }

    #[test]
    fn first_sample_counts_three_times() {
        // SRTT = R, RTTVAR = R/2, and R + 4 × R/2 = 3 R.
        assert_eq!(after([1500]).deadline(MOST), Duration::from_millis(4500));
    }

    #[test]
    fn steady_line_comes_down_to_its_round_trip() {
        let deadline = after([3000; 60]).deadline(MOST);
        assert!((3000..3050).contains(&deadline.as_millis()), "{deadline:?}");
    }

    #[test]
    fn quick_line_is_given_time_to_wake() {
        assert_eq!(after([0; 100]).deadline(MOST), FLOOR);
        assert_eq!(after([50; 100]).deadline(MOST), FLOOR);
        assert_eq!(after([50]).deadline(Duration::from_secs(1)), Duration::from_secs(1));
    }

    #[test]
    fn late_answer_widens_the_deadline_for_a_while() {
        let steady = [1500; 60];
        let widened = after(steady.into_iter().chain([6000]));
        assert!(widened.deadline(MOST) > Duration::from_secs(6), "{widened:?}");
        let later = after(steady.into_iter().chain([6000]).chain([1500; 40]));
        assert_eq!(later.deadline(MOST), FLOOR);
    }

    #[test]
    fn days_of_delay_change_nothing_beyond_the_most() {
        let mut round_trip = after([u64::MAX; 1000]);
        assert_eq!(round_trip.deadline(MOST), MOST);
        (0..200).for_each(|_| round_trip.measured(Duration::from_millis(100)));
        assert_eq!(round_trip.deadline(MOST), FLOOR);
    }
}
