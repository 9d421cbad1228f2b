//! Hears from the kernel (rtnetlink(7)) when an address, a route or a link of this device changes, so that a way that is gone
//! or back is tried at once and not when a heartbeat or the backoff comes round. It judges what matters and how often that
//! may be acted on; what is done then is `uplink.rs`'s matter.
//!
//! It asks for nothing but the links that are up when it begins. A message that makes no sense is skipped, and where the
//! kernel had to drop some, something has changed for certain. Without netlink (a sandbox, a small kernel) the agent goes
//! on without all this.

mod alarm;
mod message;

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use crate::log;
use alarm::Alarm;
use message::{Change, LINKS, Link, changes};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR` and `RTMGRP_IPV6_ROUTE`
/// (include/uapi/linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// How many datagrams are read at a time; what is left makes the next poll return at once.
const AT_ONCE: usize = 16;

/// Links whose state is remembered. Those beyond are not heard of; devices have a few.
const MAX_LINKS: usize = 32;

/// See the module. Wait for [`Self::interest`] or [`Self::deadline`], then call [`Self::turn`].
#[derive(Debug)]
pub struct RouteWatch {
    socket: Option<OwnedFd>,
    links: heapless::Vec<Link, MAX_LINKS>,
    alarm: Alarm,
}

impl RouteWatch {
    /// Begins to listen.
    #[must_use]
    pub fn open() -> Self {
        let socket = listen()
            .inspect_err(|error| {
                log::info(format_args!(
                    "changes of addresses and routes are not heard of, as netlink cannot be used: {error}"
                ));
            })
            .ok();
        Self { socket, links: heapless::Vec::new(), alarm: Alarm::default() }
    }

    /// What to wait for.
    #[must_use]
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.socket.as_ref().map(|socket| (socket.as_fd(), PollFlags::IN))
    }

    /// When [`Self::turn`] is due.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.alarm.deadline()
    }

    /// Reads what is there. `local` is the live connection's own address. `true`: the way should be tried now.
    pub fn turn(&mut self, ready: PollFlags, local: Option<IpAddr>, now: Instant) -> bool {
        if !ready.is_empty() && self.hear(local) {
            self.alarm.ring(now);
        }
        self.alarm.take(now)
    }

    /// Whether anything that was heard matters.
    fn hear(&mut self, local: Option<IpAddr>) -> bool {
        let Some(socket) = &self.socket else { return false };
        let mut buffer = [0; 8192];
        let mut matters = false;
        for _ in 0..AT_ONCE {
            match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    for change in changes(buffer.get(..length).unwrap_or_default()) {
                        matters |= note(&mut self.links, change, local);
                    }
                }
                // There was more to be heard than fits.
                Err(Errno::NOBUFS) => matters = true,
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => {
                    log::info(format_args!("changes of addresses and routes are heard of no more: {error}"));
                    self.socket = None;
                    break;
                }
            }
        }
        matters
    }
}

/// Whether a change is one of the way: the connection's own address went, a default route came, a link came up.
fn note(links: &mut heapless::Vec<Link, MAX_LINKS>, change: Change, local: Option<IpAddr>) -> bool {
    match change {
        Change::AddressGone(address) => Some(address) == local,
        Change::DefaultRoute => true,
        Change::Link(new) => {
            let Some(known) = links.iter_mut().find(|link| link.index == new.index) else {
                // One that is first heard of has just been made, unless it was asked for.
                let _ = links.push(new);
                return new.is_up && !new.asked_for;
            };
            let came_up = new.is_up && !known.is_up;
            *known = new;
            came_up
        }
        Change::LinkGone(index) => {
            links.retain(|link| link.index != index);
            false
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the agent's one socket to the kernel")]
fn listen() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // NETLINK_ROUTE is protocol 0.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    // Without the answer a link that comes back for the first time is not told from one that was there.
    let _ = send(&socket, &LINKS, SendFlags::empty());
    Ok(socket)
}

/// Whether this device has a default route, of either family; `None` when nobody can tell.
#[must_use]
pub fn has_default() -> Option<bool> {
    let v4 = fs::read_to_string("/proc/net/route");
    let v6 = fs::read_to_string("/proc/net/ipv6_route");
    if v4.is_err() && v6.is_err() {
        return None;
    }
    Some(lists_default_v4(&v4.unwrap_or_default()) || lists_default_v6(&v6.unwrap_or_default()))
}

/// A line's second column is the destination, its eighth the mask.
fn lists_default_v4(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let mut columns = line.split_ascii_whitespace();
        columns.nth(1) == Some("00000000") && columns.nth(5) == Some("00000000")
    })
}

/// A line's first two columns are destination and prefix, its last the device. The kernel's own entry that nothing is
/// reachable stands on `lo`.
fn lists_default_v6(table: &str) -> bool {
    const ANY: &str = "00000000000000000000000000000000 00 ";
    table.lines().any(|line| line.starts_with(ANY) && !line.ends_with(" lo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, is_up: bool, asked_for: bool) -> Change {
        Change::Link(Link { index, is_up, asked_for })
    }

    #[test]
    fn link_matters_when_it_comes_up() {
        let mut links = heapless::Vec::new();
        for (change, matters) in [
            (link(2, true, true), false),
            (link(2, true, false), false),
            (link(2, false, false), false),
            (link(2, true, false), true),
            (link(3, false, false), false),
            (link(4, true, false), true),
            (Change::LinkGone(2), false),
            (link(2, true, false), true),
        ] {
            assert_eq!(note(&mut links, change, None), matters, "{change:?}");
        }
        for index in 100..200 {
            note(&mut links, link(index, true, false), None);
        }
        assert_eq!(links.len(), MAX_LINKS);
    }

    #[test]
    fn only_the_connections_own_address_matters() {
        let ours: IpAddr = "192.0.2.5".parse().unwrap();
        let mut links = heapless::Vec::new();
        assert!(note(&mut links, Change::AddressGone(ours), Some(ours)));
        assert!(!note(&mut links, Change::AddressGone("192.0.2.6".parse().unwrap()), Some(ours)));
        assert!(!note(&mut links, Change::AddressGone(ours), None));
    }

    #[test]
    fn default_route_is_found_in_the_kernels_tables() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let default = "wwan0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        let half = "tun0\t00000000\t0100000A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n";
        assert!(lists_default_v4(&format!("{head}{default}")));
        assert!(!lists_default_v4(&format!("{head}{half}")));
        assert!(!lists_default_v4(""));
        let zeros = "0".repeat(32);
        let v6 = |device| {
            format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200     {device}\n")
        };
        assert!(lists_default_v6(&v6("wwan0")));
        assert!(!lists_default_v6(&v6("lo")));
    }

    #[test]
    fn kernel_is_listened_to() {
        let watch = RouteWatch::open();
        assert!(watch.interest().is_some());
        assert!(has_default().is_some());
    }
}
