//! Records beside rustls: its client at the other end, and its own server connection given the same bytes.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::*;
use crate::tls::Tls;
use crate::tls::open::Layer;
use crate::tls::pump::Pump;

const SUITES: [SupportedCipherSuite; 3] = [
    rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
    rustls::crypto::ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
    rustls::crypto::ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

const NAME: &str = "hub.example";

/// Both sides' configuration, of one CA and one suite.
struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Configs {
    fn of(suite: SupportedCipherSuite) -> Self {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![suite],
            ..rustls::crypto::ring::default_provider()
        });
        let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&ca_key).unwrap().into()).unwrap();
        let roots = Arc::new(roots);
        let ca = Issuer::new(params, ca_key);
        let leaf = CertificateParams::new([NAME.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let leaf = vec![CertificateDer::from(leaf)];
        let key = || PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .unwrap();
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(leaf.clone(), key())
            .unwrap();
        server.enable_secret_extraction = true;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(leaf, key())
            .unwrap();
        client.enable_secret_extraction = true;
        Self { client: Arc::new(client), server: Arc::new(server) }
    }

    /// A handshake that is over, with rustls's client; `behind` is what that sends with the last of it.
    fn with_rustls(&self, behind: &[u8]) -> (ClientConnection, Pump, Vec<u8>) {
        let mut client = ClientConnection::new(Arc::clone(&self.client), NAME.try_into().unwrap()).unwrap();
        let mut server = Pump::new(Arc::clone(&self.server), 0).unwrap();
        let mut left = Vec::new();
        while server.is_handshaking() {
            if !client.is_handshaking() {
                std::io::Write::write_all(&mut client.writer(), behind).unwrap();
            }
            let mut up = mem::take(&mut left);
            up.extend(written(&mut client));
            let mut down = Vec::new();
            let (taken, _) = server.take(&mut up, &mut down, |_| panic!("said amid the handshake")).unwrap();
            left = up.split_off(taken);
            hear(&mut client, &down);
        }
        (client, server, left)
    }
}

fn written(client: &mut ClientConnection) -> Vec<u8> {
    let mut up = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut up).unwrap();
    }
    up
}

/// What the client makes of these bytes.
fn hear(client: &mut ClientConnection, mut down: &[u8]) -> Vec<u8> {
    let mut said = Vec::new();
    while !down.is_empty() {
        client.read_tls(&mut down).unwrap();
        let state = client.process_new_packets().unwrap();
        let mut part = vec![0; state.plaintext_bytes_to_read()];
        std::io::Read::read_exact(&mut client.reader(), &mut part).unwrap();
        said.extend(part);
    }
    said
}

/// A device and a server that have shaken hands.
struct Pair {
    client: ClientConnection,
    server: Tls,
}

impl Pair {
    fn of(suite: SupportedCipherSuite) -> Self {
        let (client, pump, left) = Configs::of(suite).with_rustls(b"");
        assert!(left.is_empty());
        Self { client, server: Tls::open(pump).unwrap() }
    }

    /// The device says it; what the server hears, and how it goes on. What that sends besides is heard.
    fn up(&mut self, said: &[u8]) -> (Vec<u8>, Progress) {
        std::io::Write::write_all(&mut self.client.writer(), said).unwrap();
        let (mut heard, mut out) = (Vec::new(), Vec::new());
        let mut up = written(&mut self.client);
        let (taken, progress) =
            self.server.take(&mut up, &mut out, |said| heard.extend_from_slice(said)).unwrap();
        assert_eq!(taken, up.len());
        assert!(out.is_empty(), "nobody asked");
        (heard, progress)
    }

    /// The server says it; what the device hears.
    fn down(&mut self, said: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.server.say(said, &mut [], &mut out).unwrap();
        hear(&mut self.client, &out)
    }
}

#[test]
fn both_sides_hear_each_other_in_every_suite() {
    for suite in SUITES {
        let mut pair = Pair::of(suite);
        assert!(matches!(pair.server.layer, Layer::Own(_)));
        let long: Vec<u8> = (0..50_000_u32).map(|n| n as u8).collect();
        for said in [b"ping".as_slice(), &[0], &long] {
            assert_eq!(pair.up(said), (said.to_vec(), Progress::Open), "{suite:?}");
            assert_eq!(pair.down(said), said, "{suite:?}");
        }
    }
}

#[test]
fn what_comes_with_the_end_of_the_handshake_is_heard_once() {
    let (_, pump, mut left) = Configs::of(SUITES[0]).with_rustls(b"hello");
    let (mut server, mut heard) = (Tls::open(pump).unwrap(), Vec::new());
    let (taken, progress) =
        server.take(&mut left, &mut Vec::new(), |said| heard.extend_from_slice(said)).unwrap();
    assert_eq!((taken, progress, heard.as_slice()), (left.len(), Progress::Open, &b"hello"[..]));
}

