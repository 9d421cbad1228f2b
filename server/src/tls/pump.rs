//! rustls's unbuffered server connection, driven over byte slices. The one file that knows that interface: rustls's next
//! major version drops it (docs/decisions/0002).
//!
//! ```text
//!   socket ── records ──► Tls::take ──► plaintext, handed to a closure
//!   socket ◄─ records ─── out ◄── Tls::say ◄── plaintext
//! ```

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{Error, HandshakeKind, ProtocolVersion, ServerConfig};

use super::resumption::{self, Origin};

/// One TLS connection, without a buffer of its own beyond what rustls keeps.
pub struct Tls {
    connection: UnbufferedServerConnection,
    /// close_notify is out. rustls takes it for its last alert, and panics when bytes that come behind ask for another.
    closed: bool,
    pub(super) trusted: Trusted,
    /// What a ticket that is given out now goes back to.
    origin: Option<Origin>,
}

/// How long the last look at the peer's chain holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trusted {
    /// The reading of the files that it was held against.
    pub(super) reading: u64,
    /// When the certificate expires, UTC milliseconds since 1970.
    pub(super) until_ms: i64,
}

/// Where a connection stands after [`Tls::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The peer has to go on with the handshake.
    Handshaking,
    /// The handshake is over: data may go both ways.
    Open,
    /// The peer closed it in good order, or this side did: nothing that comes is heard any more.
    PeerClosed,
}

impl Tls {
    /// A connection that waits for its ClientHello.
    pub(super) fn new(config: Arc<ServerConfig>, reading: u64) -> Result<Self, Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self { connection, closed: false, trusted: Trusted { reading, until_ms: i64::MIN }, origin: None })
    }

    /// Takes whole records off the front of `incoming`, hands what they say to `hear`, and appends what has to be sent to
    /// `out`. Returns how many bytes were taken; the rest is a record that is not finished.
    ///
    /// # Errors
    /// The peer broke TLS or was refused: `out` then ends with the alert that tells it why.
    pub fn take(
        &mut self,
        incoming: &mut [u8],
        out: &mut Vec<u8>,
        hear: impl FnMut(&[u8]),
    ) -> Result<(usize, Progress), Error> {
        resumption::exchange(self.origin);
        let taken = self.process(incoming, out, hear);
        self.origin = resumption::exchange(None);
        taken
    }

    fn process(
        &mut self,
        incoming: &mut [u8],
        out: &mut Vec<u8>,
        mut hear: impl FnMut(&[u8]),
    ) -> Result<(usize, Progress), Error> {
        if self.closed {
            return Ok((incoming.len(), Progress::PeerClosed));
        }
        let mut taken = 0;
        loop {
            let rest = incoming.get_mut(taken..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(rest);
            let progress = match state {
                Err(fault) => {
                    self.alert(out);
                    return Err(fault);
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        hear(record.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(out, |out| data.encode(out).map_err(|fault| encode_room(&fault)))?;
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::BlockedHandshake) => Some(Progress::Handshaking),
                Ok(ConnectionState::WriteTraffic(_)) => Some(Progress::Open),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Some(Progress::PeerClosed),
                // Early data is never offered: max_early_data_size is 0.
                Ok(_) => return Err(Error::General("an unexpected state of the connection".into())),
            };
            taken += discard;
            if let Some(progress) = progress {
                return Ok((taken, progress));
            }
        }
    }

    /// Encrypts `plaintext` as one record to the end of `out`. `rest` is what [`Self::take`] left: rustls knows where in
    /// it the beginning of an unfinished handshake message stands, and panics over a buffer that does not hold it.
    ///
    /// # Errors
    /// The keys are used up, or the connection is not open.
    pub fn say(&mut self, plaintext: &[u8], rest: &mut [u8], out: &mut Vec<u8>) -> Result<(), Error> {
        loop {
            match self.connection.process_tls_records(rest).state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    return append(out, |out| {
                        traffic.encrypt(plaintext, out).map_err(|fault| encrypt_room(&fault))
                    });
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(out, |out| data.encode(out).map_err(|fault| encode_room(&fault)))?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                _ => return Err(Error::HandshakeNotComplete),
            }
        }
    }

    /// Appends close_notify to `out`, if the connection is open. `rest` as for [`Self::say`]. Whatever comes afterwards is
    /// taken and not looked at.
    pub fn close(&mut self, rest: &mut [u8], out: &mut Vec<u8>) {
        self.closed = true;
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) =
            self.connection.process_tls_records(rest).state
        {
            // Closing is a courtesy: the socket is closed in any case.
            let _ = append(out, |out| traffic.queue_close_notify(out).map_err(|fault| encrypt_room(&fault)));
        }
    }

    /// The peer's chain, leaf first; also after a resumed handshake.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.connection.peer_certificates()
    }

    /// Whether the handshake is not over.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the handshake was resumed; rustls then asked no verifier.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Who verified the peer's chain, in the full handshake that this session goes back to.
    pub(super) fn verifier(&self) -> Option<u64> {
        self.origin.and_then(|origin| origin.verifier)
    }

    /// The ALPN name agreed on.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// `1.3` or `1.2`.
    #[must_use]
    pub fn version(&self) -> &'static str {
        match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        }
    }

    /// Appends the alert that rustls has ready after a fault. As long as there is something to send it looks at nothing
    /// that came; after that it must not be asked again, for it would judge the rest too and panic over a second alert.
    fn alert(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut data)) =
                self.connection.process_tls_records(&mut []).state
            else {
                return;
            };
            if append(out, |out| data.encode(out).map_err(|fault| encode_room(&fault))).is_err() {
                return;
            }
        }
    }
}

/// What a write into a slice came to, where it was not done.
enum NotDone {
    Room(usize),
    Fault(Error),
}

/// Lets `write` write to the end of `out`, with as much room as it asks for.
fn append(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, NotDone>,
) -> Result<(), Error> {
    let start = out.len();
    let mut room = 0;
    loop {
        out.resize(start + room, 0);
        match write(out.get_mut(start..).unwrap_or_default()) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(NotDone::Room(required)) if required > room => room = required,
            Err(NotDone::Room(_)) => return Err(Error::General("no room is ever enough".into())),
            Err(NotDone::Fault(fault)) => {
                out.truncate(start);
                return Err(fault);
            }
        }
    }
}

fn encode_room(fault: &EncodeError) -> NotDone {
    match fault {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => {
            NotDone::Room(*required_size)
        }
        EncodeError::AlreadyEncoded => NotDone::Fault(Error::General("encoded twice".into())),
    }
}

fn encrypt_room(fault: &EncryptError) -> NotDone {
    match fault {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
            NotDone::Room(*required_size)
        }
        EncryptError::EncryptExhausted => NotDone::Fault(Error::EncryptError),
    }
}
