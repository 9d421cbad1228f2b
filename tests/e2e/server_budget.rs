//! What a session and a heartbeat cost the server's heap: exact, so that it does not grow unseen. What all of it comes to in
//! a process is `moorline-bench`'s matter.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use moorline_protocol::{DeviceMessage, Imei};
use moorline_server::clock::now;
use moorline_server::session::{Binding, Dialect, Event, MAX_TRANSMIT, Policy, Session};
use moorline_server::tls::{Progress, Tls, TlsSettings, TlsSource};
use moorline_testbed::certs::Pki;
use moorline_testbed::client::{Settings, hello};
use moorline_testbed::failure::Failure;
use moorline_testbed::rig::IMEI;
use rustls::ClientConnection;

/// A device and the server's part of its session, in memory.
struct Pair {
    client: ClientConnection,
    tls: Tls,
    session: Session,
    /// What the server's part of TLS holds on the heap.
    held: i64,
    frame: [u8; MAX_TRANSMIT],
    records: Vec<u8>,
}

impl Pair {
    /// Registered.
    fn new() -> Result<Self, Failure> {
        let (pki, imei) = (Pki::new()?, IMEI.parse::<Imei>()?);
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
        let config = Arc::new(Settings::new(&pki, Some(&pki.device(imei)?))?.into_config());
        // One before, for what is set up once.
        connect(&source, &config)?;
        let (client, tls, held) = connect(&source, &config)?;
        let policy = Policy {
            binding: Binding::Required,
            heartbeat_min: Duration::from_secs(1),
            heartbeat_max: Duration::from_secs(60),
            classic_idle: Duration::from_secs(60),
            first_message: Duration::from_secs(30),
            spread: Duration::from_secs(1),
            time_zone: TimeZone::UTC,
        };
        let session = Session::new(Dialect::Native, Some(imei), Arc::new(policy), now());
        let records = Vec::with_capacity(1024);
        let mut pair = Self { client, tls, session, held, frame: [0; MAX_TRANSMIT], records };
        let mut said = [0; DeviceMessage::MAX_ENCODED];
        let len = DeviceMessage::Hello(hello(imei)).encode(&mut said)?;
        pair.exchange(&said[..len])?;
        Ok(pair)
    }

    /// What the device says and the server answers; how many allocations the server's part took.
    fn exchange(&mut self, said: &[u8]) -> Result<u64, Failure> {
        self.client.writer().write_all(said)?;
        let mut incoming = Vec::new();
        self.client.write_tls(&mut incoming)?;
        let Self { tls, session, frame, records, .. } = self;
        records.clear();
        let mut answered = Ok(());
        let allocated = allocation_counter::measure(|| {
            let mut len = 0;
            let taken = tls.take(&mut incoming, records, |mut said| {
                while !said.is_empty() {
                    session.handle_bytes(&mut said, now());
                    loop {
                        match (session.poll_transmit(frame, now()), session.poll_event()) {
                            (Some(written), _) => len = written,
                            (None, Some(Event::Registering(_))) => session.accept(1, Duration::ZERO),
                            (None, Some(_)) => {}
                            (None, None) => break,
                        }
                    }
                }
            });
            answered = taken.and_then(|_| tls.say(&frame[..len], &mut [], records));
        });
        answered?;
        self.client.read_tls(&mut self.records.as_slice())?;
        self.client.process_new_packets()?;
        Ok(allocated.count_total)
    }
}

/// Both ends after their handshake, and what the server's holds.
fn connect(
    source: &TlsSource,
    config: &Arc<rustls::ClientConfig>,
) -> Result<(ClientConnection, Tls, i64), Failure> {
    let mut client = ClientConnection::new(Arc::clone(config), "localhost".try_into()?)?;
    let mut begun = None;
    let mut held = allocation_counter::measure(|| begun = Some(source.accept())).bytes_current;
    let mut pump = begun.ok_or_else(|| Failure::new("nothing was begun"))??;
    loop {
        let (mut incoming, mut outgoing) = (Vec::new(), Vec::with_capacity(16 * 1024));
        while client.wants_write() {
            client.write_tls(&mut incoming)?;
        }
        let mut taken = Ok((0, Progress::Handshaking));
        held += allocation_counter::measure(|| taken = pump.take(&mut incoming, &mut outgoing, |_| ()))
            .bytes_current;
        let mut answer = outgoing.as_slice();
        while !answer.is_empty() {
            client.read_tls(&mut answer)?;
            client.process_new_packets()?;
        }
        if taken?.1 == Progress::Open {
            let mut tls = Err(rustls::Error::HandshakeNotComplete);
            held += allocation_counter::measure(|| tls = Tls::open(pump)).bytes_current;
            return Ok((client, tls?, held));
        }
    }
}

#[test]
fn heartbeat_allocates_nothing() -> Result<(), Failure> {
    let mut pair = Pair::new()?;
    for _ in 0..20 {
        assert_eq!(pair.exchange(&[1, 1])?, 0);
    }
    Ok(())
}

#[test]
fn established_tls_holds_little() -> Result<(), Failure> {
    let pair = Pair::new()?;
    let all = pair.held + i64::try_from(size_of::<Tls>())?;

    assert!((1_500..=2_200).contains(&all), "{all}");
    Ok(())
}