#[test]
fn keys_are_renewed_by_either_side() {
    for suite in SUITES {
        let mut pair = Pair::of(suite);
        for round in 0..40 {
            pair.client.refresh_traffic_keys().unwrap();
            assert_eq!(pair.up(b"up").0, b"up", "{round}");
            assert!(records(&mut pair.server).update_due);
            assert_eq!(pair.down(b"down"), b"down", "{round}");
            assert!(!records(&mut pair.server).update_due);
        }
    }
}

#[test]
fn key_is_renewed_before_it_is_used_up() {
    let mut pair = Pair::of(SUITES[0]);
    let limit = records(&mut pair.server).limit();
    assert_eq!(limit, 1 << 24);
    // rustls's client cannot be set forward to meet it, so what it is sent is only measured.
    records(&mut pair.server).outgoing.next = limit - 1;
    let mut record = |said: &[u8]| {
        let mut out = Vec::new();
        pair.server.say(said, &mut [], &mut out).unwrap();
        out.len()
    };
    let (one, renewal) = (HEADER + 1 + 1 + TAG, HEADER + 5 + 1 + TAG);
    assert_eq!([record(b"a"), record(b"b"), record(b"c")], [one, renewal + one, one]);
    assert_eq!(records(&mut pair.server).outgoing.next, 2);
}

#[test]
fn each_side_closes_and_the_other_is_answered() {
    let mut pair = Pair::of(SUITES[0]);
    pair.client.send_close_notify();
    assert_eq!(pair.up(b"").1, Progress::PeerClosed);
    assert_eq!(pair.down(b"bye"), b"bye");
    let mut out = Vec::new();
    pair.server.close(&mut [], &mut out);
    let read = pair.client.read_tls(&mut out.as_slice());
    assert!(read.is_ok() && pair.client.process_new_packets().unwrap().peer_has_closed());
    // Said once, and then nothing more.
    pair.server.close(&mut [], &mut out);
    assert_eq!(out.len(), HEADER + 2 + 1 + TAG);
    assert!(pair.server.say(b"more", &mut [], &mut out).is_err());
    let mut more = vec![23, 3, 3, 0, 0];
    assert_eq!(pair.server.take(&mut more, &mut out, |_| panic!()), Ok((5, Progress::PeerClosed)));
}

fn records(tls: &mut Tls) -> &mut Records {
    match &mut tls.layer {
        Layer::Own(records) => records,
        Layer::Rustls(_) => panic!("these are rustls's"),
    }
}

/// A device that seals what it likes.
struct Forger {
    outgoing: Direction,
    incoming: Direction,
    keys: KernelConnection<rustls::client::ClientConnectionData>,
}

impl Forger {
    /// Has shaken hands, as everybody does.
    fn new(configs: &Configs) -> (Self, Pump) {
        let mut client =
            UnbufferedClientConnection::new(Arc::clone(&configs.client), NAME.try_into().unwrap()).unwrap();
        let mut server = Pump::new(Arc::clone(&configs.server), 0).unwrap();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while client.is_handshaking() || server.is_handshaking() {
            step(&mut client, &mut down, &mut up);
            let (taken, _) = server.take(&mut up, &mut down, |_| {}).unwrap();
            up.drain(..taken);
        }
        let (ExtractedSecrets { rx, tx }, keys) = client.dangerous_into_kernel_connection().unwrap();
        (Self { outgoing: Direction::from(tx), incoming: Direction::from(rx), keys }, server)
    }

    fn send(&mut self, step: &Step, out: &mut Vec<u8>) {
        let (kind, content, zeros) = match step {
            Step::Data(said, zeros) => (23, said.clone(), *zeros),
            Step::Alert(level, description) => (21, vec![*level, *description], 0),
            Step::KeyUpdate(request) => (22, vec![24, 0, 0, 1, *request], 0),
            Step::Piece(bytes) => (22, bytes.clone(), 0),
            Step::Other(kind, bytes) => (*kind, bytes.clone(), 0),
            Step::Zeros(count) => (0, vec![0; *count], 0),
            Step::Changed(said) => (23, said.clone(), 0),
            Step::Bare(bytes) => return out.extend_from_slice(bytes),
        };
        let start = out.len();
        self.seal(&[content.as_slice(), &[kind], &vec![0; zeros]].concat(), out);
        match step {
            Step::Changed(_) => *out.last_mut().unwrap() ^= 1,
            Step::KeyUpdate(..=1) => {
                self.outgoing = Direction::from(self.keys.update_tx_secret().unwrap());
            }
            _ => assert!(out.len() > start),
        }
    }

