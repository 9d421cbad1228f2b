//! A load balancer's word on whose connection it passes on, read before anything else: the shell around `proxy`.
//!
//! The connection holds a seat of the balancer's until then, and one of the device's from then on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::take_seat;
use crate::clock;
use crate::connection::{self, Link};
use crate::exit::Exit;
use crate::log::ConnectionId;
use crate::proxy::{self, Introduced, Progress, ProxyError};
use crate::tls::Refusal;

/// A balancer has its header ready when it connects.
const HEADER: Duration = Duration::from_secs(3);

/// Why nobody was introduced.
enum Failure {
    /// It went away, without a word (`quiet`) or in the middle of one.
    Gone {
        quiet: bool,
    },
    Wrong(ProxyError),
    Slow,
}

/// Reads the balancer's word and serves whom it introduces.
pub(super) async fn serve(socket: TcpStream, balancer: SocketAddr, id: ConnectionId, link: Arc<Link>) {
    let exit = Arc::new(Exit::default());
    let Some(seat) = take_seat(balancer, &exit, &link) else { return };
    let began = clock::now().instant;
    let header = timeout_at(Instant::from_std(began + HEADER), read_header(&socket));
    let header = tokio::select! {
        biased;
        order = exit.ordered() => return debug!(address = %balancer, "sent away before its header: {}", order.cause),
        header = header => header.unwrap_or(Err(Failure::Slow)),
    };
    let text = match header {
        Ok(Introduced::Itself) => {
            debug!(address = %balancer, "a load balancer speaks for itself");
            return connection::serve(socket, balancer, id, link, seat, exit).await;
        }
        Ok(Introduced::Device(device)) => {
            // Not both at once: where seats are few, the second could cost the first.
            drop(seat);
            let Some(seat) = take_seat(device, &exit, &link) else { return };
            debug!(address = %device, %balancer, "introduced by a load balancer");
            return connection::serve(socket, device, id, link, seat, exit).await;
        }
        // So balancers look whether a port is open.
        Err(Failure::Gone { quiet: true }) => {
            return debug!(address = %balancer, "opened and closed without a word");
        }
        Err(Failure::Gone { quiet: false }) => {
            "it went away in the middle of the PROXY protocol's header".to_owned()
        }
        Err(Failure::Wrong(fault)) => fault.to_string(),
        Err(Failure::Slow) => {
            "no PROXY protocol header came within 3 s, and listen.proxy_from has its sender".to_owned()
        }
    };
    let seconds = clock::now().instant.saturating_duration_since(began).as_secs_f64();
    link.metrics.not_shaken("proxy_header", false, seconds);
    link.refusals.handshake(balancer, &Refusal::new("proxy_header", text), &link);
}

/// Takes the header off the socket, and not a byte of what is behind it.
async fn read_header(socket: &TcpStream) -> Result<Introduced, Failure> {
    let (mut bytes, mut len) = (Vec::new(), 0);
    loop {
        let read = bytes.get(..len).unwrap_or_default();
        let wanted = match proxy::read(read).map_err(Failure::Wrong)? {
            Progress::Whole(introduced) => return Ok(introduced),
            Progress::Unfinished(wanted) => wanted,
        };
        bytes.resize(wanted, 0);
        let gone = Failure::Gone { quiet: len == 0 };
        if socket.readable().await.is_err() {
            return Err(gone);
        }
        match socket.try_read(bytes.get_mut(len..).unwrap_or_default()) {
            Ok(0) => return Err(gone),
            Ok(more) => len += more,
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(gone),
        }
    }
}
