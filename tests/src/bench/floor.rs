//! What TLS alone costs a server: the same handshakes in memory, without a socket, a session or a store. No server that
//! uses this cryptography can cost less.

use std::sync::Arc;
use std::time::Duration;

use moorline_server::{clock, tls};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection};

use crate::certs::Pki;
use crate::client::{certificates, key};
use crate::failure::Failure;
use crate::load::{Pool, Speech};
use crate::rig::SERVER_NAME;

/// How many handshakes of each kind.
const HANDSHAKES: u32 = 1_000;

/// Processor time of the server's part of a handshake.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// Of a full one.
    pub full: Duration,
    /// Of a resumed one.
    pub resumed: Duration,
}

/// Has devices of the pool shake hands with a server in memory.
///
/// # Errors
/// A handshake fails.
pub fn floor(pki: &Pki, pool: &Pool) -> Result<Floor, Failure> {
    let config = server(pki)?;
    let (mut full, mut resumed) = (Duration::ZERO, Duration::ZERO);
    for number in 0..HANDSHAKES as usize {
        let device = pool.config(number % pool.len(), Speech::Native, true);
        for (cost, kind) in [(&mut full, HandshakeKind::Full), (&mut resumed, HandshakeKind::Resumed)] {
            let mut client = ClientConnection::new(Arc::clone(&device), SERVER_NAME.try_into()?)?;
            let mut server = ServerConnection::new(Arc::clone(&config))?;
            *cost += shake(&mut client, &mut server)?;
            if server.handshake_kind() != Some(kind) {
                return Err(Failure::new(format!("{:?} in the place of {kind:?}", server.handshake_kind())));
            }
        }
    }
    Ok(Floor { full: full / HANDSHAKES, resumed: resumed / HANDSHAKES })
}

/// As Moorline's: a certificate is required, and one ticket given.
fn server(pki: &Pki) -> Result<Arc<ServerConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(&pki.ca())? {
        roots.add(authority)?;
    }
    let (provider, own) = (Arc::new(tls::provider()), pki.server()?);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&own.certificate)?, key(&own.key)?)?;
    config.alpn_protocols = Speech::Native.protocols();
    config.session_storage = ServerSessionMemoryCache::new(HANDSHAKES as usize);
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Until neither has anything to say; what the server's part took.
fn shake(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<Duration, Failure> {
    let mut cost = Duration::ZERO;
    while client.wants_write() {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut up)?;
        }
        let before = clock::processor();
        let mut rest = up.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest)?;
            server.process_new_packets()?;
        }
        while server.wants_write() {
            server.write_tls(&mut down)?;
        }
        cost += clock::processor().saturating_sub(before);
        let mut rest = down.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest)?;
            client.process_new_packets()?;
        }
    }
    Ok(cost)
}
