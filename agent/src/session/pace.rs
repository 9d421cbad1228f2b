//! The silences of one session: how long they may be, who ends them, and what their ends show. It knows no message's form.

use std::time::{Duration, Instant};

use crate::clock::Now;

/// How the end of a silence comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The device heartbeats when it has sent nothing for this long.
    Fixed(Duration),
    /// The server is told this, and asks when neither has said anything for this long (Echo). The device heartbeats only when
    /// that did not come.
    Probed(Duration),
    /// The device asks for the time when neither has said anything for this long; it never heartbeats.
    Sparse(Duration),
}

/// What became of an Echo that was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// It came after this silence.
    Came {
        /// Since anything was said.
        silence: Duration,
    },
    /// It did not come in time, and a heartbeat asks whether the way up works.
    Missing,
    /// The way up works, and brought the Echo with it.
    Late,
    /// The way up works, and there was no Echo to bring.
    Unasked,
}

/// How long an Echo may take after its silence: a radio is paged, and TCP may have to send it again a few times. A server's
/// TCP that has sent it in vain for so long sends it again no later than this after the way is open.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// A silence that is worth the saving of an answer. In half of it, which is what the server waits after the end of two, a
/// heartbeat for an Echo that did not come has to arrive.
const WORTH_SAVING: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Silence {
    pace: Pace,
    sent_at: Instant,
    heard_at: Instant,
    /// Something was heard since something was said.
    unanswered: bool,
    /// What the server was told, seconds; 0 is nothing.
    told_s: u32,
    missed: Option<Missed>,
}

/// An Echo that did not come in time.
#[derive(Clone, Copy, Debug)]
struct Missed {
    /// It came after all.
    late: bool,
}

/// What is to be said to end a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    Heartbeat,
    /// The same, since an Echo did not come.
    MissedEcho,
    Time,
}

impl Silence {
    pub(super) const fn new(pace: Pace, now: Now) -> Self {
        Self { pace, sent_at: now.instant, heard_at: now.instant, unanswered: false, told_s: 0, missed: None }
    }

    pub(super) const fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    pub(super) const fn sent(&mut self, now: Now) {
        self.sent_at = now.instant;
        self.unanswered = false;
    }

    pub(super) const fn heard(&mut self, now: Now) {
        self.heard_at = now.instant;
        self.unanswered = true;
    }

    /// Whether nothing had been heard for long when something was said, and nothing since. No NAT in the field forgets sooner.
    pub(super) fn was_long(&self) -> bool {
        self.sent_at.saturating_duration_since(self.heard_at) >= GRACE
    }

    /// Whether that which was said may still be on its way.
    pub(super) fn was_just_ended(&self, now: Now) -> bool {
        now.instant.saturating_duration_since(self.sent_at) < GRACE
    }

    /// Whether something was heard to which nothing was said, where the server ends silences.
    pub(super) const fn take_unanswered(&mut self) -> bool {
        std::mem::replace(&mut self.unanswered, false) && matches!(self.pace, Pace::Probed(_))
    }

    /// The silence that the server is to be told, seconds, when it was told another one.
    pub(super) fn take_untold(&mut self) -> Option<u32> {
        let Pace::Probed(silence) = self.pace else { return None };
        let seconds = whole_seconds(silence);
        (std::mem::replace(&mut self.told_s, seconds) != seconds).then_some(seconds)
    }

    /// When [`Self::over`] has something.
    pub(super) fn deadline(&self) -> Instant {
        match self.pace {
            Pace::Fixed(interval) => self.sent_at + interval,
            Pace::Probed(silence) => self.since() + silence + GRACE,
            Pace::Sparse(silence) => self.since() + silence,
        }
    }

    /// What is to be said now that `now` has come.
    pub(super) fn over(&mut self, now: Now) -> Option<Break> {
        let late = now.instant.checked_duration_since(self.deadline())?;
        Some(match self.pace {
            Pace::Sparse(_) => Break::Time,
            // A device that slept through the deadline has not listened, and knows nothing of an Echo.
            Pace::Probed(_) if late < GRACE => {
                self.missed = Some(Missed { late: false });
                Break::MissedEcho
            }
            Pace::Fixed(_) | Pace::Probed(_) => Break::Heartbeat,
        })
    }

    /// Whether what is asked now is asked because an Echo did not come.
    pub(super) const fn misses_echo(&self) -> bool {
        self.missed.is_some()
    }

    /// An Echo came: what that shows, if anything yet.
    pub(super) fn echoed(&mut self, now: Now) -> Option<Echo> {
        if let Some(missed) = &mut self.missed {
            missed.late = true;
            return None;
        }
        Some(Echo::Came { silence: now.instant.saturating_duration_since(self.since()) })
    }

    /// Whether an Echo that shows this needs an answer beside TCP's acknowledgement. The server waits for two and a half
    /// silences, so that one Echo of two is enough: the one that finds no word of the device's own since the last.
    pub(super) fn wants_word(&self, shown: Option<Echo>) -> bool {
        match (self.pace, shown) {
            (Pace::Probed(agreed), Some(Echo::Came { silence })) if agreed >= WORTH_SAVING => {
                silence < agreed || self.sent_at < self.heard_at
            }
            _ => true,
        }
    }

