//! Keeps the line of whatever session stands: between the session, what was learned, and its file.

use std::fmt;
use std::mem;
use std::time::Instant;

use moorline_config::HumanDuration;

use super::{State, Uplink};
use crate::clock::Now;
use crate::config::{Config, Protocol};
use crate::fault::Fault;
use crate::keepalive::networks::{Network, Networks};
use crate::keepalive::{Keepalive, Learned, Notice, Profile};
use crate::link::{Link, LinkError};
use crate::log;
use crate::session::{Dialect, Event, Terms};

impl Uplink {
    /// What the modem knows of the network: the operator, where it does, what the radio is made for, and whether there is
    /// any network at all.
    pub fn on_network(&mut self, operator: Option<heapless::String<8>>, profile: Profile, covered: bool) {
        self.keeping.on_network(operator, profile);
        if !covered {
            self.keeping.on_unreachable();
        }
    }

    /// The link is secured: the session begins.
    pub(super) fn register(&mut self, now: Now) {
        let Some(greeting) = self.greeting.clone() else { return };
        let State::Handshaking { target, mut link, .. } = mem::take(&mut self.state) else { return };
        if self.config.server.protocol == Protocol::Native && link.dialect() == Dialect::Classic {
            let fault = Fault::refused("the server does not speak moorline/1; see `server.protocol`");
            return self.on_tried(target, &fault, now);
        }
        let name = self.config.server.addresses[target.server].name.to_str();
        let terms = self.keeping.begin(&name, &link);
        let terms = self.thrifty(terms, link.dialect());
        link.begin_session(greeting, terms, now);
        let (version, dialect) = (link.tls_version(), link.dialect());
        self.set_state(State::Registering { target, link }, format_args!(": {version}, {dialect}"));
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Keeping {
    keepalive: Keepalive,
    networks: Networks,
    /// What the keepalive was made for.
    network: Option<Network>,
    operator: Option<heapless::String<8>>,
}

impl Keeping {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            keepalive: Keepalive::new(config.heartbeat, Learned::default()),
            networks: Networks::read(&config.state_dir),
            network: None,
            operator: None,
        }
    }

    pub(super) fn configure(&mut self, config: &Config) {
        self.keepalive.configure(config.heartbeat);
        self.networks = Networks::read(&config.state_dir);
    }

    /// What the modem knows of the network, for the sessions to come; an operator that it does not know is the last one.
    pub(super) fn on_network(&mut self, operator: Option<heapless::String<8>>, profile: Profile) {
        self.operator = operator.or_else(|| self.operator.take());
        self.keepalive.set_profile(profile);
    }

    /// How the session over `link` with the server of this name is to begin.
    pub(super) fn begin(&mut self, server: &str, link: &Link) -> Terms {
        let network = Network { operator: self.operator.clone(), server: server.to_owned() };
        if self.network.as_ref() != Some(&network) {
            self.keepalive.move_to(self.networks.of(&network));
            self.network = Some(network);
        }
        self.keepalive.terms(link.dialect())
    }

    /// Hears what the session over `link` tells. `true` when what [`fmt::Display`] shows is another silence, or known in another
    /// way.
    pub(super) fn on_event(&mut self, event: &Event, link: &mut Link, now: Instant) -> bool {
        let pace = self.keepalive.handle_event(event, now);
        if let Some(pace) = pace
            && let Some(session) = link.session()
        {
            session.set_pace(pace);
        }
        let learned = self.keepalive.take_learned();
        if let Some(learned) = learned
            && let Some(network) = &self.network
            && let Err(error) = self.networks.keep(network, learned)
        {
            log::warning(format_args!(
                "what was learned of the line cannot be kept in the state folder: {error}"
            ));
        }
        let notice = self.keepalive.take_notice();
        if let Some(notice) = notice {
            tell(notice);
        }
        pace.is_some() || learned.is_some() || notice.is_some()
    }

    /// A session's link broke.
    pub(super) fn on_broken(&mut self, error: &LinkError) {
        if matches!(error, LinkError::Tls(_) | LinkError::Closed { cleanly: true }) {
            self.keepalive.drop_suspicion();
        }
    }

    /// A try to come back came to nothing, or the modem has no network.
    pub(super) const fn on_unreachable(&mut self) {
        self.keepalive.drop_suspicion();
    }
}

fn tell(notice: Notice) {
    match notice {
        Notice::TooShort(least) => log::warning(format_args!(
            "the network forgets a silent line in less than {0}: the server reaches this device only for a part of each {0}, \
             unless `heartbeat.min` allows less",
            HumanDuration(least)
        )),
        Notice::Settled(silence) => {
            log::info(format_args!("the line may be silent for {}", HumanDuration(silence)));
        }
        Notice::Unasked(silence) => log::info(format_args!(
            "the server does not ask how long the line may be silent: a heartbeat every {}",
            HumanDuration(silence)
        )),
    }
}

/// The silence in force, for people.
impl fmt::Display for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.keepalive.fmt(f)
    }
}
