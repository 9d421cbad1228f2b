//! The metrics as Prometheus scrapes them: named by its conventions, right, and no more series for a larger fleet.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::TcpStream;
use std::sync::Arc;

use moorline_protocol::{DeviceMessage, Imei, ServerMessage};
use moorline_testbed::certs::{DeviceFlaw, Pki};
use moorline_testbed::client::{Client, Settings};
use moorline_testbed::failure::Failure;
use moorline_testbed::process::PATIENCE;
use moorline_testbed::promtool;
use moorline_testbed::rig::{Rig, SERVER_NAME, Server};
use rustls::ClientConnection;

/// The device of such a number.
fn imei(number: u64) -> Result<Imei, Failure> {
    Ok(Imei::from_urn(&format!("urn:gsma:imei:00499901-{number:06}-0"))?)
}

/// Brings a device online, has it send a heartbeat, and returns it.
fn come_online(server: &Server, pki: &Pki, imei: Imei) -> Result<Client, Failure> {
    let mut client = Settings::new(pki, Some(&pki.device(imei)?))?.connect(server.devices())?;
    client.say_hello(imei)?;
    assert!(matches!(client.hear()?, Some(ServerMessage::Welcome(_))));
    client.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(client.hear()?, Some(ServerMessage::HeartbeatAck));
    Ok(client)
}

/// All that can happen to a device, to this and the next ones.
fn live(server: &Server, rig: &Rig, numbers: std::ops::Range<u64>) -> Result<Vec<Client>, Failure> {
    let pki = rig.pki();
    for number in numbers.clone() {
        let flawed = pki.flawed_device(imei(number)?, DeviceFlaw::Expired)?;
        let refused = Settings::new(pki, Some(&flawed))?.connect(server.devices());
        assert!(refused.is_err() || refused.is_ok_and(|mut client| client.end() != "closed"));
        let mut impostor =
            Settings::new(pki, Some(&pki.device(imei(number)?)?))?.connect(server.devices())?;
        impostor.say_hello(imei(number + 1000)?)?;
        assert!(matches!(impostor.hear()?, Some(ServerMessage::Rejected(_))));
    }
    numbers.map(|number| come_online(server, pki, imei(number)?)).collect()
}

/// The names and labels of all series.
fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

/// The value of a series, by its name and labels.
fn value(text: &str, series: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

/// The metrics, once so many events are stored.
fn scrape(server: &Server, events: usize) -> Result<String, Failure> {
    server.operators().wait_until("/api/events?limit=1000", &format!("{events} events"), |answer| {
        (answer["events"].as_array()?.len() >= events).then_some(())
    })?;
    server.operators().text("/metrics")
}

#[test]
fn metrics_stand_promtools_judgement() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let _devices = live(&server, &rig, 0..2)?;
    promtool::judge(&["check", "metrics"], &scrape(&server, 6)?)
}

#[test]
fn larger_fleet_has_no_more_series() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let few = live(&server, &rig, 0..2)?;
    // Their sessions end, so that this series is there too.
    drop(few);
    server.operators().wait_until("/api/events?limit=1000", "the ends", |answer| {
        let is_end = |event: &&serde_json::Value| event["kind"] == "offline";
        (answer["events"].as_array()?.iter().filter(is_end).count() == 2).then_some(())
    })?;
    let before = series(&scrape(&server, 8)?);
    let _many = live(&server, &rig, 2..40)?;
    let text = scrape(&server, 40)?;
    assert_eq!(before, series(&text));
    assert!(before.len() < 200, "{}", before.len());
    let digits = |line: &str| line.split(|c: char| !c.is_ascii_digit()).any(|run| run.len() >= 14);
    let named = text.lines().filter_map(|line| line.rsplit_once(' ')).find(|(series, _)| digits(series));
    assert_eq!(named, None, "an IMEI is a label");
    Ok(())
}

