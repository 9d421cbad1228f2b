//! The device port: accepts, always, and gives every connection its seat and its task. It is opened in `ports.rs`.

mod introduction;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use crate::admission::Eviction;
use crate::clock;
use crate::connection::{self, Link};
use crate::exit::Exit;
use crate::log::{self, ConnectionId, ConnectionIds};
use crate::seats::Seat;

/// What was sent and is not acknowledged for so long ends the connection (RFC 5482): so a device that has vanished without a
/// word is let go two minutes after it was asked.
///
/// `SO_KEEPALIVE` stays off, as it does on the agent's side: a probe a minute would cost a device 4 MB a month, wake its
/// radio as often, and keep a carrier's NAT from ever forgetting while the two learn how long it remembers.
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// What the store, the log and operators need of the descriptors: 64 connections each by address and by Unix socket, and 64
/// who follow events.
const RESERVED_DESCRIPTORS: u64 = 256;

/// How long to wait for a descriptor when nobody can be sent away for one.
const NO_ROOM: Duration = Duration::from_millis(100);

/// Raises the descriptors' soft limit to the hard one and says how many connections they suffice for.
#[must_use]
pub fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_err() {
        warn!("the limit of open files stays at {:?}", limit.current);
    }
    // `None` is no limit at all.
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    usize::try_from(descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(1)).unwrap_or(usize::MAX)
}

/// Accepts until it is dropped.
pub(crate) async fn accept(listener: TcpListener, link: Arc<Link>) {
    let mut ids = ConnectionIds::new(clock::now());
    if let Err(fault) = tune(&listener) {
        // Only what is no TCP socket refuses these, and that is no port.
        warn!("the device port takes no options: {fault}");
    }
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                // A dual-stack port shows IPv4 peers as ::ffff:192.0.2.1, which nobody searches a log for.
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                let id = ids.next();
                log::about_now(id, || seat(socket, address, id, &link));
            }
            Err(fault) if is_shortage(&fault) => make_room(&link).await,
            // The peer was gone before it was accepted: accept(2) asks to go on after any of these.
            Err(fault) => debug!("a connection could not be accepted: {fault}"),
        }
    }
}

fn seat(socket: TcpStream, address: SocketAddr, id: ConnectionId, link: &Arc<Link>) {
    if link.proxies.contain(address.ip()) {
        tokio::spawn(log::about(id, introduction::serve(socket, address, id, Arc::clone(link))));
        return;
    }
    let exit = Arc::new(Exit::default());
    if let Some(seat) = take_seat(address, &exit, link) {
        tokio::spawn(log::about(id, connection::serve(socket, address, id, Arc::clone(link), seat, exit)));
    }
}

/// A seat for a connection from there, if need be at another one's cost; `None`, and a word in the log, when there is none.
fn take_seat(address: SocketAddr, exit: &Arc<Exit>, link: &Link) -> Option<Seat> {
    let Some((seat, evicted)) = link.seats.take(address.ip(), exit) else {
        link.refusals.tell(address.ip(), || {
            warn!(%address, "turned away: every descriptor is held by a registered device; raise LimitNOFILE");
        });
        return None;
    };
    if let Some(why) = evicted {
        link.refusals.tell(address.ip(), || match why {
            Eviction::Share => warn!(
                %address,
                "closed the oldest of the connections from here: they are more than one source may hold without registering"
            ),
            Eviction::Capacity => warn_of_shortage(),
        });
    }
    Some(seat)
}

/// Sets what every connection is to have on the port, from which Linux hands it on: two system calls less for each.
fn tune(port: &TcpListener) -> io::Result<()> {
    let port = SockRef::from(port);
    port.set_tcp_nodelay(true)?;
    port.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

fn is_shortage(fault: &io::Error) -> bool {
    let errno = fault.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Sends the oldest silent connection away and waits until its descriptor is free, or a moment: accept fails at once until
/// one is, and asking in a loop would take a core.
async fn make_room(link: &Link) {
    let evicted = link.seats.evict_oldest();
    link.refusals.tell(IpAddr::V6(Ipv6Addr::UNSPECIFIED), || {
        if evicted {
            warn_of_shortage();
        } else {
            warn!("out of descriptors, and every one is held by a registered device; raise LimitNOFILE");
        }
    });
    // Either is a reason to try again.
    let _ = tokio::time::timeout(NO_ROOM, link.seats.someone_left()).await;
}

fn warn_of_shortage() {
    warn!("descriptors run short: closed the connection that was silent for the longest; raise LimitNOFILE");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a real socket is what is tested")]
    async fn accepted_socket_says_nothing_by_itself_and_notices_a_vanished_device() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        tune(&listener).unwrap();
        let _device = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && !socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(120)));
    }
}
