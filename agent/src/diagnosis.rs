//! Where the way to the server fails, from the top down: name resolution, route, TCP, TLS, session. Pure: what failed and
//! what the modem told in; one line for log and status, and what to do about the modem, out.
//!
//! The step that fails is the one that the last round over all addresses came furthest to: one address that got through to
//! TLS shows that names, routes and TCP work. The modem is looked at only when not even TCP was reached, since else the
//! fault is the server's. It is started anew only if the operator allows it, when it answers and yet has no network, or
//! the device has no route; after half an hour, and then ever more rarely, so that no fault of a network or of a server
//! makes a fleet's modems register over and over (GSMA TS.34 4.0_REQ_011).

use std::fmt;
use std::time::{Duration, Instant};

use crate::budget::RESET_EVERY;
use crate::clock::{Now, Utc};
use crate::config::Reset;
use crate::modem::condition::Condition;
use crate::modem::watch::Reading;

/// A step of the way, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The server's name.
    Name,
    /// A route to its address.
    Route,
    /// Its host takes the connection.
    Tcp,
    /// Its host answers, and nothing listens there.
    Port,
    /// The handshake.
    Tls,
    /// The conversation.
    Session,
}

impl Step {
    /// Whether the server's host was not even reached: then the fault may be this device's.
    const fn is_of_the_way(self) -> bool {
        matches!(self, Self::Name | Self::Route | Self::Tcp)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name resolution",
            Self::Route => "route",
            Self::Tcp | Self::Port => "TCP",
            Self::Tls => "TLS",
            Self::Session => "session",
        })
    }
}

/// What is to be done about the modem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read how it stands with its network.
    Look,
    /// Start it anew.
    Reset,
}

/// How long the way must have failed, and over how many rounds, before the modem is started anew.
const RESET_AFTER: Duration = Duration::from_secs(30 * 60);
const RESET_ROUNDS: u32 = 3;

/// [`RESET_EVERY`] is doubled with each that did not help, up to so many times.
const RESET_MOST_DOUBLED: u32 = 3;

/// What the modem told before this may no longer hold.
const FRESH: Duration = Duration::from_secs(10 * 60);

/// See the module.
#[derive(Debug)]
pub struct Diagnosis {
    policy: Reset,
    /// How far this round has come, and why no further.
    round: Option<(Step, String)>,
    trouble: Option<Trouble>,
    modem: Modem,
    look_due: bool,
    /// The last starts anew, with those before that did not help.
    resets: Option<(Instant, u32)>,
    /// The kind of trouble that the log has.
    told: Option<(Step, Option<bool>, Modem)>,
}

/// A way that fails.
#[derive(Clone, Debug)]
struct Trouble {
    step: Step,
    text: String,
    since_ms: i64,
    /// Since when the server's host was not reached, and over how many rounds.
    unreached: Option<(Instant, u32)>,
    has_route: Option<bool>,
}

/// What is known of the modem in this trouble.
#[derive(Clone, Debug, Default)]
enum Modem {
    #[default]
    NotAsked,
    Told(Condition, Instant),
    Unreachable,
}

impl Modem {
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Told(one, _), Self::Told(other, _)) => {
                one.registration == other.registration
                    && one.operator == other.operator
                    && one.access == other.access
            }
            (Self::NotAsked, Self::NotAsked) | (Self::Unreachable, Self::Unreachable) => true,
            _ => false,
        }
    }
}

impl Diagnosis {
    /// Nothing has failed yet.
    #[must_use]
    pub const fn new(policy: Reset) -> Self {
        Self {
            policy,
            round: None,
            trouble: None,
            modem: Modem::NotAsked,
            look_due: false,
            resets: None,
            told: None,
        }
    }

    /// Takes a new policy, as after a reload.
    pub const fn set_policy(&mut self, policy: Reset) {
        self.policy = policy;
    }

    /// Something failed at this step; of several in a round the furthest counts.
    pub fn handle_failed(&mut self, step: Step, text: &str) {
        if self.round.as_ref().is_none_or(|(furthest, _)| step >= *furthest) {
            self.round = Some((step, text.to_owned()));
        }
    }

