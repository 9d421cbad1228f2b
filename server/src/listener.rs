//! The device port: accepts, always, and gives every connection its seat and its task. The one place that opens it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::{info, warn};

use crate::admission::{Admission, Admitted, Eviction};
use crate::connection::{self, Link};
use crate::exit::Exit;
use crate::session::Cause;

/// As many as may knock in the instant between two accepts, as after a restart.
const BACKLOG: i32 = 4096;

/// TCP asks a silent peer after a minute, and again every 15 s; four unanswered end it. A device that has vanished without
/// a word must not hold its descriptor until the heartbeat's patience, which may be over an hour.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// What was sent and is not acknowledged for so long ends the connection (RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// What the store, the operators' listener and the log need of the descriptors.
const RESERVED_DESCRIPTORS: u64 = 128;

/// Seats, shared by the listener and those who hold one.
type Seats = Arc<Mutex<Admission<Arc<Exit>>>>;

/// A connection's place in the admission's books; gives it back when dropped.
pub(crate) struct Seat {
    seats: Seats,
    number: u64,
    registered: bool,
}

impl Seat {
    /// The connection said who it is: from now on it is never sent away for another.
    pub(crate) fn register(&mut self) {
        if !self.registered {
            self.registered = true;
            lock(&self.seats).register(self.number);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.seats).leave(self.number, self.registered);
    }
}

/// Opens the device port, for both IPv6 and IPv4 where the address is IPv6's.
///
/// # Errors
/// The address cannot be bound.
#[expect(clippy::disallowed_methods, reason = "the server's one device port")]
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

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
pub(crate) async fn accept(listener: TcpListener, link: Arc<Link>, capacity: usize) {
    let seats: Seats = Arc::new(Mutex::new(Admission::new(capacity)));
    loop {
        match listener.accept().await {
            Ok((socket, address)) => seat(socket, address, &seats, &link),
            Err(fault) if is_out_of_descriptors(&fault) => make_room(&seats).await,
            // The peer was gone before it was accepted: accept(2) asks to go on after any of these.
            Err(fault) => warn!("a connection could not be accepted: {fault}"),
        }
        link.metrics.waiting(lock(&seats).waiting());
    }
}

fn seat(socket: TcpStream, address: SocketAddr, seats: &Seats, link: &Arc<Link>) {
    let exit = Arc::new(Exit::default());
    let admitted = lock(seats).admit(address.ip(), Arc::clone(&exit));
    let Some(Admitted { seat, evicted }) = admitted else {
        warn!(%address, "turned away: every descriptor is held by a registered device; raise LimitNOFILE");
        return;
    };
    if let Some((evicted, why)) = evicted {
        match why {
            Eviction::Share => {
                info!(%address, "more connections from here than one source may hold without registering: its oldest was closed")
            }
            Eviction::Capacity => warn!(
                "descriptors run short: the connection that was silent for the longest was closed; raise LimitNOFILE"
            ),
        }
        evicted.order(Cause::NoHello, Duration::ZERO);
    }
    if let Err(fault) = tune(&socket) {
        // Only a socket that is gone already refuses these.
        return info!(%address, "gone at once: {fault}");
    }
    let seat = Seat { seats: Arc::clone(seats), number: seat, registered: false };
    tokio::spawn(connection::serve(socket, address, Arc::clone(link), seat, exit));
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

fn is_out_of_descriptors(fault: &io::Error) -> bool {
    let code = fault.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(
        code,
        Some(
            rustix::io::Errno::MFILE
                | rustix::io::Errno::NFILE
                | rustix::io::Errno::NOBUFS
                | rustix::io::Errno::NOMEM
        )
    )
}

/// Sends the oldest silent connection away and lets its task close the descriptor.
async fn make_room(seats: &Seats) {
    let oldest = lock(seats).evict_oldest();
    match oldest {
        Some(exit) => {
            warn!(
                "out of descriptors: the connection that was silent for the longest was closed; raise LimitNOFILE"
            );
            exit.order(Cause::NoHello, Duration::ZERO);
            tokio::task::yield_now().await;
        }
        None => {
            warn!("out of descriptors, and every one is held by a registered device; raise LimitNOFILE");
            #[expect(
                clippy::disallowed_methods,
                reason = "accept fails at once until somebody leaves: asking again in a loop would take a core"
            )]
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn lock(seats: &Seats) -> std::sync::MutexGuard<'_, Admission<Arc<Exit>>> {
    seats.lock().unwrap_or_else(PoisonError::into_inner)
}
