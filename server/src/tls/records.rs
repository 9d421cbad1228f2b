//! TLS 1.3's records once hands are shaken (RFC 8446 section 5): all of TLS that a session keeps while it stands.
//!
//! rustls shakes hands and derives every key. Left to itself it keeps a state machine, queues and two ciphers that are set up for
//! a session that says two bytes a minute, 1.8 KB more than this. Here a direction is a key, an IV and a number. The cipher is
//! ring's, and is set up for one record: to fetch one that has long left the processor's caches takes as long.
//!
//! ```text
//!   17 03 03 LL LL | content, its type, zeros: encrypted | tag        by the key, IV xor number; the header is authenticated
//! ```
//!
//! Besides data a device may send alerts and KeyUpdates: nothing else is left to be said once the handshake is over, for the
//! server asks for no certificate anew (section 4.6.2). docs/decisions/0010 says why this is not left to rustls.

use std::mem;

use ring::aead::{self, AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ring::error::Unspecified;
use rustls::crypto::cipher;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, SupportedCipherSuite,
};

use super::pump::{HEADER, Progress};

/// Of every cipher of TLS 1.3 that is offered.
const TAG: usize = 16;

/// The most that one record says.
const MAX_CONTENT: usize = 1 << 14;

/// The most behind its header (section 5.2).
const MAX_SEALED: usize = MAX_CONTENT + 256;

/// A KeyUpdate (section 4.6.3) up to its last byte, which says whether the other side is to do the same.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
const NOT_REQUESTED: u8 = 0;
const REQUESTED: u8 = 1;

/// So many times in a row may a device renew its key and say nothing else: as rustls and BoringSSL have it.
const MAX_UPDATES: u8 = 32;

/// How bad an alert is. TLS 1.3 tells that by its description, and has the byte all the same (section 6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// See the module.
pub(super) struct Records {
    /// Who knows the next keys.
    keys: KernelConnection<ServerConnectionData>,
    incoming: Direction,
    outgoing: Direction,
    /// How much has come of a KeyUpdate that goes on in the next record.
    begun: usize,
    updates_left: u8,
    /// The device asked for another key: it is due before anything else is said.
    update_due: bool,
    state: State,
}

/// What protects one direction.
struct Direction {
    secrets: ConnectionTrafficSecrets,
    /// The next record's number.
    next: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The device has said all, and may be answered yet.
    PeerClosed,
    /// Nothing is heard any more, nor said.
    Over,
}

/// What one record led to.
enum Heard<'b> {
    Data(&'b [u8]),
    /// Something between the two TLSs.
    Nothing,
    Closed,
}

/// Why the connection is over.
struct Fault {
    /// What the device is told.
    alert: Option<AlertDescription>,
    error: Error,
}

impl Records {
    /// Goes on where rustls stopped: at the end of the handshake, with nothing left to send.
    pub(super) fn new(secrets: ExtractedSecrets, keys: KernelConnection<ServerConnectionData>) -> Self {
        let ExtractedSecrets { rx, tx } = secrets;
        let (incoming, outgoing) = (Direction::from(rx), Direction::from(tx));
        let (begun, updates_left, update_due, state) = (0, MAX_UPDATES, false, State::Open);
        Self { keys, incoming, outgoing, begun, updates_left, update_due, state }
    }

    /// As [`Tls::take`](super::Tls::take).
    pub(super) fn take(
        &mut self,
        incoming: &mut [u8],
        out: &mut Vec<u8>,
        mut hear: impl FnMut(&[u8]),
    ) -> Result<(usize, Progress), Error> {
        let mut taken = 0;
        while self.state == State::Open {
            match self.take_record(incoming.get_mut(taken..).unwrap_or_default()) {
                Ok(None) => return Ok((taken, Progress::Open)),
                Ok(Some((len, heard))) => {
                    taken += len;
                    match heard {
                        Heard::Data(said) => hear(said),
                        Heard::Nothing => {}
                        Heard::Closed => self.state = State::PeerClosed,
                    }
                }
                Err(Fault { alert, error }) => {
                    self.state = State::Over;
                    // The connection ends in any case.
                    let told = alert.map(|alert| self.alert(FATAL, alert, out));
                    return Err(told.and_then(Result::err).unwrap_or(error));
                }
            }
        }
        Ok((incoming.len(), Progress::PeerClosed))
    }

