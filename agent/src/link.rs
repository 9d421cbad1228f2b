//! One link to the server: the TCP socket, TLS on it, and the session inside. Moves bytes between them and judges none;
//! when to open one and what its end means is `run.rs`'s matter.

use std::fmt;
use std::io::{self, BufRead as _, ErrorKind, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConnection, HandshakeKind, ProtocolVersion};

use crate::budget::{Gauge, Tally};
use crate::clock::Now;
use crate::outq;
use crate::session::{Dialect, Event, Greeting, InFlight, MAX_TRANSMIT, Session, Terms};
use crate::tcp;

/// How long bytes may wait for room in TCP's buffer. What is sent between two answers fits into the smallest buffer, so
/// no room for this long means that the way is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// One link, from the open socket on.
pub struct Link {
    socket: TcpStream,
    peer: SocketAddr,
    tls: ClientConnection,
    /// There once the handshake is over.
    session: Option<Session>,
    gauge: Gauge,
    /// Since when TCP has taken nothing of what waits.
    stuck_since: Option<Instant>,
    /// The server has sent all it will.
    ended: bool,
}

/// What broke a link.
#[derive(Debug)]
pub enum LinkError {
    /// The socket failed.
    Socket(io::Error),
    /// TLS failed; its alert was sent.
    Tls(rustls::Error),
    /// The server closed the connection.
    Closed {
        /// It said so inside TLS; else the connection was cut.
        cleanly: bool,
    },
    /// TCP took no bytes for half a minute.
    Stuck,
}

impl Link {
    /// Takes over a connected socket; the handshake begins with the first [`Self::poll`]. What passes is counted in
    /// `tally`.
    #[must_use]
    pub fn new(socket: TcpStream, peer: SocketAddr, tls: ClientConnection, tally: Rc<Tally>) -> Self {
        let gauge = Gauge::new(peer, tally);
        Self { socket, peer, tls, session: None, gauge, stuck_since: None, ended: false }
    }