    /// An answer came: what that shows of an Echo that did not come in time.
    pub(super) fn answered(&mut self) -> Option<Echo> {
        self.missed.take().map(|missed| if missed.late { Echo::Late } else { Echo::Unasked })
    }

    fn since(&self) -> Instant {
        self.sent_at.max(self.heard_at)
    }
}

fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SILENCE: Duration = Duration::from_secs(300);

    fn probed() -> (Silence, impl Fn(Duration) -> Now) {
        let start = crate::clock::now();
        let at = move |passed: Duration| Now { instant: start.instant + passed, ..start };
        (Silence::new(Pace::Probed(SILENCE), start), at)
    }

    #[test]
    fn server_speaks_first_and_the_device_only_after_the_grace() {
        let (mut silence, at) = probed();
        assert_eq!(silence.over(at(SILENCE + GRACE - SECOND)), None);
        assert_eq!(silence.echoed(at(SILENCE + SECOND)), Some(Echo::Came { silence: SILENCE + SECOND }));
        assert_eq!(silence.over(at(SILENCE + GRACE)), Some(Break::MissedEcho));
    }

    #[test]
    fn anything_said_or_heard_begins_a_new_silence() {
        for begin in [Silence::sent, Silence::heard] {
            let (mut silence, at) = probed();
            begin(&mut silence, at(100 * SECOND));
            assert_eq!(silence.deadline(), at(100 * SECOND + SILENCE + GRACE).instant);
            assert_eq!(silence.echoed(at(SILENCE)), Some(Echo::Came { silence: 200 * SECOND }));
        }
    }

    #[test]
    fn echo_after_the_devices_own_word_is_late() {
        let (mut silence, at) = probed();
        silence.over(at(SILENCE + GRACE)).unwrap();
        assert_eq!(silence.echoed(at(SILENCE + GRACE + SECOND)), None);
        assert_eq!(silence.answered(), Some(Echo::Late));
        assert_eq!(silence.answered(), None);
    }

    #[test]
    fn answer_without_an_echo_before_it_means_that_none_was_sent() {
        let (mut silence, at) = probed();
        silence.over(at(SILENCE + GRACE)).unwrap();
        assert_eq!(silence.answered(), Some(Echo::Unasked));
    }

    #[test]
    fn device_that_slept_accuses_nobody() {
        let (mut silence, at) = probed();
        assert_eq!(silence.over(at(SILENCE + 2 * GRACE)), Some(Break::Heartbeat));
        assert_eq!((silence.misses_echo(), silence.answered()), (false, None));
    }

    #[test]
    fn every_other_echo_is_answered() {
        let (mut silence, at) = probed();
        let mut now = Duration::ZERO;
        let mut is_answered = |silence: &mut Silence, after: Duration| {
            now += after;
            let shown = silence.echoed(at(now));
            let wants_word = silence.wants_word(shown);
            silence.heard(at(now));
            if wants_word {
                silence.sent(at(now));
            }
            wants_word
        };
        for answered in [false, true, false, true] {
            assert_eq!(is_answered(&mut silence, SILENCE), answered);
        }
        // What the server asks for reasons of its own is answered, and so is what came late.
        assert!(is_answered(&mut silence, SILENCE - SECOND));
        silence.missed = Some(Missed { late: false });
        assert!(is_answered(&mut silence, SILENCE + GRACE));
        silence.missed = None;
        // In a short silence there is no time for a second one.
        silence.set_pace(Pace::Probed(WORTH_SAVING - SECOND));
        assert!(is_answered(&mut silence, WORTH_SAVING));
    }

    #[test]
    fn what_is_left_to_tcp_is_told_once_and_only_where_the_server_asks() {
        let (mut silence, at) = probed();
        silence.heard(at(SECOND));
        assert_eq!((silence.take_unanswered(), silence.take_unanswered()), (true, false));
        silence.heard(at(2 * SECOND));
        silence.sent(at(2 * SECOND));
        assert!(!silence.take_unanswered());
        silence.set_pace(Pace::Fixed(SILENCE));
        silence.heard(at(3 * SECOND));
        assert!(!silence.take_unanswered());
    }

    #[test]
    fn question_right_after_an_answer_ends_no_silence() {
        let (mut silence, at) = probed();
        silence.heard(at(SILENCE));
        silence.sent(at(SILENCE));
        assert!(!silence.was_long());
        silence.sent(at(2 * SILENCE));
        assert!(silence.was_long() && silence.was_just_ended(at(2 * SILENCE + SECOND)));
        assert!(!silence.was_just_ended(at(3 * SILENCE)));
        silence.heard(at(2 * SILENCE + SECOND));
        assert!(!silence.was_long());
    }

    #[test]
    fn server_is_told_each_silence_once() {
        let (mut silence, _) = probed();
        assert_eq!((silence.take_untold(), silence.take_untold()), (Some(300), None));
        silence.set_pace(Pace::Probed(354 * SECOND));
        assert_eq!((silence.take_untold(), silence.take_untold()), (Some(354), None));
        silence.set_pace(Pace::Fixed(SECOND));
        assert_eq!(silence.take_untold(), None);
    }
}
