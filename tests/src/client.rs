//! A device made of rustls and the wire alone, for what a real agent would never do: it shows any certificate or none,
//! offers any protocol, and sends any bytes.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use moorline_protocol::frame::{Decoder, Spill};
use moorline_protocol::{ALPN, DeviceMessage, Hello, Imei, ServerMessage};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::certs::{Credentials, Pki};
use crate::failure::Failure;
use crate::process::PATIENCE;
use crate::rig::SERVER_NAME;

/// What a client is made with; clones share their memory of sessions to resume.
#[derive(Clone)]
pub struct Settings(ClientConfig);

impl Settings {
    /// A native device over TLS 1.3 with such a certificate, or with none.
    ///
    /// # Errors
    /// The files cannot be read.
    #[track_caller]
    pub fn new(pki: &Pki, certified: Option<&Credentials>) -> Result<Self, Failure> {
        Self::with_versions(pki, certified, &[&rustls::version::TLS13])
    }

    /// As [`Self::new`], over these versions of TLS.
    ///
    /// # Errors
    /// The files cannot be read.
    #[track_caller]
    pub fn with_versions(
        pki: &Pki,
        certified: Option<&Credentials>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&pki.ca())?);
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)?
            .with_root_certificates(roots);
        let mut config = match certified {
            None => builder.with_no_client_auth(),
            // Not `with_client_auth_cert`, which looks into the certificate and refuses what is to be refused elsewhere.
            Some(by) => {
                let key = ring::sign::any_supported_type(&key(&by.key)?)?;
                let certified = CertifiedKey::new(certificates(&by.certificate)?, key);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self(config))
    }

    /// Offers these protocols and no other.
    #[must_use]
    pub fn offering(mut self, protocols: &[&[u8]]) -> Self {
        self.0.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        self
    }

    /// As rustls knows it.
    #[must_use]
    pub fn into_config(self) -> ClientConfig {
        self.0
    }

    /// Connects and finishes its half of the handshake: in TLS 1.3 the server may still refuse it.
    ///
    /// # Errors
    /// The connection fails or the server refuses it at once.
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "a device's socket on loopback")]
    pub fn connect(&self, server: SocketAddr) -> Result<Client, Failure> {
        let socket = TcpStream::connect(server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        self.connect_over(socket)
    }

    /// As [`Self::connect`], over a socket that is open already.
    ///
    /// # Errors
    /// The server refuses it at once.
    #[track_caller]
    pub fn connect_over(&self, socket: TcpStream) -> Result<Client, Failure> {
        let name = SERVER_NAME.try_into()?;
        let connection = ClientConnection::new(Arc::new(self.0.clone()), name)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Client::new(stream))
    }

    /// Connects, and writes the last of its half of the handshake, all that it has to say and its close_notify at once.
    ///
    /// # Errors
    /// The connection fails or the server refuses it at once.
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "a device's socket on loopback")]
    pub fn say_at_once(&self, server: SocketAddr, bytes: &[u8]) -> Result<Client, Failure> {
        let mut socket = TcpStream::connect(server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut connection = ClientConnection::new(Arc::new(self.0.clone()), SERVER_NAME.try_into()?)?;
        connection.write_tls(&mut socket)?;
        while connection.is_handshaking() {
            connection.read_tls(&mut socket)?;
            connection.process_new_packets()?;
        }
        connection.writer().write_all(bytes)?;
        connection.send_close_notify();
        let mut flight = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut flight)?;
        }
        socket.write_all(&flight)?;
        Ok(Client::new(StreamOwned::new(connection, socket)))
    }
}

/// A connected device.
pub struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    decoder: Decoder<Heap>,
    heard: Vec<u8>,
    taken: usize,
}

impl Client {
    fn new(stream: StreamOwned<ClientConnection, TcpStream>) -> Self {
        Self { stream, decoder: Decoder::default(), heard: Vec::new(), taken: 0 }
    }

