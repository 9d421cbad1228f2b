//! Where the road to the server asks the budget: before a round, before each attempt, and after all that has passed.

use moorline_config::HumanDuration;
use moorline_protocol::device_goodbye;

use super::{State, Uplink};
use crate::budget::Wait;
use crate::clock::Now;
use crate::ledger::Ledger;
use crate::round::Round;

impl Uplink {
    /// What was used of the budget.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The process ends.
    pub fn close(&mut self, now: Now) {
        self.ledger.close(now);
    }

    /// Books what has passed.
    pub(super) fn settle(&mut self, now: Now) {
        self.news |= self.ledger.turn(now);
        if self.ledger.is_shut() && matches!(self.state, State::Online { .. }) {
            self.leave(device_goodbye::OTHER, now);
        }
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