    /// Whether the handshake resumed an earlier session.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The server's address.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the handshake is over on this side. The server may still refuse our certificate: in TLS 1.3 it judges it
    /// after this.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        !self.tls.is_handshaking()
    }

    /// What the handshake's ALPN decided.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        if self.tls.alpn_protocol().is_some() { Dialect::Native } else { Dialect::Classic }
    }

    /// The TLS version that was agreed on.
    #[must_use]
    pub fn tls_version(&self) -> &'static str {
        match self.tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        }
    }

    /// The server's certificates, its own first; on a resumed link those that it showed when the ticket was made.
    #[must_use]
    pub fn server_chain(&self) -> &[CertificateDer<'static>] {
        self.tls.peer_certificates().unwrap_or_default()
    }

    /// Begins the session, once the link is secured.
    pub fn begin_session(&mut self, greeting: Greeting, terms: Terms, now: Now) {
        self.session = Some(Session::new(self.dialect(), greeting, terms, now));
    }

    /// This device's end of the connection.
    #[must_use]
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.socket.local_addr().ok().map(|address| address.ip().to_canonical())
    }

    /// The session, once it has begun.
    pub const fn session(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// Whether the session has just ended a silence.
    #[must_use]
    pub fn is_ending_silence(&self, now: Now) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_ending_silence(now))
    }

    /// What to wait for.
    #[must_use]
    pub fn interest(&self) -> PollFlags {
        let write = if self.tls.wants_write() { PollFlags::OUT } else { PollFlags::empty() };
        // While TCP takes nothing, a session hears nothing either: what came would only pile up in TLS.
        let deaf = self.ended || (self.tls.wants_write() && self.session.is_some());
        let read = if deaf { PollFlags::empty() } else { PollFlags::IN };
        read | write
    }

    /// When to call [`Self::handle_timeout`], at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let stuck = self.stuck_since.map(|since| since + WRITE_TIMEOUT);
        let session = self.session.as_ref().and_then(Session::poll_timeout);
        stuck.into_iter().chain(session).min()
    }

    /// Lets the session know that time has passed.
    ///
    /// # Errors
    /// TCP is stuck.
    pub fn handle_timeout(&mut self, now: Now) -> Result<(), LinkError> {
        if self.stuck_since.is_some_and(|since| now.instant >= since + WRITE_TIMEOUT) {
            return Err(LinkError::Stuck);
        }
        if let Some(session) = &mut self.session
            && session.poll_timeout().is_some_and(|at| now.instant >= at)
        {
            let in_flight = session.is_owed() && outq::unacknowledged(&self.socket);
            session.handle_timeout(now, InFlight(in_flight));
        }
        Ok(())
    }

    /// Reads what has come. Call when the socket is readable.
    ///
    /// # Errors
    /// The link is broken.
    pub fn handle_readable(&mut self, now: Now) -> Result<(), LinkError> {
        match self.tls.read_tls(&mut &self.socket) {
            Ok(0) => self.ended = true,
            Ok(length) => self.gauge.received(length),
            Err(error) if is_transient(&error) => return Ok(()),
            Err(error) => return Err(LinkError::Socket(error)),
        }
        if let Err(fault) = self.tls.process_new_packets() {
            // The server's log should say why, too; whether that works out changes nothing.
            let _ = self.flush(now.instant);
            return Err(LinkError::Tls(fault));
        }
        if self.session.is_none() && self.is_resumed() {
            self.gauge.resume();
        }
        Ok(())
    }

    /// Moves bytes until an event comes out, or nothing moves any more. Call after every input, until it gives `None`.
    ///
    /// # Errors
    /// The link is broken, and all events are out.
    pub fn poll(&mut self, now: Now) -> Result<Option<Event>, LinkError> {
        loop {
            self.flush(now.instant)?;
            let Some(session) = &mut self.session else { break };
            if let Some(event) = session.poll_event() {
                return Ok(Some(event));
            }
            if self.tls.wants_write() {
                // TCP takes no more: what is not yet said stays in the session, and what is not yet heard in TLS.
                return Ok(None);
            }
            // All that is to be said goes into one packet, which is counted as what comes last in it.
            let mut out = [0; MAX_TRANSMIT];
            while let Some(length) = session.poll_transmit(&mut out, now) {
                if let Some(purpose) = session.purpose() {
                    self.gauge.turn_to(purpose);
                }
                self.tls.writer().write_all(&out[..length]).map_err(LinkError::Socket)?;
            }
            if self.tls.wants_write() {
                continue;
            }
            let mut reader = self.tls.reader();
            match reader.fill_buf() {
                Ok([]) => return Err(LinkError::Closed { cleanly: true }),
                Ok(bytes) => {
                    let mut rest = bytes;
                    session.handle_bytes(&mut rest, now);
                    let taken = bytes.len() - rest.len();
                    reader.consume(taken);
                }
                Err(error) if is_transient(&error) => break,
                Err(_) => return Err(LinkError::Closed { cleanly: false }),
            }
        }
        if self.session.as_mut().is_some_and(Session::take_unanswered) {
            tcp::acknowledge(&self.socket);
        }
        if self.ended { Err(LinkError::Closed { cleanly: false }) } else { Ok(None) }
    }

    /// Takes leave: the session's Goodbye, close_notify, and the end of the stream. `true` once all of it is with TCP.
    pub fn take_leave(&mut self, reason: u8, now: Now) -> bool {
        if let Some(session) = &mut self.session {
            session.close(reason);
        }
        // The session's last event comes once its Goodbye is with TLS.
        while matches!(self.poll(now), Ok(Some(event)) if !matches!(event, Event::Ended(_))) {}
        let said = !self.tls.wants_write();
        self.tls.send_close_notify();
        let sent = said && self.flush(now.instant).is_ok() && !self.tls.wants_write();
        if sent {
            // Tells the server's TCP at once; a socket that is only closed may be reset by what still comes in.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        sent
    }

    /// Reads on after the leave was taken, without looking at it; `true` once the server has closed its side, too. One
    /// piece at a time, so that a server that talks on keeps nobody past a deadline.
    pub fn is_left(&mut self) -> bool {
        match self.tls.read_tls(&mut &self.socket) {
            Ok(0) => true,
            Ok(_) if self.tls.process_new_packets().is_err() => true,
            Ok(_) => {
                // Nobody listens any more.
                let _ = io::copy(&mut self.tls.reader(), &mut io::sink());
                false
            }
            Err(error) => !is_transient(&error),
        }
    }

    /// Hands TCP what it takes.
    fn flush(&mut self, now: Instant) -> Result<(), LinkError> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut &self.socket) {
                Ok(length) => {
                    self.gauge.sent(length);
                    self.stuck_since = None;
                }
                Err(error) if is_transient(&error) => {
                    self.stuck_since.get_or_insert(now);
                    return Ok(());
                }
                Err(error) => return Err(LinkError::Socket(error)),
            }
        }
        self.stuck_since = None;
        Ok(())
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.peer)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Arc;

    use rustls::{ClientConfig, RootCertStore};

    use super::*;
    use crate::clock;

    #[test]
    fn link_whose_bytes_tcp_does_not_take_is_given_up() {
        let (socket, _deaf) = full_socket();
        let peer = socket.peer_addr().unwrap();
        let mut link = Link::new(socket, peer, client(), Rc::default());
        let begun = clock::now();
        assert!(link.poll(begun).unwrap().is_none());
        let deadline = link.poll_timeout().unwrap();
        assert_eq!(deadline, begun.instant + WRITE_TIMEOUT);
        let before = Now { instant: deadline - Duration::from_millis(1), ..begun };
        assert!(link.handle_timeout(before).is_ok());
        assert!(matches!(link.handle_timeout(Now { instant: deadline, ..begun }), Err(LinkError::Stuck)));
    }

    /// A connection whose far end reads nothing and whose buffers are full.
    #[expect(clippy::disallowed_methods, reason = "a real socket is what is tested")]
    fn full_socket() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (deaf, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        while socket.write(&[0; 64 * 1024]).is_ok() {}
        while socket.write(&[0]).is_ok() {}
        (socket, deaf)
    }

    fn client() -> ClientConnection {
        let config = ClientConfig::builder_with_provider(crate::crypto::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap()
    }
}
