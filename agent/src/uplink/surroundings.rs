//! What the device's surroundings bring to the way: a report for the server, a network that has changed, a modem that was
//! read.

use std::net::IpAddr;

use moorline_protocol::Status;
use rustix::event::PollFlags;

use super::{State, Uplink};
use crate::clock::Now;
use crate::diagnosis::Diagnosis;
use crate::log;

impl Uplink {
    /// Whether the server has taken the device in.
    #[must_use]
    pub const fn is_online(&self) -> bool {
        matches!(self.state, State::Online { .. })
    }

    /// The device's end of the connection that stands.
    #[must_use]
    pub fn local_ip(&self) -> Option<IpAddr> {
        match &self.state {
            State::Handshaking { link, .. }
            | State::Registering { link, .. }
            | State::Online { link, .. } => link.local_ip(),
            _ => None,
        }
    }

    /// Where the way fails, if it does.
    pub const fn diagnosis(&mut self) -> &mut Diagnosis {
        &mut self.diagnosis
    }

    /// Tells the server of this device, if it is online.
    pub fn report(&mut self, status: Status, now: Now) {
        if let State::Online { link, .. } = &mut self.state
            && let Some(session) = link.session()
        {
            session.report(status);
            self.turn(PollFlags::empty(), now);
        }
    }

    /// The network has changed. A session that stands is asked at once whether it still does. While the next try is waited
    /// for only because the way was gone, it comes now; a wait that a server asked for, or that follows a refusal, stays as
    /// it is.
    pub fn check(&mut self, now: Now) {
        match &mut self.state {
            State::Online { link, .. } => {
                if let Some(session) = link.session() {
                    log::info(format_args!("the network has changed: asking the server at once"));
                    session.check();
                }
            }
            State::Offline { until, until_ms } if self.may_hurry && *until > now.instant => {
                log::info(format_args!("the network has changed: trying now"));
                (*until, *until_ms) = (now.instant, now.utc_ms);
            }
            _ => return,
        }
        self.turn(PollFlags::empty(), now);
    }
}