    fn seal(&mut self, inner: &[u8], out: &mut Vec<u8>) {
        let [high, low] = u16::try_from(inner.len() + TAG).unwrap().to_be_bytes();
        let header = [23, 3, 3, high, low];
        let mut sealed = inner.to_vec();
        let tag = self
            .outgoing
            .protected(|key, nonce| key.seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed));
        assert_eq!(tag, Ok(Ok(())));
        out.extend_from_slice(&header);
        out.extend_from_slice(&sealed);
    }

    /// The last alert that came, of one record that says nothing else.
    fn alert(&mut self, sealed: &[u8]) -> AlertDescription {
        let (header, sealed) = sealed.split_first_chunk::<HEADER>().unwrap();
        let mut sealed = sealed.to_vec();
        match self.incoming.open(*header, &mut sealed) {
            Ok((ContentType::Alert, &[FATAL, description])) => description.into(),
            _ => panic!("no alert"),
        }
    }
}

/// Has rustls's client go on as far as it comes.
fn step(client: &mut UnbufferedClientConnection, down: &mut Vec<u8>, up: &mut Vec<u8>) {
    loop {
        let UnbufferedStatus { discard, state } = client.process_tls_records(down);
        let over = match state.unwrap() {
            ConnectionState::EncodeTlsData(mut data) => {
                let start = up.len();
                up.resize(start + (1 << 14), 0);
                let len = data.encode(&mut up[start..]).unwrap();
                up.truncate(start + len);
                false
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                false
            }
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => true,
            other => panic!("{other:?}"),
        };
        down.drain(..discard);
        if over {
            return;
        }
    }
}

/// What a device may send.
#[derive(Clone, Debug)]
enum Step {
    Data(Vec<u8>, usize),
    Alert(u8, u8),
    KeyUpdate(u8),
    /// Some of the handshake's bytes, whatever they mean.
    Piece(Vec<u8>),
    /// A record of another type.
    Other(u8, Vec<u8>),
    /// One that has no type.
    Zeros(usize),
    /// One that was changed on its way.
    Changed(Vec<u8>),
    /// What is not encrypted.
    Bare(Vec<u8>),
}

/// What a server hears of `steps` until it hears no more; whether that is because the device closed, and what is sent to it.
fn heard_of(tls: &mut Tls, forger: &mut Forger, steps: &[Step], cut: usize) -> (Vec<u8>, End, Vec<u8>) {
    let (mut sent, mut heard, mut out) = (Vec::new(), Vec::new(), Vec::new());
    steps.iter().for_each(|step| forger.send(step, &mut sent));
    let mut rest = Vec::new();
    for part in sent.chunks(cut) {
        rest.extend_from_slice(part);
        match tls.take(&mut rest, &mut out, |said| heard.extend_from_slice(said)) {
            Ok((taken, Progress::Open)) => drop(rest.drain(..taken)),
            Ok((_, Progress::PeerClosed)) => return (heard, End::Closed, out),
            Ok((_, Progress::Handshaking)) => panic!("hands were shaken"),
            Err(_) => return (heard, End::Broken, out),
        }
    }
    (heard, End::None, out)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    None,
    Closed,
    Broken,
}

/// What a device is told of what it did, in one record behind nothing else.
fn told(steps: &[Step]) -> AlertDescription {
    let (mut forger, pump) = Forger::new(&Configs::of(SUITES[0]));
    let (_, end, out) = heard_of(&mut Tls::open(pump).unwrap(), &mut forger, steps, usize::MAX);
    assert_eq!(end, End::Broken, "{steps:?}");
    forger.alert(&out)
}

