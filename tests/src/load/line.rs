//! One device's connection: a socket that never blocks, TLS over it, and how far the two have come.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use moorline_protocol::Imei;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use super::speech::{Heard, Speech};
use crate::failure::Failure;
use crate::rig::SERVER_NAME;

/// See the module.
pub(super) struct Line {
    pub(super) socket: TcpStream,
    tls: ClientConnection,
    /// The beginning of a frame that is not whole.
    heard: Vec<u8>,
    greeted: bool,
    pub(super) up: bool,
    /// Its id, once it is up.
    pub(super) session: u64,
    /// When the heartbeat went out that is not answered yet.
    pub(super) asked: Option<Instant>,
}

/// What a line's turn brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct News {
    pub(super) welcome: bool,
    pub(super) answers: u32,
}

/// It is over, and why.
#[derive(Debug)]
pub(super) struct Lost(pub(super) String);

impl<E: std::error::Error> From<E> for Lost {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl Line {
    /// Begins a connection from `source`.
    #[expect(clippy::disallowed_methods, reason = "a device's socket on loopback")]
    pub(super) fn open(
        source: Ipv4Addr,
        server: SocketAddr,
        config: Arc<ClientConfig>,
    ) -> Result<Self, Failure> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(source, 0))?;
        match connect(&socket, &server) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let tls = ClientConnection::new(config, SERVER_NAME.try_into()?)?;
        let (socket, heard) = (socket.into(), Vec::new());
        Ok(Self { socket, tls, heard, greeted: false, up: false, session: 0, asked: None })
    }

    /// Writes and reads whatever can be.
    pub(super) fn turn(&mut self, speech: Speech, imei: Imei) -> Result<News, Lost> {
        let mut news = News::default();
        loop {
            self.flush()?;
            let read = match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Err(Lost("closed by the server".to_owned())),
                Ok(read) => read,
                Err(error) if is_early(&error) => return Ok(news),
                Err(error) => return Err(error.into()),
            };
            let state = self.tls.process_new_packets();
            if let Err(error) = state {
                // The alert that tells the server.
                let _ = self.flush();
                return Err(error.into());
            }
            if !self.greeted && !self.tls.is_handshaking() {
                self.greeted = true;
                self.tls.writer().write_all(&speech.greeting(imei))?;
            }
            self.hear(speech, &mut news)?;
            // What came fell short of rustls's buffer: there is no more.
            if read < 4096 && !self.tls.wants_write() {
                return Ok(news);
            }
        }
    }

    /// Sends a heartbeat.
    pub(super) fn beat(&mut self, speech: Speech, now: Instant) -> Result<(), Lost> {
        self.asked = Some(now);
        self.tls.writer().write_all(speech.heartbeat())?;
        self.flush()
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Says close_notify; the socket is closed when the line is dropped.
    pub(super) fn close(mut self) {
        self.tls.send_close_notify();
        let _ = self.flush();
    }

    fn flush(&mut self) -> Result<(), Lost> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if is_early(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn hear(&mut self, speech: Speech, news: &mut News) -> Result<(), Lost> {
        let mut plaintext = [0; 1024];
        loop {
            match self.tls.reader().read(&mut plaintext) {
                Ok(0) => return Err(Lost("close_notify came".to_owned())),
                Ok(len) => self.heard.extend_from_slice(&plaintext[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let mut taken = 0;
        while let Some(len) = speech.frame(&self.heard[taken..]) {
            match speech.hear(&self.heard[taken..taken + len]) {
                Heard::Welcome(session) => {
                    (self.up, self.session) = (true, session);
                    news.welcome = true;
                }
                Heard::Answer => news.answers += 1,
                Heard::Other => {}
                Heard::Refused => return Err(Lost("refused".to_owned())),
            }
            taken += len;
        }
        self.heard.drain(..taken);
        if self.heard.is_empty() {
            self.heard = Vec::new();
        }
        Ok(())
    }
}

/// The socket is not ready, or not even connected.
fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}
