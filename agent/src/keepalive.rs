//! How a session keeps its line alive at the least data: which silences it agrees on with the server, and what their ends
//! teach. Pure; it outlives sessions, as `backoff.rs` does, and knows no socket and no file: what is worth keeping comes out
//! of [`Keepalive::take_learned`], what to tell a person out of [`Keepalive::take_notice`].
//!
//! A device's own heartbeat after a silence proves nothing about the silence: many NATs open a new mapping for it. So the
//! server asks at the end of each silence (Echo), and the device speaks only when that did not come. Whether the mapping
//! was forgotten or coverage lost is told apart by what comes next:
//!
//! | after the Echo that did not come | it proves |
//! | --- | --- |
//! | the answer comes, with the Echo before it | the mapping was forgotten, and the device's own packet healed it |
//! | the answer comes without an Echo before it | the server had not asked: TCP keeps the order |
//! | the link dies, and the first try to come back succeeds | the mapping was forgotten, and its packets dropped or reset |
//! | the link dies, and tries fail | nothing: there was no coverage, or no server |

mod learner;
pub mod networks;

use std::fmt;
use std::time::{Duration, Instant};

use moorline_config::HumanDuration;

use crate::round_trip::RoundTrip;
use crate::session::{Dialect, Echo, End, Event, Pace, Terms};
pub use learner::Learned;
use learner::{Bounds, Learner, Phase};

/// What `[heartbeat]` of the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long the device may be silent.
    pub interval: Interval,
    /// The shortest silence that "adaptive" tries.
    pub min: Duration,
    /// The longest; a server may allow less.
    pub max: Duration,
    /// The longest that an answer may take.
    pub timeout: Duration,
}

/// `heartbeat.interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// Learned; in classic sessions, whose servers ask nothing, [`CLASSIC`].
    Adaptive,
    /// As configured, or as the server grants.
    Fixed(Duration),
}

/// What classic servers have always been told by their devices, at the longest.
pub const CLASSIC: Duration = Duration::from_secs(60);

/// What the radio is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// 2G to 5G, or not known.
    #[default]
    Usual,
    /// NB-IoT and LTE-M, where carriers want no keepalives (GSMA TS.34 4.0_REQ_006.1): nothing is probed, and what is said at
    /// the end of a silence twice the granted one has a use of its own. The server waits for two and a half.
    Sparse,
}

/// Something that a person should hear of, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The network forgets a flow sooner than `heartbeat.min`, this.
    TooShort(Duration),
    /// The longest silence is settled.
    Settled(Duration),
    /// The server asks nothing, so nothing can be learned.
    Unasked(Duration),
}

/// See the module.
#[derive(Debug)]
pub struct Keepalive {
    settings: Settings,
    profile: Profile,
    /// There once a server has told its bound, without which nothing known can be judged.
    learner: Option<Learner>,
    /// What the file holds of this network.
    kept: Learned,
    measured: RoundTrip,
    /// What the session that stands does.
    pace: Option<Pace>,
    /// An Echo did not come, and what that means is not known yet.
    suspicious: bool,
    /// What a person was told last.
    noticed: Option<Notice>,
}

impl Keepalive {
    /// On a network of which `kept` is known.
    #[must_use]
    pub fn new(settings: Settings, kept: Learned) -> Self {
        Self {
            settings,
            profile: Profile::default(),
            learner: None,
            kept,
            measured: RoundTrip::default(),
            pace: None,
            suspicious: false,
            noticed: None,
        }
    }

    /// Other settings hold, for the next session: they end the one that stands.
    pub const fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The next session goes over another network, of which `kept` is known: nothing else holds there.
    pub fn move_to(&mut self, kept: Learned) {
        let profile = self.profile;
        *self = Self { profile, ..Self::new(self.settings, kept) };
    }

    /// What the radio is made for, for the sessions to come.
    pub const fn set_profile(&mut self, profile: Profile) {
        self.profile = profile;
    }

    /// How a session is to begin.
    #[must_use]
    pub fn terms(&self, dialect: Dialect) -> Terms {
        let interval = match (self.settings.interval, dialect) {
            (Interval::Fixed(interval), _) => interval,
            (Interval::Adaptive, Dialect::Native) => self.settings.max,
            (Interval::Adaptive, Dialect::Classic) => CLASSIC,
        };
        Terms { interval, timeout: self.settings.timeout, round_trip: self.measured }
    }

