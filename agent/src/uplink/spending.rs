//! Where the road to the server asks the budget: before a round, before each attempt, and after all that has passed.

use std::time::Duration;

use moorline_config::HumanDuration;
use moorline_protocol::device_goodbye;

use super::{State, Uplink};
use crate::budget::Wait;
use crate::clock::Now;
use crate::keepalive::Interval;
use crate::ledger::Ledger;
use crate::round::Round;
use crate::session::{Dialect, Terms};

impl Uplink {
    /// What was used of the budget.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether the modem may be started anew, as often as that was before, and by whichever process.
    pub fn may_reset_modem(&mut self, now: Now) -> bool {
        self.ledger.may_reset(now)
    }

    /// The process ends.
    pub fn close(&mut self, now: Now) {
        self.ledger.close(now);
    }

    /// Books what has passed, and has the session that stands tell the server what it comes to, if that is due.
    pub(super) fn book(&mut self, now: Now) {
        self.news |= self.ledger.turn(now);
        if let State::Online { link, .. } = &mut self.state
            && link.dialect() == Dialect::Native
            && let Some(usage) = self.ledger.poll_usage(now)
            && let Some(session) = link.session()
        {
            session.tell_usage(usage);
        }
    }

    /// Books what has passed, and ends a session that the budget does not bear any more.
    pub(super) fn settle(&mut self, now: Now) {
        self.book(now);
        let State::Online { link, .. } = &self.state else { return };
        if self.ledger.is_shut() {
            self.leave(device_goodbye::BUDGET, now);
        } else if self.is_stretchable(link.dialect())
            && self.ledger.is_thrifty() != self.thrifty
            && self.ledger.may_attempt(now).is_ok()
        {
            // Only a greeting finds out how long a silence the server grants.
            let reason = if self.thrifty { device_goodbye::RELOADING } else { device_goodbye::BUDGET };
            self.leave(reason, now);
        }
    }

    /// What to ask of a session that begins: near the month's bound, the longest silence.
    pub(super) fn thrifty(&mut self, terms: Terms, dialect: Dialect) -> Terms {
        self.thrifty = self.ledger.is_thrifty();
        let stretched = self.thrifty && self.is_stretchable(dialect);
        Terms { interval: if stretched { LONGEST } else { terms.interval }, ..terms }
    }

    /// A silence that is learned is as long as can be already, and a classic server bears no other than it is used to.
    fn is_stretchable(&self, dialect: Dialect) -> bool {
        let fixed = matches!(self.config.heartbeat.interval, Interval::Fixed(interval) if interval < LONGEST);
        fixed && dialect == Dialect::Native
    }

    /// A new round over all addresses, if the budget allows one now.
    pub(super) fn begin_round(&mut self, now: Now) {
        match self.ledger.may_attempt(now) {
            Ok(()) => {
                self.round = Round::new(self.config.server.addresses.len(), self.config.server.protocol);
                self.next_step(now);
            }
            Err(wait) => self.wait(wait, now),
        }
    }

    /// The budget allows no attempt before that.
    pub(super) fn wait(&mut self, wait: Wait, now: Now) {
        let delay = wait.until.saturating_duration_since(now.instant);
        let (bound, shown) = (wait.bound, HumanDuration(delay));
        self.may_hurry = false;
        self.set_state(State::offline(now, delay), format_args!(": next try in {shown}, for {bound}"));
    }
}

/// GSMA TS.34 4.0_REQ_007's default for TCP.
const LONGEST: Duration = Duration::from_secs(29 * 60);