    /// Sends bytes as one TLS record.
    ///
    /// # Errors
    /// The connection is gone.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.stream.write_all(bytes).and_then(|()| self.stream.flush())?)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The connection is gone.
    #[track_caller]
    pub fn send(&mut self, message: &DeviceMessage) -> Result<(), Failure> {
        let mut frame = [0; DeviceMessage::MAX_ENCODED];
        let len = message.encode(&mut frame)?;
        self.send_bytes(&frame[..len])
    }

    /// Says who it is.
    ///
    /// # Errors
    /// The connection is gone.
    #[track_caller]
    pub fn say_hello(&mut self, imei: Imei) -> Result<(), Failure> {
        self.send(&DeviceMessage::Hello(hello(imei)))
    }

    /// The next message; `None` when the server closed the connection in good order.
    ///
    /// # Errors
    /// The server is silent, ended the connection with an alert or a reset, or speaks nonsense.
    #[track_caller]
    pub fn hear(&mut self) -> Result<Option<ServerMessage>, Failure> {
        loop {
            let mut rest = &self.heard[self.taken..];
            let before = rest.len();
            if let Some(body) = self.decoder.next(&mut rest)? {
                let message = ServerMessage::decode(body)?;
                self.taken += before - rest.len();
                return Ok(Some(message));
            }
            let mut more = [0; 4096];
            let len = self.stream.read(&mut more)?;
            if len == 0 {
                return Ok(None);
            }
            self.heard.clear();
            self.taken = 0;
            self.heard.extend_from_slice(&more[..len]);
        }
    }

    /// Exactly so many bytes, as a classic device reads them.
    ///
    /// # Errors
    /// They do not come.
    #[track_caller]
    pub fn hear_bytes(&mut self, count: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// What the server ends the connection with: an alert in rustls's words, or a good end.
    #[track_caller]
    pub fn end(&mut self) -> String {
        loop {
            match self.stream.read(&mut [0; 4096]) {
                Ok(0) => return "closed".to_owned(),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return "reset".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Whether the handshake was resumed.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Takes new keys for what it sends, and has the server take new ones too (RFC 8446 section 4.6.3).
    ///
    /// # Errors
    /// Keys can be renewed over TLS 1.3 alone.
    pub fn renew_keys(&mut self) -> Result<(), Failure> {
        Ok(self.stream.conn.refresh_traffic_keys()?)
    }

    /// Ends the connection without a word of TLS.
    ///
    /// # Errors
    /// It is gone already.
    pub fn cut(self) -> io::Result<()> {
        self.stream.sock.shutdown(Shutdown::Both)
    }

    /// Closes its half of TLS in good order.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn close(&mut self) -> io::Result<()> {
        self.stream.conn.send_close_notify();
        self.stream.conn.write_tls(&mut self.stream.sock).map(drop)
    }

    /// The socket under TLS.
    pub const fn socket(&self) -> &TcpStream {
        &self.stream.sock
    }
}

/// What a device says first.
#[must_use]
pub fn hello(imei: Imei) -> Hello {
    Hello {
        imei: imei.as_u64(),
        app_id: [7; 16],
        agent_version: "0.1.0".try_into().unwrap_or_default(),
        boot_id: [9; 16],
        heartbeat_s: 60,
        modem: "made of rustls".try_into().unwrap_or_default(),
    }
}

/// Memory for long frames.
#[derive(Default)]
struct Heap(Vec<u8>);

impl Spill for Heap {
    fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn release(&mut self) {
        self.0 = Vec::new();
    }
}

pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    Ok(rustls_pemfile::certs(&mut BufReader::new(File::open(file)?)).collect::<Result<_, _>>()?)
}

pub(crate) fn key(file: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    let key = rustls_pemfile::private_key(&mut BufReader::new(File::open(file)?))?;
    key.ok_or_else(|| Failure::new(format!("no key in {}", file.display())))
}