    /// Hears what a session tells; gives the pace that it is to keep from now on, when that is another one.
    pub fn handle_event(&mut self, event: &Event, now: Instant) -> Option<Pace> {
        match event {
            Event::Registered { session_id, heartbeat, .. } => {
                let doubt = std::mem::take(&mut self.suspicious);
                let native = session_id.is_some();
                if let Some(learner) = self.learner.as_mut().filter(|_| doubt && native) {
                    learner.on_failure(now);
                }
                self.pace = Some(Pace::Fixed(*heartbeat));
                if native && self.settings.interval == Interval::Adaptive {
                    let pace = self.first_pace(*heartbeat, now);
                    return self.keep(pace);
                }
                None
            }
            Event::Answered { round_trip } => {
                self.measured.measured(*round_trip);
                None
            }
            Event::Echo(echo) => self.on_echo(*echo, now),
            Event::Ended(end) => {
                // Whoever answers, or whose host takes questions in, is within reach: what ended this was something else.
                self.suspicious &= matches!(end, End::Silent { acknowledged: false, .. });
                None
            }
            _ => None,
        }
    }

    /// The line showed that it works by what it said, as by a refusal, or that it does not, as by a try to come back that
    /// failed, or by a modem without a network: an Echo that did not come before proves nothing any more.
    pub const fn drop_suspicion(&mut self) {
        self.suspicious = false;
    }

    /// What was learned, when that is worth keeping and not kept yet.
    pub fn take_learned(&mut self) -> Option<Learned> {
        let learned = self.learner.as_ref()?.settled().filter(|learned| *learned != self.kept)?;
        self.kept = learned;
        Some(learned)
    }

    /// What a person should hear of now.
    pub fn take_notice(&mut self) -> Option<Notice> {
        let Some(Pace::Probed(silence)) = self.pace else { return None };
        let notice = match self.learner.as_ref()?.phase() {
            Phase::TooShort => Notice::TooShort(silence),
            Phase::Holding => Notice::Settled(silence),
            Phase::Unasked => Notice::Unasked(silence),
            Phase::Checking | Phase::Climbing | Phase::Confirming | Phase::Reaching => return None,
        };
        // A step further that came to nothing is no news.
        (self.noticed.replace(notice) != Some(notice)).then_some(notice)
    }

    fn first_pace(&mut self, granted: Duration, now: Instant) -> Pace {
        match self.profile {
            Profile::Usual => {
                let bounds = bounds(self.settings, granted);
                let learner = self.learner.get_or_insert_with(|| Learner::new(bounds, self.kept, now));
                learner.bound(bounds, now);
                probed(learner)
            }
            Profile::Sparse => Pace::Sparse(granted * 2),
        }
    }

    fn on_echo(&mut self, echo: Echo, now: Instant) -> Option<Pace> {
        self.suspicious = echo == Echo::Missing;
        let learner = self.learner.as_mut().filter(|_| matches!(self.pace, Some(Pace::Probed(_))))?;
        match echo {
            Echo::Missing => {}
            Echo::Came { silence } => learner.on_echo(silence, now),
            Echo::Late => learner.on_failure(now),
            Echo::Unasked => learner.on_unasked(),
        }
        let pace = probed(learner);
        self.keep(pace)
    }

    fn keep(&mut self, pace: Pace) -> Option<Pace> {
        (self.pace.replace(pace) != Some(pace)).then_some(pace)
    }
}

fn probed(learner: &Learner) -> Pace {
    Pace::Probed(Duration::from_secs(learner.silence().into()))
}

/// The server's word is the upper bound, whatever the configuration says.
fn bounds(settings: Settings, granted: Duration) -> Bounds {
    let max = seconds(settings.max.min(granted));
    Bounds { min: seconds(settings.min).min(max), max }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}

