//! A device in the field: it, its carrier's NAT and the server, each in a network namespace of its own.
//!
//! ```text
//!   device            carrier                 server
//!   agent ── line ─── NAT that forgets ────── moorline-server
//!   10.9.1.2  tun     10.9.1.1  10.9.2.1 veth 10.9.2.2
//! ```
//!
//! The line's quality changes when a test says so, and packets on it are counted with their headers. Needs root, `ip`
//! and `nft`; nothing of it touches the machine's own network, and all of it goes with the value. An [`Island`] is a server that is cut
//! off from the others.

mod island;
mod line;
mod namespace;
mod nat;
mod plain;
mod tun;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::failure::Failure;

pub use island::Island;
pub use line::{Line, Quality, Traffic};
pub use namespace::{Namespace, may_have_fields};
pub use nat::{Forgetting, Nat};
pub use plain::{Pair, heard, listen};

/// The device's end of the line.
pub const LINE: &str = "line0";

/// See the module.
pub struct Field {
    /// Where the agent lives.
    pub device: Namespace,
    /// Between the two.
    pub carrier: Namespace,
    /// Where the server lives.
    pub server: Namespace,
    /// Between device and carrier.
    pub line: Line,
    addresses: Addresses,
}

/// Which internet protocol there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4, through a NAT.
    V4,
    /// IPv6 alone.
    V6,
}

struct Addresses {
    device: &'static str,
    /// What the device has after it was told another.
    device_next: &'static str,
    near: &'static str,
    far: &'static str,
    server: &'static str,
    prefix: u8,
}

const V4: Addresses = Addresses {
    device: "10.9.1.2",
    device_next: "10.9.1.3",
    near: "10.9.1.1",
    far: "10.9.2.1",
    server: "10.9.2.2",
    prefix: 24,
};
const V6: Addresses = Addresses {
    device: "fd09:1::2",
    device_next: "fd09:1::3",
    near: "fd09:1::1",
    far: "fd09:2::1",
    server: "fd09:2::2",
    prefix: 64,
};

impl Field {
    /// A field whose carrier translates addresses.
    ///
    /// # Errors
    /// The machine refuses a part of it.
    #[track_caller]
    pub fn behind(nat: Nat) -> Result<Self, Failure> {
        let field = Self::new(Version::V4)?;
        nat.lay(&field.carrier)?;
        Ok(field)
    }

    /// A field whose carrier passes on what comes.
    ///
    /// # Errors
    /// The machine refuses a part of it.
    #[track_caller]
    pub fn new(version: Version) -> Result<Self, Failure> {
        let name = unique_name();
        let [device, carrier, server] =
            ["device", "carrier", "server"].map(|part| Namespace::new(&format!("{name}-{part}")));
        let (device, carrier, server) = (device?, carrier?, server?);
        let line = Line::lay(&device, &carrier)?;
        let peer = server.name();
        carrier.ip(&format!("link add wan0 type veth peer name eth0 netns {peer}"))?;
        carrier.allow("net.ipv4.ip_forward", "1")?;
        carrier.allow("net.ipv6.conf.all.forwarding", "1")?;
        let addresses = if version == Version::V4 { V4 } else { V6 };
        let field = Self { device, carrier, server, line, addresses };
        field.address(&field.device, LINE, field.addresses.device)?;
        field.address(&field.carrier, line::CARRIERS_END, field.addresses.near)?;
        field.address(&field.carrier, nat::OUTSIDE, field.addresses.far)?;
        field.address(&field.server, "eth0", field.addresses.server)?;
        field.server.ip(&format!("route add default via {}", field.addresses.far))?;
        field.route()?;
        Ok(field)
    }

    /// Where the server is.
    #[must_use]
    pub fn server_address(&self) -> IpAddr {
        parsed(self.addresses.server)
    }

    /// Takes the device's address and its route away and gives it another, as a carrier does that assigns anew.
    ///
    /// # Errors
    /// The machine refuses it.
    #[track_caller]
    pub fn readdress(&self) -> Result<(), Failure> {
        let Addresses { device, device_next, prefix, .. } = self.addresses;
        self.device.ip(&format!("address delete {device}/{prefix} dev {LINE}"))?;
        self.address(&self.device, LINE, device_next)?;
        self.route()
    }

    /// Pulls the device's cable or plugs it in; the device's kernel sees it.
    ///
    /// # Errors
    /// The machine refuses it.
    #[track_caller]
    pub fn cable(&self, plugged: bool) -> Result<(), Failure> {
        let direction = if plugged { "up" } else { "down" };
        self.device.ip(&format!("link set {LINE} {direction}"))?;
        if plugged { self.route() } else { Ok(()) }
    }

    fn address(&self, namespace: &Namespace, link: &str, address: &str) -> Result<(), Failure> {
        // Without nodad an IPv6 address is of no use for a second.
        let nodad = if address.contains(':') { " nodad" } else { "" };
        namespace.ip(&format!("address add {address}/{} dev {link}{nodad}", self.addresses.prefix))?;
        namespace.ip(&format!("link set {link} up"))
    }

    fn route(&self) -> Result<(), Failure> {
        self.device.ip(&format!("route replace default via {}", self.addresses.near))
    }
}

/// By which no other field's namespaces are called.
fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("moorline-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn parsed(address: &str) -> IpAddr {
    address.parse().unwrap_or_else(|_| unreachable!("{address} is a constant"))
}
