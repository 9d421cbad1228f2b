//! Resumption as the server promises it, over weeks of virtual time: a real device's half of TLS, and the server's with a
//! clock that the test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moorline_protocol::Imei;
use moorline_server::clock::{Now, now};
use moorline_server::tls::{Device, Progress, Pump, TlsSettings, TlsSource};
use moorline_testbed::certs::{Credentials, Pki};
use moorline_testbed::client::Settings;
use moorline_testbed::failure::Failure;
use moorline_testbed::rig::IMEI;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection};

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// The server's clock. The device's stands still, so that it offers its ticket whatever its age: the promise is the server's.
#[derive(Debug)]
struct Clock(AtomicU64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

struct Stage {
    pki: Pki,
    source: TlsSource,
    clock: Arc<Clock>,
}

impl Stage {
    fn new(resumable: usize) -> Result<Self, Failure> {
        let pki = Pki::new()?;
        let server = pki.server()?;
        let clock = Arc::new(Clock(AtomicU64::new(u64::try_from(now().utc_ms)? / 1000)));
        let settings = TlsSettings {
            file: "server.toml".into(),
            certificate: server.certificate,
            key: server.key,
            client_ca: pki.ca(),
            crl: None,
            admit_tls12: false,
            resumable,
        };
        let source = TlsSource::by_clock(&settings, Arc::<Clock>::clone(&clock));
        Ok(Self { source: source.map_err(|mistakes| Failure::new(mistakes.to_string()))?, pki, clock })
    }

    fn credentials(&self) -> Result<Credentials, Failure> {
        self.pki.device(IMEI.parse::<Imei>()?)
    }

    fn device(&self) -> Result<Arc<ClientConfig>, Failure> {
        Ok(Arc::new(Settings::new(&self.pki, Some(&self.credentials()?))?.into_config()))
    }

    fn pass(&self, seconds: u64) {
        self.clock.0.fetch_add(seconds, Ordering::Relaxed);
    }

    /// One reconnect, up to the server's judgement.
    fn reconnect(&self, device: &Arc<ClientConfig>) -> Result<Device, Failure> {
        let utc_ms = i64::try_from(self.clock.0.load(Ordering::Relaxed) * 1000)?;
        let mut client = ClientConnection::new(Arc::clone(device), "localhost".try_into()?)?;
        let mut server = self.source.accept()?;
        while shake(&mut client, &mut server)? == Progress::Handshaking {}
        let judged = self.source.judge(&mut server, Now { utc_ms, ..now() });
        judged.map_err(|refusal| Failure::new(refusal.text))
    }
}

/// One flight up and its answer down.
fn shake(client: &mut ClientConnection, server: &mut Pump) -> Result<Progress, Failure> {
    let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
    while client.wants_write() {
        client.write_tls(&mut incoming)?;
    }
    let (_, progress) = server.take(&mut incoming, &mut outgoing, |_| ())?;
    let mut answer = outgoing.as_slice();
    while !answer.is_empty() {
        client.read_tls(&mut answer)?;
        client.process_new_packets()?;
    }
    Ok(progress)
}

#[test]
fn device_resumes_for_a_week_and_proves_its_key_again() -> Result<(), Failure> {
    let stage = Stage::new(16)?;
    let device = stage.device()?;
    let mut full_at = Vec::new();
    for hour in 0..500 {
        let shown = stage.reconnect(&device)?;
        assert_eq!(shown.certificate.named_imei(), Some(IMEI.parse()?), "whichever way it came");
        if !shown.resumed {
            full_at.push(hour);
        }
        stage.pass(HOUR);
    }
    // The 168th hour is still within the week.
    assert_eq!(full_at, [0, 169, 338]);
    Ok(())
}

#[test]
fn ticket_is_good_for_a_day() -> Result<(), Failure> {
    let stage = Stage::new(16)?;
    let device = stage.device()?;
    stage.reconnect(&device)?;
    stage.pass(DAY);
    assert!(stage.reconnect(&device)?.resumed);
    stage.pass(DAY + 1);
    assert!(!stage.reconnect(&device)?.resumed);
    Ok(())
}

#[test]
fn ticket_serves_once() -> Result<(), Failure> {
    let stage = Stage::new(16)?;
    let device = stage.device()?;
    stage.reconnect(&device)?;
    let mut client = ClientConnection::new(device, "localhost".try_into()?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    let resumed: Result<Vec<bool>, Failure> = (0..3)
        .map(|_| {
            let mut server = stage.source.accept()?;
            server.take(&mut hello.clone(), &mut Vec::new(), |_| ())?;
            Ok(server.is_resumed())
        })
        .collect();
    assert_eq!(resumed?, [true, false, false]);
    Ok(())
}

#[test]
fn chain_ends_with_the_certificate() -> Result<(), Failure> {
    let stage = Stage::new(16)?;
    let device = stage.device()?;
    let mut resumed = false;
    let expired = loop {
        match stage.reconnect(&device) {
            Ok(shown) => resumed |= shown.resumed,
            Err(failure) => break failure,
        }
        stage.pass(12 * HOUR);
    };
    assert!(resumed);
    // Not resumed and judged afterwards: the handshake itself says what is wrong, in TLS's own words.
    assert!(expired.to_string().contains("invalid peer certificate: certificate expired"), "{expired}");
    Ok(())
}

#[test]
fn newest_tickets_are_kept_of_more_than_there_is_room_for() -> Result<(), Failure> {
    let stage = Stage::new(16)?;
    let credentials = stage.credentials()?;
    let settings = || Settings::new(&stage.pki, Some(&credentials));
    let devices: Result<Vec<_>, Failure> = (0..20).map(|_| Ok(Arc::new(settings()?.into_config()))).collect();
    let devices = devices?;
    for device in &devices {
        assert!(!stage.reconnect(device)?.resumed);
    }
    let resumed: Result<Vec<_>, Failure> =
        devices.iter().rev().map(|device| Ok(stage.reconnect(device)?.resumed)).collect();
    assert_eq!(resumed?.iter().filter(|resumed| **resumed).count(), 16);
    Ok(())
}

#[test]
fn nothing_is_resumed_where_it_is_turned_off() -> Result<(), Failure> {
    let stage = Stage::new(0)?;
    let device = stage.device()?;
    stage.reconnect(&device)?;
    assert!(!stage.reconnect(&device)?.resumed);
    Ok(())
}
