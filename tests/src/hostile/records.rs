//! What a device seals once it has shaken hands: it has the keys, and means no good. rustls seals for it and reads what the
//! server answers.

use std::mem;
use std::sync::Arc;

use moorline_protocol::Imei;
use moorline_server::tls::{Tls, TlsSettings, TlsSource};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundPlainMessage,
};
use rustls::kernel::KernelConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    ClientConfig, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, HandshakeType,
    ProtocolVersion, SupportedCipherSuite, Tls13CipherSuite,
};

use crate::certs::Pki;
use crate::client::Settings;
use crate::failure::Failure;
use crate::rig::{IMEI, SERVER_NAME};

/// A step is what it is, how long, and what it says. Types of records are what they are (RFC 8446 section 5.1).
pub(super) const STEPS: &[&[u8]] = &[
    &[23, 2, 1, 1],
    &[23, 0],
    &[21, 2, 1, 0],
    &[21, 2, 1, 90],
    &[21, 2, 2, 20],
    &[21, 1, 1],
    &[22, 0],
    &[22, 4, 24, 0, 0, 1],
    &[22, 1, 0],
    &[22, 2, 24, 0],
    &[22, 6, 24, 0, 0, 1, 0, 24],
    &[22, 4, 1, 0, 0, 0],
    &[22, 6, 24, 0, 0, 2, 0, 0],
    &[20, 1, 1],
    &[0, 0],
    &[RENEW, 0],
    &[RENEW, 1, 1],
    &[RENEW, 1, 2],
    &[BARE, 7, 21, 3, 3, 0, 2, 1, 0],
    &[BARE, 5, 23, 3, 3, 0x41, 1],
    &[BARE, 6, 20, 3, 3, 0, 1, 1],
];

/// KeyUpdate, and what comes behind it under the next key.
const RENEW: u8 = 0xf0;
/// Nothing is sealed.
const BARE: u8 = 0xf1;

/// However it is cut, the server hears the same of it: what was sealed as data, up to the first thing that is wrong. What it
/// answers can be read, and is an alert or what it says with a key that it was asked to renew.
pub(super) fn records(script: &[u8]) {
    let whole = heard(script, usize::MAX);
    for size in [1, 13] {
        assert_eq!(heard(script, size), whole, "in pieces of {size}");
    }
}

/// What is heard, whether the connection stands then, and what came back, each record behind its type.
fn heard(script: &[u8], size: usize) -> (Vec<u8>, bool, Vec<u8>) {
    let (mut device, mut server) = shaken().expect("two that shake hands");
    let (sent, said) = device.send_all(script);
    let (mut rest, mut heard, mut out, mut stands) = (Vec::new(), Vec::new(), Vec::new(), true);
    for part in sent.chunks(size) {
        rest.extend_from_slice(part);
        match server.take(&mut rest, &mut out, |said| heard.extend_from_slice(said)) {
            Ok((taken, _)) => drop(rest.drain(..taken)),
            Err(_) => {
                stands = false;
                break;
            }
        }
    }
    assert!(said.starts_with(&heard), "something was heard that nobody said");
    assert!(out.len() <= 24, "nothing but an alert is said without being asked: {} bytes", out.len());
    assert_eq!(server.say(b"answer", &mut [], &mut out).is_ok(), stands);
    server.close(&mut [], &mut out);
    (heard, stands, device.read_all(&mut out))
}

/// A device behind its handshake.
struct Device {
    keys: KernelConnection<ClientConnectionData>,
    suite: &'static Tls13CipherSuite,
    seal: (u64, Box<dyn MessageEncrypter>),
    open: (u64, Box<dyn MessageDecrypter>),
}

impl Device {
    fn new(client: UnbufferedClientConnection) -> Result<Self, Error> {
        let (ExtractedSecrets { rx, tx }, keys) = client.dangerous_into_kernel_connection()?;
        let SupportedCipherSuite::Tls13(suite) = keys.negotiated_cipher_suite() else {
            return Err(Error::General("this is TLS 1.2".into()));
        };
        Ok(Self { keys, suite, seal: (tx.0, sealing(suite, tx.1)?), open: (rx.0, opening(suite, rx.1)?) })
    }

