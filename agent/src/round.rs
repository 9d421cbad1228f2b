//! Which address to try next. Pure: outcomes in, the next step out. A round tries every address of every server once;
//! only then a backoff counts.

use std::net::SocketAddr;

use crate::address::Address;
use crate::backoff::Cause;
use crate::config::Protocol;
use crate::dns::Addresses;

/// One server's one address, and what to offer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its place in the configuration.
    pub server: usize,
    /// Where to connect to.
    pub address: SocketAddr,
    /// Whether `moorline/1` is offered.
    pub native: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look this server's name up, then [`Round::resolved`].
    Resolve(usize),
    /// Connect, then [`Round::failed`] if nothing came of it.
    Connect(Target),
    /// All were tried in vain; the cause is the gravest of all.
    Exhausted(Cause),
}

/// How a try came out that led to no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something on the way, or a fault that may pass.
    Way,
    /// One side refused the other, which holds for all of the server's addresses: they are skipped.
    Refused,
    /// The server wants no ALPN: once more without.
    Alpn,
}

/// One round: see the module.
#[derive(Debug)]
pub struct Round {
    protocol: Protocol,
    servers: usize,
    next_server: usize,
    waiting: Addresses,
    once_more: Option<Target>,
    cause: Cause,
}

impl Round {
    /// A fresh round over so many servers.
    #[must_use]
    pub const fn new(servers: usize, protocol: Protocol) -> Self {
        Self {
            protocol,
            servers,
            next_server: 0,
            waiting: Addresses::new(),
            once_more: None,
            cause: Cause::Network,
        }
    }

    /// The next step. Servers given by IP address need no lookup.
    pub fn next(&mut self, addresses: &[Address]) -> Step {
        if let Some(target) = self.once_more.take() {
            return Step::Connect(target);
        }
        loop {
            if !self.waiting.is_empty() {
                let native = self.protocol != Protocol::Classic;
                let address = self.waiting.remove(0);
                return Step::Connect(Target { server: self.next_server - 1, address, native });
            }
            let server = self.next_server;
            let Some(address) = addresses.get(server).filter(|_| server < self.servers) else {
                return Step::Exhausted(self.cause);
            };
            self.next_server += 1;
            let Some(ip) = address.ip() else { return Step::Resolve(server) };
            // The queue is empty and has room for more than one.
            let _ = self.waiting.push(SocketAddr::new(ip, address.port));
        }
    }

    /// The addresses of the server that was to be looked up.
    pub fn resolved(&mut self, addresses: Addresses) {
        self.waiting = addresses;
    }

    /// Nothing came of this target.
    pub fn failed(&mut self, target: Target, failure: Failure) {
        match failure {
            Failure::Way => {}
            Failure::Alpn if self.protocol == Protocol::Auto && target.native => {
                self.once_more = Some(Target { native: false, ..target });
            }
            Failure::Alpn | Failure::Refused => {
                self.waiting.clear();
                self.cause = Cause::Refused;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> Vec<Address> {
        ["a.example:1", "192.0.2.1:2"].map(|text| text.parse().unwrap()).to_vec()
    }

    fn looked_up() -> Addresses {
        ["[2001:db8::1]:1", "192.0.2.9:1"].iter().map(|text| text.parse().unwrap()).collect()
    }

    fn target(step: Step) -> Target {
        match step {
            Step::Connect(target) => target,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_address_is_tried_once() {
        let servers = servers();
        let mut round = Round::new(servers.len(), Protocol::Auto);
        assert_eq!(round.next(&servers), Step::Resolve(0));
        round.resolved(looked_up());
        for (server, address) in [(0, "[2001:db8::1]:1"), (0, "192.0.2.9:1"), (1, "192.0.2.1:2")] {
            let next = target(round.next(&servers));
            assert_eq!(next, Target { server, address: address.parse().unwrap(), native: true });
            round.failed(next, Failure::Way);
        }
        assert_eq!(round.next(&servers), Step::Exhausted(Cause::Network));
    }

    #[test]
    fn a_refusal_skips_to_the_next_server_and_stays_the_cause() {
        let servers = servers();
        let mut round = Round::new(servers.len(), Protocol::Native);
        round.next(&servers);
        round.resolved(looked_up());
        let first = target(round.next(&servers));
        round.failed(first, Failure::Refused);
        let second = target(round.next(&servers));
        assert_eq!(second.server, 1);
        round.failed(second, Failure::Way);
        assert_eq!(round.next(&servers), Step::Exhausted(Cause::Refused));
    }

    #[test]
    fn auto_tries_once_more_without_alpn() {
        let servers = servers();
        let mut round = Round::new(servers.len(), Protocol::Auto);
        round.next(&servers);
        round.resolved(looked_up());
        let first = target(round.next(&servers));
        round.failed(first, Failure::Alpn);
        let again = target(round.next(&servers));
        assert_eq!(again, Target { native: false, ..first });
        round.failed(again, Failure::Alpn);
        assert_eq!(target(round.next(&servers)).server, 1);
    }

    #[test]
    fn classic_offers_nothing() {
        let servers = servers();
        let mut round = Round::new(servers.len(), Protocol::Classic);
        round.next(&servers);
        round.resolved(looked_up());
        assert!(!target(round.next(&servers)).native);
    }
}