#[test]
fn what_devices_do_is_counted() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut devices = live(&server, &rig, 0..1)?;
    let before = scrape(&server, 3)?;
    for _ in 0..5 {
        devices[0].send(&DeviceMessage::Heartbeat)?;
        assert_eq!(devices[0].hear()?, Some(ServerMessage::HeartbeatAck));
    }
    let after = server.operators().text("/metrics")?;
    let grown = |series: &str| value(&after, series) - value(&before, series);
    assert_eq!(grown("moorline_heartbeats_total"), 5.0);
    assert_eq!(grown("moorline_frames_total{direction=\"received\"}"), 5.0);
    assert_eq!(grown("moorline_frames_total{direction=\"sent\"}"), 5.0);
    // Two bytes in a record of 24, as SPECIFICATION.md has it.
    assert_eq!(grown("moorline_tls_bytes_total{direction=\"received\"}"), 5.0 * 24.0);
    assert_eq!(grown("moorline_tls_bytes_total{direction=\"sent\"}"), 5.0 * 24.0);
    for (series, wanted) in [
        ("moorline_ready", 1.0),
        ("moorline_sessions{protocol=\"native\"}", 1.0),
        ("moorline_handshakes_total{result=\"ok\",reason=\"none\",kind=\"full\"}", 2.0),
        ("moorline_handshakes_total{result=\"ok\",reason=\"none\",kind=\"resumed\"}", 0.0),
        ("moorline_handshakes_total{result=\"failed\",reason=\"expired\",kind=\"full\"}", 1.0),
        ("moorline_handshake_seconds_count{kind=\"full\"}", 3.0),
        ("moorline_refusals_total{reason=\"identity_mismatch\"}", 1.0),
        ("moorline_events_total{kind=\"online\"}", 1.0),
        ("moorline_events_total{kind=\"identity_mismatch\"}", 1.0),
        ("moorline_store_queue_length", 0.0),
    ] {
        assert_eq!(value(&after, series), wanted, "{series}");
    }
    for series in [
        "process_cpu_seconds_total",
        "process_start_time_seconds",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "moorline_store_write_seconds_count",
    ] {
        assert!(value(&after, series) > 0.0, "{series}");
    }
    Ok(())
}

/// Waits until a series has this value.
#[track_caller]
fn wait_for(server: &Server, series: &str, wanted: f64) -> Result<(), Failure> {
    server.operators().wait_until("/readyz", &format!("{series} {wanted}"), |_| {
        let text = server.operators().text("/metrics").ok()?;
        (value(&text, series) == wanted).then_some(())
    })
}

/// SPECIFICATION.md has a bound for each of these.
#[test]
fn what_the_tables_hold_is_counted() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.set_number("tls.sessions", 3).start()?;
    let pki = rig.pki();
    let settings = Settings::new(pki, Some(&pki.device(imei(0)?)?))?;
    wait_for(&server, "moorline_tls_sessions_kept", 0.0)?;
    let mut first = settings.connect(server.devices())?;
    first.say_hello(imei(0)?)?;
    assert!(matches!(first.hear()?, Some(ServerMessage::Welcome(_))));
    wait_for(&server, "moorline_tls_sessions_kept", 1.0)?;
    wait_for(&server, "moorline_familiar_sources", 1.0)?;

    // The ticket goes and the next one comes; of those who come anew the latest are kept.
    let mut again = settings.connect(server.devices())?;
    again.say_hello(imei(0)?)?;
    assert!(matches!(again.hear()?, Some(ServerMessage::Welcome(_))));
    assert!(again.is_resumed());
    wait_for(&server, "moorline_tls_sessions_kept", 1.0)?;
    let _devices = live(&server, &rig, 1..5)?;
    wait_for(&server, "moorline_tls_sessions_kept", 3.0)?;

    let text = server.operators().text("/metrics")?;
    assert!(value(&text, "moorline_shared_texts") >= 1.0);
    assert!(value(&text, "moorline_operator_connections") >= 1.0);
    // SQLite's least is a page.
    assert!(value(&text, "moorline_store_bytes{file=\"database\"}") >= 4096.0);
    assert!(value(&text, "moorline_store_bytes{file=\"journal\"}") > 0.0);
    Ok(())
}

#[test]
fn handshake_that_stalls_is_counted_until_it_is_over() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let settings = Settings::new(rig.pki(), Some(&rig.pki().device(imei(0)?)?))?;
    wait_for(&server, "moorline_handshakes_begun", 0.0)?;
    #[expect(clippy::disallowed_methods, reason = "a device's socket on loopback")]
    let mut socket = TcpStream::connect(server.devices())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut connection = ClientConnection::new(Arc::new(settings.into_config()), SERVER_NAME.try_into()?)?;
    connection.write_tls(&mut socket)?;
    // The server has answered, so it has begun; and it waits for the device's half.
    socket.read_exact(&mut [0])?;
    wait_for(&server, "moorline_handshakes_begun", 1.0)?;
    wait_for(&server, "moorline_handshakes_waiting", 0.0)?;
    drop(socket);
    wait_for(&server, "moorline_handshakes_begun", 0.0)
}