#[test]
fn device_is_told_what_it_broke() {
    use AlertDescription::*;
    let piece = |bytes: &[u8]| Step::Piece(bytes.to_vec());
    let data = || Step::Data(b"x".to_vec(), 0);
    let updates = vec![Step::KeyUpdate(0); usize::from(MAX_UPDATES) + 1];
    let too_long = Step::Data(vec![7; MAX_CONTENT + 1], 0);
    for (steps, alert) in [
        (vec![Step::Changed(b"x".to_vec())], BadRecordMac),
        (vec![Step::Bare(vec![23, 3, 3, 0, 3, 1, 2, 3])], BadRecordMac),
        (vec![Step::Bare(vec![23, 3, 3, 0, 0])], BadRecordMac),
        (vec![Step::Bare(vec![21, 3, 3, 0, 2, 1, 0])], UnexpectedMessage),
        (vec![Step::Bare(vec![20, 3, 3, 0, 1, 1])], UnexpectedMessage),
        (vec![Step::Bare(b"GET / HTTP/1.1".to_vec())], UnexpectedMessage),
        (vec![Step::Bare(vec![23, 23, 3, 3, 0])], DecodeError),
        // Before it is all there.
        (vec![Step::Bare(vec![23, 3, 3, 0x41, 0x01])], RecordOverflow),
        (vec![too_long], RecordOverflow),
        (vec![Step::Zeros(0)], UnexpectedMessage),
        (vec![Step::Zeros(40)], UnexpectedMessage),
        (vec![Step::Other(20, vec![1])], UnexpectedMessage),
        (vec![Step::Other(99, vec![1])], UnexpectedMessage),
        (vec![Step::Other(21, vec![])], DecodeError),
        (vec![Step::Other(21, vec![1, 0, 0])], DecodeError),
        (vec![piece(&[])], UnexpectedMessage),
        (vec![piece(&[1, 0, 0, 0])], UnexpectedMessage),
        (vec![piece(&[24, 0, 0, 2, 0, 0])], DecodeError),
        (vec![piece(&[24, 0, 0, 1, 0, 24])], UnexpectedMessage),
        (vec![piece(&[24, 0]), data()], UnexpectedMessage),
        (vec![Step::KeyUpdate(2)], IllegalParameter),
        (updates, UnexpectedMessage),
    ] {
        assert_eq!(told(&steps), alert, "{steps:?}");
    }
}

#[test]
fn device_that_gives_up_is_not_answered() {
    let (mut forger, pump) = Forger::new(&Configs::of(SUITES[0]));
    let mut tls = Tls::open(pump).unwrap();
    let (mut sent, mut out) = (Vec::new(), Vec::new());
    forger.send(&Step::Alert(FATAL, AlertDescription::BadRecordMac.into()), &mut sent);
    let taken = tls.take(&mut sent, &mut out, |_| panic!("nothing was said"));
    assert_eq!(taken, Err(Error::AlertReceived(AlertDescription::BadRecordMac)));
    tls.close(&mut [], &mut out);
    assert!(out.is_empty() && tls.say(b"x", &mut [], &mut out).is_err());
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let few = || vec(any::<u8>(), 0..40);
    let key_update = || (1_usize..5).prop_map(|len| Step::Piece([24, 0, 0, 1, 0][..len].to_vec()));
    let step = prop_oneof![
        8 => (few(), 0_usize..40).prop_map(|(said, zeros)| Step::Data(said, zeros)),
        1 => (MAX_CONTENT - 2..MAX_CONTENT + 2).prop_map(|len| Step::Data(vec![7; len], 0)),
        4 => (0_u8..2).prop_map(Step::KeyUpdate),
        1 => any::<u8>().prop_map(Step::KeyUpdate),
        1 => key_update(),
        1 => vec(any::<u8>(), 1..12).prop_map(Step::Piece),
        // Of close_notify and user_canceled rustls wants the level, and of the latter no more than four.
        1 => Just(Step::Alert(WARNING, 0)),
        1 => (Just(FATAL), 1_u8..90).prop_map(|(level, what)| Step::Alert(level, what)),
        1 => (any::<u8>(), few()).prop_map(|(kind, bytes)| Step::Other(kind, bytes)),
        1 => (0_usize..40).prop_map(Step::Zeros),
        1 => few().prop_map(Step::Changed),
        1 => few().prop_map(Step::Bare),
    ];
    // rustls judges a message once it has its length, and here its first byte is judged: so each has an end.
    vec(step, 1..12).prop_map(|mut steps| {
        steps.push(Step::Data(b"end".to_vec(), 0));
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// However it is cut, the same is heard as by rustls, to the same end.
    #[test]
    fn same_is_heard_as_by_rustls(steps in steps(), suite in 0_usize..3, cut in 1_usize..200) {
        let configs = Configs::of(SUITES[suite]);
        let mut outcomes = [false, true].map(|own| {
            let (mut forger, pump) = Forger::new(&configs);
            let mut tls = Tls::open(pump).unwrap();
            if !own {
                let (other, pump) = Forger::new(&configs);
                forger = other;
                tls.layer = Layer::Rustls(Box::new(pump));
            }
            let (heard, end, _) = heard_of(&mut tls, &mut forger, &steps, cut);
            (heard, end)
        });
        let [rustls, own] = &mut outcomes;
        prop_assert_eq!(rustls, own);
    }
}
