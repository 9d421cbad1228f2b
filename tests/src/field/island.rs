//! A server in a network namespace of its own, a cable away from NATS: packets between the two can be dropped, of which nobody is told.
//!
//! ```text
//!   island              shore
//!   server ─── eth0 ─── coast0 ─ relays ─ ─ NATS, elsewhere
//!   198.18.0.2   veth   198.18.0.1
//! ```
//!
//! Devices and operators go there by ways that the cable has no part in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;

use super::namespace::{Namespace, run};
use super::unique_name;
use crate::failure::Failure;
use crate::relay::Relay;

const SHORE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// See the module.
pub struct Island {
    /// Where the server is to run.
    pub place: Arc<Namespace>,
    shore: Namespace,
    ways: Vec<Relay>,
}

impl Island {
    /// One from which these NATS servers of the caller's namespace are reached.
    ///
    /// # Errors
    /// The machine refuses a part of it.
    #[track_caller]
    pub fn new(nats: &[SocketAddr]) -> Result<Self, Failure> {
        let name = unique_name();
        let place = Namespace::new(&format!("{name}-island"))?;
        let shore = Namespace::new(&format!("{name}-shore"))?;
        shore.ip(&format!("link add coast0 type veth peer name eth0 netns {}", place.name()))?;
        for (end, link, address) in
            [(&shore, "coast0", SHORE), (&place, "eth0", Ipv4Addr::new(198, 18, 0, 2))]
        {
            end.ip(&format!("address add {address}/24 dev {link}"))?;
            end.ip(&format!("link set {link} up"))?;
        }
        let way = |nats: &SocketAddr| Relay::across((Some(&shore), SHORE.into()), (None, *nats));
        let ways = nats.iter().map(way).collect::<Result<_, _>>()?;
        Ok(Self { place: Arc::new(place), shore, ways })
    }

    /// Where the server reaches NATS.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.ways.iter().map(|way| format!("nats://{}", way.address())).collect()
    }

    /// A way for operators from the caller's namespace.
    ///
    /// # Errors
    /// The island cannot be entered.
    #[track_caller]
    pub fn way_to(&self, operators: SocketAddr) -> Result<Relay, Failure> {
        Relay::across((None, IpAddr::from(Ipv4Addr::LOCALHOST)), (Some(&self.place), operators))
    }

    /// Drops every packet on the cable, in both directions, or lets them pass again.
    ///
    /// # Errors
    /// The machine refuses it.
    #[track_caller]
    pub fn cut_off(&self, cut_off: bool) -> Result<(), Failure> {
        let rules = if cut_off {
            "table ip sea {
                chain in { type filter hook input priority filter; iifname coast0 drop; }
                chain out { type filter hook output priority filter; oifname coast0 drop; }
            }"
        } else {
            "delete table ip sea"
        };
        run(&mut self.shore.command(Command::new("nft").arg(rules)))
    }
}
