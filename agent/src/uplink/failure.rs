//! What is made of a failure: it is told, it is weighed for the next target, and it is waited after.

use std::time::Duration;

use moorline_config::HumanDuration;

use super::{State, Uplink};
use crate::backoff::Cause;
use crate::clock::Now;
use crate::diagnosis::Step;
use crate::fault::Fault;
use crate::log;
use crate::round::{Failure, Target};
use crate::route;

impl Uplink {
    /// Nothing came of a target.
    pub(super) fn on_failed(&mut self, target: Target, fault: &Fault, now: Now) {
        self.keeping.on_unreachable();
        let failure = match fault.cause {
            _ if fault.alpn => Failure::Alpn,
            Cause::Refused => Failure::Refused,
            Cause::Network | Cause::Ended => Failure::Way,
        };
        self.round.failed(target, failure);
        let server = &self.config.server.addresses[target.server];
        let ip = target.address.ip();
        let place = if server.ip().is_some() { server.to_string() } else { format!("{server} ({ip})") };
        self.note(now, fault.step, &format!("{place}: {}", fault.text));
    }

    /// Waits for the next try.
    pub(super) fn go_offline(
        &mut self,
        cause: Cause,
        healthy: Duration,
        retry_after: Option<Duration>,
        now: Now,
    ) {
        let delay = self.backoff.next_delay(cause, healthy, retry_after);
        let may_hurry = cause == Cause::Network && retry_after.is_none() && !self.backoff.is_spread();
        self.rest(delay, may_hurry, now);
    }

    /// Waits so long; a change of the network cuts it short if that is allowed.
    pub(super) fn rest(&mut self, delay: Duration, may_hurry: bool, now: Now) {
        let shown = HumanDuration(Duration::from_secs(delay.as_millis().div_ceil(1000) as u64));
        self.may_hurry = may_hurry;
        self.diagnosis.handle_offline(route::has_default(), now);
        self.set_state(State::offline(now, delay), format_args!(": next try in {shown}"));
    }

    /// Tells what failed, and at which step.
    pub(super) fn note(&mut self, now: Now, step: Step, text: &str) {
        log::warning(format_args!("{text}"));
        // A line break in it would begin another order to systemd.
        let text = log::escaped(text);
        self.diagnosis.handle_failed(step, &text);
        self.last_fault = Some((now.utc_ms, text));
    }
}