    /// The first record and its length; `None` when it is not all there.
    fn take_record<'b>(&mut self, bytes: &'b mut [u8]) -> Result<Option<(usize, Heard<'b>)>, Fault> {
        let Some((header, behind)) = bytes.split_first_chunk_mut::<HEADER>() else { return Ok(None) };
        let [kind, major, _, length @ ..] = *header;
        // Who it is from can be said of no other.
        if ContentType::from(kind) != ContentType::ApplicationData {
            return Err(breach(AlertDescription::UnexpectedMessage, "a record that is not encrypted"));
        }
        // The version says nothing any more (section 5.1): what is no TLS at all is seen before its length is waited for.
        if major != 3 {
            return Err(breach(AlertDescription::DecodeError, "what is no record of TLS"));
        }
        let length = usize::from(u16::from_be_bytes(length));
        if length > MAX_SEALED {
            return Err(too_long());
        }
        let Some(sealed) = behind.get_mut(..length) else { return Ok(None) };
        let (kind, content) = self.incoming.open(*header, sealed)?;
        self.on_content(kind, content).map(|heard| Some((HEADER + length, heard)))
    }

    fn on_content<'b>(&mut self, kind: ContentType, content: &'b [u8]) -> Result<Heard<'b>, Fault> {
        if self.begun > 0 && kind != ContentType::Handshake {
            return Err(breach(AlertDescription::UnexpectedMessage, "something else amid a KeyUpdate"));
        }
        match kind {
            ContentType::ApplicationData if content.is_empty() => Ok(Heard::Nothing),
            ContentType::ApplicationData => {
                self.updates_left = MAX_UPDATES;
                Ok(Heard::Data(content))
            }
            ContentType::Alert => on_alert(content),
            ContentType::Handshake => self.on_handshake(content).map(|()| Heard::Nothing),
            _ => Err(breach(AlertDescription::UnexpectedMessage, "a record of an unknown type")),
        }
    }

    /// Takes a KeyUpdate. It may come in pieces (section 5.1), and ends its record, for what follows has another key.
    fn on_handshake(&mut self, content: &[u8]) -> Result<(), Fault> {
        if content.is_empty() {
            return Err(breach(
                AlertDescription::UnexpectedMessage,
                "a piece of a message with nothing in it",
            ));
        }
        let expected = KEY_UPDATE.get(self.begun..).unwrap_or_default();
        let same = content.iter().zip(expected).take_while(|(is, ought)| is == ought).count();
        self.begun += same;
        match (content.get(same..).unwrap_or_default(), self.begun) {
            ([], _) => Ok(()),
            (_, 0) => {
                Err(breach(AlertDescription::UnexpectedMessage, "a message that ends no handshake of ours"))
            }
            ([request], len) if len == KEY_UPDATE.len() => self.on_key_update(*request),
            (_, len) if len == KEY_UPDATE.len() => {
                Err(breach(AlertDescription::UnexpectedMessage, "something behind a KeyUpdate"))
            }
            _ => Err(breach(AlertDescription::DecodeError, "a KeyUpdate of another length")),
        }
    }

    fn on_key_update(&mut self, request: u8) -> Result<(), Fault> {
        match request {
            NOT_REQUESTED => {}
            REQUESTED => self.update_due = true,
            _ => {
                return Err(breach(
                    AlertDescription::IllegalParameter,
                    "a KeyUpdate that asks for what is unknown",
                ));
            }
        }
        let Some(left) = self.updates_left.checked_sub(1) else {
            return Err(breach(
                AlertDescription::UnexpectedMessage,
                "nothing but KeyUpdates, again and again",
            ));
        };
        (self.updates_left, self.begun) = (left, 0);
        self.incoming = Direction::from(self.keys.update_rx_secret()?);
        Ok(())
    }

    /// As [`Tls::say`](super::Tls::say).
    pub(super) fn say(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if self.state == State::Over {
            return Err(Error::General("the connection is closed".into()));
        }
        for part in plaintext.chunks(MAX_CONTENT) {
            if self.update_due || self.outgoing.next >= self.limit() {
                self.renew(out)?;
            }
            self.outgoing.seal(ContentType::ApplicationData, part, out)?;
        }
        Ok(())
    }

    /// Announces another key, and goes on with it.
    fn renew(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let [kind, length @ ..] = KEY_UPDATE;
        let [a, b, c] = length;
        self.outgoing.seal(ContentType::Handshake, &[kind, a, b, c, NOT_REQUESTED], out)?;
        self.outgoing = Direction::from(self.keys.update_tx_secret()?);
        self.update_due = false;
        Ok(())
    }

    /// How many records one key may protect (section 5.5).
    fn limit(&self) -> u64 {
        match self.keys.negotiated_cipher_suite() {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        }
    }

    /// As [`Tls::close`](super::Tls::close).
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        if mem::replace(&mut self.state, State::Over) != State::Over {
            // Closing is a courtesy: the socket is closed in any case.
            let _ = self.alert(WARNING, AlertDescription::CloseNotify, out);
        }
    }

    fn alert(&mut self, level: u8, alert: AlertDescription, out: &mut Vec<u8>) -> Result<(), Error> {
        self.outgoing.seal(ContentType::Alert, &[level, alert.into()], out)
    }
}