/// The silence in force, and where it comes from.
impl fmt::Display for Keepalive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (silence, why) = match self.pace {
            None => return Ok(()),
            Some(Pace::Fixed(interval)) => (interval, "fixed"),
            Some(Pace::Sparse(silence)) => (silence, "without keepalives, as this radio wants it"),
            Some(Pace::Probed(silence)) => (silence, self.learner.as_ref().map_or("", why)),
        };
        write!(f, "silent for up to {}, {why}", HumanDuration(silence))
    }
}

fn why(learner: &Learner) -> &'static str {
    match learner.phase() {
        Phase::Checking => "to see whether the server asks",
        Phase::Unasked => "fixed, as the server asks nothing",
        Phase::Climbing | Phase::Confirming => "learning",
        Phase::Holding => "learned",
        Phase::Reaching => "trying for longer",
        Phase::TooShort => "though the network forgets sooner",
    }
}

#[cfg(test)]
mod tests {
    use moorline_protocol::server_goodbye;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    const SETTINGS: Settings = Settings {
        interval: Interval::Adaptive,
        min: Duration::from_secs(300),
        max: Duration::from_secs(1740),
        timeout: Duration::from_secs(10),
    };

    fn registered(session_id: Option<u64>) -> Event {
        Event::Registered { session_id, heartbeat: SETTINGS.max, spread: Duration::ZERO }
    }

    /// One that holds 9m 17s, in a session that has begun.
    fn holding() -> (Keepalive, Instant) {
        let now = crate::clock::now().instant;
        let mut keepalive = Keepalive::new(SETTINGS, Learned { good: 580, dead: 684 });
        let pace = keepalive.handle_event(&registered(Some(1)), now);
        assert_eq!(pace, Some(Pace::Probed(Duration::from_secs(557))));
        (keepalive, now)
    }

    /// Whether two sessions that end like this after an Echo that did not come make it give up what it holds.
    fn accuses(end: impl Fn(&mut Keepalive, Instant)) -> bool {
        let (mut keepalive, now) = holding();
        for _ in 0..2 {
            keepalive.handle_event(&Event::Echo(Echo::Missing), now);
            end(&mut keepalive, now);
            keepalive.handle_event(&registered(Some(2)), now);
        }
        keepalive.pace != Some(Pace::Probed(Duration::from_secs(557)))
    }

    #[test]
    fn classic_sessions_keep_their_minute() {
        let mut keepalive = Keepalive::new(SETTINGS, Learned::default());
        assert_eq!(keepalive.terms(Dialect::Classic).interval, MINUTE);
        assert_eq!(keepalive.terms(Dialect::Native).interval, SETTINGS.max);
        assert_eq!(keepalive.handle_event(&registered(None), crate::clock::now().instant), None);
    }

    #[test]
    fn link_that_died_without_a_word_and_is_back_at_once_accuses_the_nat() {
        let silent = |acknowledged| Event::Ended(End::Silent { waited: MINUTE, acknowledged });
        assert!(accuses(|keepalive, now| assert_eq!(keepalive.handle_event(&silent(false), now), None)));
        // Reset or cut: the session itself tells nothing.
        assert!(accuses(|_, _| {}));
        // The server's host took the question in: it is stuck, and the way works.
        assert!(!accuses(|keepalive, now| assert_eq!(keepalive.handle_event(&silent(true), now), None)));
    }

    #[test]
    fn whatever_else_ends_a_session_accuses_nobody() {
        let goodbye =
            || Event::Ended(End::Goodbye { reason: server_goodbye::STOPPING, retry_after: Duration::ZERO });
        assert!(!accuses(|keepalive, now| assert_eq!(keepalive.handle_event(&goodbye(), now), None)));
        assert!(!accuses(|keepalive, _| keepalive.drop_suspicion()));
    }

    #[test]
    fn status_says_the_silence_and_why() {
        let (mut keepalive, now) = holding();
        assert_eq!(keepalive.to_string(), "silent for up to 9m 17s, learned");
        keepalive.set_profile(Profile::Sparse);
        keepalive.handle_event(&registered(Some(2)), now);
        assert_eq!(keepalive.to_string(), "silent for up to 58m, without keepalives, as this radio wants it");
        keepalive.configure(Settings { interval: Interval::Fixed(MINUTE), ..SETTINGS });
        keepalive.handle_event(&registered(Some(3)), now);
        assert_eq!(keepalive.to_string(), "silent for up to 29m, fixed");
    }
}
