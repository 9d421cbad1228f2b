//! rustls's unbuffered server connection, driven over byte slices: every handshake, and TLS 1.2 beyond it. The one file that
//! knows that interface: rustls's next major version drops it (docs/decisions/0002).

use std::sync::Arc;

use rustls::kernel::KernelConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{Error, ExtractedSecrets, HandshakeKind, ProtocolVersion, ServerConfig};

use super::resumption::{self, Origin};
use crate::session::Dialect;

/// Type, version and length of a TLS record.
pub(super) const HEADER: usize = 5;

/// One TLS connection, without a buffer of its own beyond what rustls keeps.
pub struct Pump {
    connection: UnbufferedServerConnection,
    /// How much of what was left the last time rustls has seen: it is the beginning of a message of the handshake.
    seen: usize,
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

/// Where a connection stands after [`Pump::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The peer has to go on with the handshake.
    Handshaking,
    /// The handshake is over: data may go both ways.
    Open,
    /// The peer closed it in good order, or this side did: nothing that comes is heard any more.
    PeerClosed,
}

impl Pump {
    /// A connection that waits for its ClientHello.
    pub(super) fn new(config: Arc<ServerConfig>, reading: u64) -> Result<Self, Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self {
            connection,
            seen: 0,
            closed: false,
            trusted: Trusted { reading, until_ms: i64::MIN },
            origin: None,
        })
    }

    /// Takes whole records off the front of `incoming`, hands what they say to `hear`, and appends what has to be sent to
    /// `out`. Returns how many bytes were taken; the rest is a record that is not finished, or what stands behind the handshake
    /// in the moment that it ends: what is said from there on may be heard by another.
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
        // One record more at a time until the handshake is over: what stands behind it may be another's to read.
        let mut shown = if self.is_handshaking() { self.seen } else { incoming.len() };
        let mut taken = 0;
        loop {
            let rest = incoming.get_mut(taken..shown).unwrap_or_default();
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
            if progress == Some(Progress::Handshaking)
                && let Some(record) = first_record(incoming.get(shown..).unwrap_or_default())
            {
                shown += record;
            } else if let Some(progress) = progress {
                self.seen = shown.saturating_sub(taken);
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

    /// What is spoken inside: older fleets name no protocol (ALPN).
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        if self.connection.alpn_protocol().is_some() { Dialect::Native } else { Dialect::Classic }
    }

    /// `1.3` or `1.2`.
    #[must_use]
    pub fn version(&self) -> &'static str {
        match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        }
    }

    pub(super) fn is_tls13(&self) -> bool {
        self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// What protects the records from here on, and who knows the keys that come after.
    ///
    /// # Errors
    /// The handshake is not over, or something of it is not sent.
    pub(super) fn into_keys(
        self,
    ) -> Result<(ExtractedSecrets, KernelConnection<ServerConnectionData>), Error> {
        self.connection.dangerous_into_kernel_connection()
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

/// The length of the first record, header and all, if it is all there.
#[must_use]
pub fn first_record(bytes: &[u8]) -> Option<usize> {
    let (header, behind) = bytes.split_first_chunk::<HEADER>()?;
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    (behind.len() >= length).then_some(HEADER + length)
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