    /// The records of a script, and what they say as data.
    fn send_all(&mut self, script: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut sent, mut said, mut rest) = (Vec::new(), Vec::new(), script);
        while let [kind, len, behind @ ..] = rest {
            let (content, next) = behind.split_at(usize::from(*len).min(behind.len()));
            rest = next;
            match *kind {
                BARE => sent.extend_from_slice(content),
                RENEW => {
                    let request = content.first().copied().unwrap_or_default();
                    sent.extend(self.seal(22, &[24, 0, 0, 1, request]));
                    let (next, secrets) = self.keys.update_tx_secret().expect("TLS 1.3");
                    self.seal = (next, sealing(self.suite, secrets).expect("a cipher of the suite"));
                }
                kind => {
                    sent.extend(self.seal(kind, content));
                    // A type of 0 is padding, and what stands before it the type.
                    let inner = [content, &[kind]].concat();
                    let end = inner.iter().rposition(|&byte| byte != 0).unwrap_or_default();
                    if inner[end] == 23 {
                        said.extend_from_slice(&inner[..end]);
                    }
                }
            }
        }
        (sent, said)
    }

    fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let (number, cipher) = &mut self.seal;
        let plain = OutboundPlainMessage {
            typ: ContentType::from(kind),
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(content),
        };
        let sealed = cipher.encrypt(plain, *number).expect("a key that is not used up");
        *number += 1;
        sealed.encode()
    }

    /// What the records say, each behind its type.
    fn read_all(&mut self, mut sealed: &mut [u8]) -> Vec<u8> {
        let mut read = Vec::new();
        while let Some((header, behind)) = mem::take(&mut sealed).split_first_chunk_mut::<5>() {
            let (record, next) = behind.split_at_mut(usize::from(u16::from_be_bytes([header[3], header[4]])));
            sealed = next;
            let (number, cipher) = &mut self.open;
            let record =
                InboundOpaqueMessage::new(ContentType::from(header[0]), ProtocolVersion::TLSv1_2, record);
            let plain = cipher.decrypt(record, *number).expect("a record of the server's");
            *number += 1;
            read.push(u8::from(plain.typ));
            read.extend_from_slice(plain.payload);
            if plain.payload.first() == Some(&HandshakeType::KeyUpdate.into())
                && plain.typ == ContentType::Handshake
            {
                let (next, secrets) = self.keys.update_rx_secret().expect("TLS 1.3");
                self.open = (next, opening(self.suite, secrets).expect("a cipher of the suite"));
            }
        }
        read
    }
}

fn sealing(
    suite: &Tls13CipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageEncrypter>, Error> {
    key_and_iv(secrets).map(|(key, iv)| suite.aead_alg.encrypter(key, iv))
}

fn opening(
    suite: &Tls13CipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageDecrypter>, Error> {
    key_and_iv(secrets).map(|(key, iv)| suite.aead_alg.decrypter(key, iv))
}

fn key_and_iv(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), Error> {
    use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
    match secrets {
        Aes128Gcm { key, iv } | Aes256Gcm { key, iv } | Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(Error::General("a cipher that is unknown here".into())),
    }
}

/// What both need for a handshake.
struct Stage {
    source: TlsSource,
    device: Arc<ClientConfig>,
    /// Its folder goes with it.
    _pki: Pki,
}

thread_local! {
    static STAGE: Stage = stage().expect("certificates");
}

fn stage() -> Result<Stage, Failure> {
    let pki = Pki::new()?;
    let own = pki.server()?;
    let settings = TlsSettings {
        file: "server.toml".into(),
        certificate: own.certificate,
        key: own.key,
        client_ca: pki.ca(),
        crl: None,
        admit_tls12: false,
        resumable: 0,
    };
    let source = TlsSource::new(&settings).map_err(|mistakes| Failure::new(mistakes.to_string()))?;
    let mut device = Settings::new(&pki, Some(&pki.device(IMEI.parse::<Imei>()?)?))?.into_config();
    device.enable_secret_extraction = true;
    Ok(Stage { source, device: Arc::new(device), _pki: pki })
}

/// A device and a server, their handshake behind them.
fn shaken() -> Result<(Device, Tls), Failure> {
    let (config, pump) = STAGE.with(|stage| (Arc::clone(&stage.device), stage.source.accept()));
    let (mut client, mut pump) = (UnbufferedClientConnection::new(config, SERVER_NAME.try_into()?)?, pump?);
    let (mut up, mut down) = (Vec::new(), Vec::new());
    while client.is_handshaking() || pump.is_handshaking() {
        go_on(&mut client, &mut down, &mut up)?;
        let (taken, _) = pump.take(&mut up, &mut down, |_| {})?;
        up.drain(..taken);
    }
    Ok((Device::new(client)?, Tls::open(pump)?))
}

/// Has the device go on as far as it comes.
fn go_on(
    client: &mut UnbufferedClientConnection,
    down: &mut Vec<u8>,
    up: &mut Vec<u8>,
) -> Result<(), Failure> {
    loop {
        let UnbufferedStatus { discard, state } = client.process_tls_records(down);
        let waits = match state? {
            ConnectionState::EncodeTlsData(mut data) => {
                let mut record = vec![0; 1 << 14];
                let len = data.encode(&mut record).map_err(|fault| Failure::new(fault.to_string()))?;
                up.extend_from_slice(&record[..len]);
                false
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                false
            }
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => true,
            other => return Err(Failure::new(format!("{other:?} amid a handshake"))),
        };
        down.drain(..discard);
        if waits {
            return Ok(());
        }
    }
}