fn on_alert(content: &[u8]) -> Result<Heard<'static>, Fault> {
    let &[_level, description] = content else {
        return Err(breach(AlertDescription::DecodeError, "an alert of another length"));
    };
    match AlertDescription::from(description) {
        AlertDescription::CloseNotify => Ok(Heard::Closed),
        // It announces that the device closes (section 6.1), and some send it for nothing.
        AlertDescription::UserCanceled => Ok(Heard::Nothing),
        other => Err(Fault { alert: None, error: Error::AlertReceived(other) }),
    }
}

impl Direction {
    /// Has `work` done by what protects the next record. The cipher stays where it was set up: to move its 544 bytes costs as
    /// much as to use it.
    fn protected<T>(
        &mut self,
        work: impl FnOnce(&LessSafeKey, aead::Nonce) -> Result<T, Unspecified>,
    ) -> Result<Result<T, Unspecified>, Error> {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (algorithm, key, iv) = match &self.secrets {
            Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("a cipher that is not offered".into())),
        };
        let key = UnboundKey::new(algorithm, key.as_ref())
            .map_err(|_| Error::General("a key of another length than its cipher's".into()))?;
        let nonce = aead::Nonce::assume_unique_for_key(cipher::Nonce::new(iv, self.next).0);
        // It never wraps (section 5.3).
        self.next = self.next.checked_add(1).ok_or(Error::EncryptError)?;
        Ok(work(&LessSafeKey::new(key), nonce))
    }

    /// Decrypts in place what stood behind `header`; its type, and what it says.
    fn open<'b>(
        &mut self,
        header: [u8; HEADER],
        sealed: &'b mut [u8],
    ) -> Result<(ContentType, &'b [u8]), Fault> {
        let opened = self.protected(|key, nonce| {
            let opened = key.open_in_place(nonce, Aad::from(header), sealed)?;
            Ok(&*opened)
        })?;
        let opened = opened.map_err(|Unspecified| Fault {
            alert: Some(AlertDescription::BadRecordMac),
            error: Error::DecryptError,
        })?;
        let Some(end) = opened.iter().rposition(|&byte| byte != 0) else {
            return Err(breach(AlertDescription::UnexpectedMessage, "a record of nothing but zeros"));
        };
        let (content, kind) = opened.split_at(end);
        if content.len() > MAX_CONTENT {
            return Err(too_long());
        }
        Ok((ContentType::from(kind.first().copied().unwrap_or_default()), content))
    }

    /// Appends one record to `out`.
    fn seal(&mut self, kind: ContentType, content: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let length = content.len() + 1 + TAG;
        let [high, low] = u16::try_from(length).map_err(|_| Error::EncryptError)?.to_be_bytes();
        let header = [ContentType::ApplicationData.into(), 3, 3, high, low];
        out.reserve(HEADER + length);
        out.extend_from_slice(&header);
        let start = out.len();
        out.extend_from_slice(content);
        out.push(kind.into());
        let inner = out.get_mut(start..).unwrap_or_default();
        let tag =
            self.protected(|key, nonce| key.seal_in_place_separate_tag(nonce, Aad::from(header), inner))?;
        out.extend_from_slice(tag.map_err(|Unspecified| Error::EncryptError)?.as_ref());
        Ok(())
    }
}

impl From<(u64, ConnectionTrafficSecrets)> for Direction {
    fn from((next, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        Self { secrets, next }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { alert: Some(AlertDescription::InternalError), error }
    }
}

fn breach(alert: AlertDescription, what: &str) -> Fault {
    Fault { alert: Some(alert), error: Error::General(format!("the device sent {what}")) }
}

fn too_long() -> Fault {
    breach(AlertDescription::RecordOverflow, "a record that is too long")
}

#[cfg(test)]
mod tests;
