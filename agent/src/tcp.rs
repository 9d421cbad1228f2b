//! Opens TCP connections without waiting for them, and sets what a long-lived connection over a cellular line needs.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with, sockopt};

/// RFC 5482 section 4.2 advises against less.
const LEAST_USER_TIMEOUT: Duration = Duration::from_secs(100);

/// Begins to connect. The socket is writable once that has come to an end: see [`finish`].
///
/// `patience` is the longest that a session waits for an answer, its second question included. So long, but at least
/// 100 s, may sent bytes stay unacknowledged before the kernel gives the connection up (`TCP_USER_TIMEOUT`, RFC 5482). The
/// session judges sooner, by the answer; so this bounds what it has left behind: a closed socket with a Goodbye that nobody
/// takes, which would else linger for a quarter of an hour.
///
/// `SO_KEEPALIVE` stays off: heartbeats prove more, namely that the server answers, and probes would cost bytes and
/// radio time beside them.
///
/// # Errors
/// The network is unreachable, or there is no such address family on this device.
#[expect(clippy::disallowed_methods, reason = "the agent's one opening of sockets")]
pub fn begin(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // Frames are small, rare and each waited for: Nagle's algorithm would only hold them back.
    sockopt::set_tcp_nodelay(&socket, true)?;
    let user_timeout = patience.max(LEAST_USER_TIMEOUT).as_millis();
    sockopt::set_tcp_user_timeout(&socket, u32::try_from(user_timeout).unwrap_or(u32::MAX))?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

/// How the connecting came out, once the socket is writable.
///
/// # Errors
/// The server's host refused, or cannot be reached.
pub fn finish(socket: impl AsFd) -> io::Result<()> {
    Ok(sockopt::socket_error(socket)??)
}

/// Acknowledges what has come, now that nothing is said to it, and has the kernel wait with the next acknowledgement for data
/// to go along with. By itself it would acknowledge whatever comes after a silence at once, in a segment of its own, and the
/// answer right behind it would cost another (tcp(7), `TCP_QUICKACK`).
pub fn acknowledge(socket: impl AsFd) {
    // A kernel that refuses acknowledges all the same.
    let _ = sockopt::set_tcp_quickack(&socket, true).and_then(|()| sockopt::set_tcp_quickack(&socket, false));
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a real socket is what is tested")]
    fn socket_is_set_for_small_frames_over_a_bad_line() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for (patience, user_timeout) in [(20, 100_000), (100, 100_000), (600, 600_000)] {
            let socket = begin(listener.local_addr().unwrap(), Duration::from_secs(patience)).unwrap();
            assert!(sockopt::tcp_nodelay(&socket).unwrap());
            assert_eq!(sockopt::tcp_user_timeout(&socket).unwrap(), user_timeout);
            assert!(!sockopt::socket_keepalive(&socket).unwrap());
        }
    }
}
