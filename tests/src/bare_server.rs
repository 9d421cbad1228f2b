//! A server made of rustls and the wire alone, for what the real one would never do: it picks any protocol, and says what a
//! test writes or nothing at all.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use moorline_protocol::frame::{Decoder, MAX_FRAME};
use moorline_protocol::{DeviceMessage, ServerMessage};
use rustix::net::sockopt::{self, Timeout};
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::certs::Pki;
use crate::client::{certificates, key};
use crate::failure::Failure;
use crate::process::PATIENCE;

/// Listens; takes one device at a time.
pub struct BareServer {
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

/// A device's connection.
pub type Connection = StreamOwned<ServerConnection, TcpStream>;

impl BareServer {
    /// A server of this CA that knows these protocols.
    ///
    /// # Errors
    /// The files cannot be read, or loopback has no free port.
    #[track_caller]
    pub fn start(pki: &Pki, protocols: &[&[u8]]) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&pki.ca())?);
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
        let by = pki.server()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&by.certificate)?, key(&by.key)?)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        #[expect(clippy::disallowed_methods, reason = "here the test is the server")]
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        // For `accept`, too: a device that does not come fails the test.
        sockopt::set_socket_timeout(&listener, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { listener, config: Arc::new(config) })
    }

    /// Where devices connect to.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next device, after its handshake.
    ///
    /// # Errors
    /// The handshake fails.
    #[track_caller]
    pub fn accept(&self) -> Result<Connection, Failure> {
        let (socket, _) = self.listener.accept()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&self.config))?, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }
}

/// A device's connection in messages of the native protocol.
pub struct Conversation {
    connection: Connection,
    decoder: Decoder<heapless::Vec<u8, MAX_FRAME>>,
}

impl Conversation {
    /// What comes next is a message.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        Self { connection, decoder: Decoder::default() }
    }

    /// Says something.
    ///
    /// # Errors
    /// The connection is gone.
    #[track_caller]
    pub fn say(&mut self, message: &ServerMessage) -> Result<(), Failure> {
        let mut frame = [0; ServerMessage::MAX_ENCODED];
        let len = message.encode(&mut frame)?;
        Ok(self.connection.write_all(&frame[..len])?)
    }

    /// What the device says next.
    ///
    /// # Errors
    /// It is silent, has gone, or speaks nonsense.
    #[track_caller]
    pub fn hear(&mut self) -> Result<DeviceMessage, Failure> {
        let mut byte = [0];
        loop {
            self.connection.read_exact(&mut byte)?;
            if let Some(body) = self.decoder.next(&mut &byte[..])? {
                return Ok(DeviceMessage::decode(body)?);
            }
        }
    }
}

/// Everything that the device sends until it says close_notify.
///
/// # Errors
/// It ends without that.
#[track_caller]
pub fn read_to_close_notify(connection: &mut Connection) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes)?;
    Ok(bytes)
}