    /// Every address was tried in vain, or a session ended.
    pub fn handle_offline(&mut self, has_route: Option<bool>, now: Now) {
        let Some((step, text)) = self.round.take() else { return };
        let before = self.trouble.take();
        let of_the_way = step.is_of_the_way();
        let unreached = before.as_ref().and_then(|before| before.unreached);
        let unreached = unreached.map_or((now.instant, 1), |(since, rounds)| (since, rounds + 1));
        let since_ms =
            before.filter(|before| before.step == step).map_or(now.utc_ms, |before| before.since_ms);
        self.trouble = Some(Trouble {
            step,
            text,
            since_ms,
            unreached: of_the_way.then_some(unreached),
            has_route: has_route.filter(|_| of_the_way),
        });
        self.look_due = of_the_way;
        if !of_the_way {
            self.modem = Modem::NotAsked;
        }
    }

    /// The server took the device in: whatever the trouble was, it is over.
    pub fn handle_online(&mut self) {
        self.round = None;
        self.trouble = None;
        self.modem = Modem::NotAsked;
        self.look_due = false;
        self.told = None;
        // What helped may be tried again as if for the first time, though not sooner.
        self.resets = self.resets.map(|(at, _)| (at, 0));
    }

    /// The modem was read.
    pub fn handle_reading(&mut self, reading: &Reading, now: Now) {
        self.modem = match reading {
            Reading::Told(condition) => Modem::Told(condition.clone(), now.instant),
            Reading::Reset => Modem::NotAsked,
            Reading::Unreachable(_) => Modem::Unreachable,
        };
    }

    /// What is to be done about the modem now, once.
    pub fn poll_action(&mut self, now: Now) -> Option<Action> {
        if self.may_reset(now.instant) {
            let vain = self.resets.map_or(0, |(_, vain)| vain + 1);
            self.resets = Some((now.instant, vain));
            return Some(Action::Reset);
        }
        std::mem::take(&mut self.look_due).then_some(Action::Look)
    }

    /// The line for the log, when there is a new one.
    pub fn poll_line(&mut self) -> Option<String> {
        let trouble = self.trouble.as_ref()?;
        let is_told = self.told.as_ref().is_some_and(|(step, route, modem)| {
            *step == trouble.step && *route == trouble.has_route && modem.is_like(&self.modem)
        });
        if is_told {
            return None;
        }
        self.told = Some((trouble.step, trouble.has_route, self.modem.clone()));
        Some(self.to_string())
    }

    fn may_reset(&self, now: Instant) -> bool {
        let Some(Trouble { unreached: Some((since, rounds)), has_route, .. }) = &self.trouble else {
            return false;
        };
        let Modem::Told(condition, at) = &self.modem else { return false };
        let spaced = self.resets.is_none_or(|(last, vain)| {
            now.saturating_duration_since(last) >= RESET_EVERY * (1 << vain.min(RESET_MOST_DOUBLED))
        });
        self.policy == Reset::LastResort
            && spaced
            && now.saturating_duration_since(*since) >= RESET_AFTER
            && *rounds >= RESET_ROUNDS
            && now.saturating_duration_since(*at) <= FRESH
            && (condition.is_registered() == Some(false) || *has_route == Some(false))
    }
}

/// The line, as in log and status; without trouble it says that.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(trouble) = &self.trouble else { return f.write_str("no fault") };
        let Trouble { step, text, since_ms, has_route, .. } = trouble;
        write!(f, "{step} fails since {}: {text}", Utc(*since_ms))?;
        match step {
            Step::Port | Step::Tls => return f.write_str("; the way to the server's host stands"),
            // Whether the way was lost with it, the next try tells.
            Step::Session => return Ok(()),
            Step::Name | Step::Route | Step::Tcp => {}
        }
        f.write_str(match has_route {
            Some(true) => "; there is a default route",
            Some(false) => "; there is no default route",
            None => "",
        })?;
        match &self.modem {
            Modem::NotAsked => Ok(()),
            Modem::Told(condition, _) => write!(f, "; modem: {condition}"),
            Modem::Unreachable => f.write_str("; the modem does not answer"),
        }
    }
}

#[cfg(test)]
mod tests;
