//! The server among peers that stall, flood and babble: the honest are served meanwhile, the others cost what they should,
//! and nothing is left of them.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use moorline_protocol::{DeviceMessage, Imei, ServerMessage, server_goodbye};
use moorline_testbed::certs::Pki;
use moorline_testbed::client::{Client, Settings};
use moorline_testbed::failure::Failure;
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::{IMEI, Rig, SERVER_NAME, Server};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

fn imei() -> Result<Imei, Failure> {
    Ok(IMEI.parse()?)
}

fn settings(pki: &Pki) -> Result<Settings, Failure> {
    Settings::new(pki, Some(&pki.device(imei()?)?))
}

fn welcome(server: &Server, settings: &Settings) -> Result<Client, Failure> {
    let mut client = settings.connect(server.devices())?;
    client.say_hello(imei()?)?;
    match client.hear()? {
        Some(ServerMessage::Welcome(_)) => Ok(client),
        other => Err(Failure::new(format!("no Welcome but {other:?}"))),
    }
}

/// The beginning of a ClientHello that never goes on.
const STALLED: [u8; 9] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc];

#[expect(clippy::disallowed_methods, reason = "a peer that speaks no TLS")]
fn stall(server: SocketAddr, bytes: &[u8]) -> Result<TcpStream, Failure> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(bytes)?;
    Ok(socket)
}

/// The server's resident memory, KiB.
fn resident(server: &Server) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| Failure::new("no VmRSS"))
}

fn descriptors(server: &Server) -> Result<usize, Failure> {
    Ok(fs::read_dir(format!("/proc/{}/fd", server.id()))?.count())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what is promised is a time")]
fn stalled_handshakes_keep_nobody_out() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let settings = settings(rig.pki())?;
    // Once before, so that what the first handshake sets up for good is there.
    drop(welcome(&server, &settings)?);
    let (memory_before, open_before) = (resident(&server)?, descriptors(&server)?);

    let mut stalled = Vec::new();
    for n in 0..400 {
        // Some have said nothing, some a part.
        let said = &STALLED[..n % (STALLED.len() + 1)];
        stalled.push(stall(server.devices(), said)?);
    }
    let began = Instant::now();
    let mut honest = welcome(&server, &settings)?;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    honest.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(honest.hear()?, Some(ServerMessage::HeartbeatAck));
    assert!(descriptors(&server)? >= open_before + 400);

    // Each is let go when its time for a ClientHello is up, which it sees as the end of the connection.
    for socket in &mut stalled {
        assert_eq!(std::io::Read::read(socket, &mut [0])?, 0);
    }
    drop(stalled);
    let mut gone = settings.connect(server.devices())?;
    gone.say_hello(imei()?)?;
    assert!(matches!(gone.hear()?, Some(ServerMessage::Welcome(_))));
    let grown = resident(&server)?.saturating_sub(memory_before);
    assert!(grown < 4 * 1024, "{grown} KiB more than before");
    Ok(())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "peers that speak no TLS, and what is promised is a time")]
fn silent_connections_give_their_descriptors_to_devices() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let settings = settings(rig.pki())?;
    let mut stands = welcome(&server, &settings)?;
    // What the server has open, and twenty more; it has not been told, so accept itself fails.
    let few = Some(descriptors(&server)? as u64 + 20);
    let pid = Pid::from_raw(i32::try_from(server.id())?);
    prlimit(pid, Resource::Nofile, Rlimit { current: few, maximum: few })?;
    let mut stalled = Vec::new();
    for _ in 0..100 {
        // Some are sent away before they have said a word.
        let mut socket = TcpStream::connect(server.devices())?;
        let _ = socket.write_all(&STALLED);
        stalled.push(socket);
    }
    server.wait_for("descriptors run short: closed the connection that was silent for the longest")?;
    let other: Imei = "869731052403821".parse()?;
    let certified = rig.pki().device(other)?;
    let began = Instant::now();
    let mut honest = Settings::new(rig.pki(), Some(&certified))?.connect(server.devices())?;
    honest.say_hello(other)?;
    assert!(matches!(honest.hear()?, Some(ServerMessage::Welcome(_))));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    stands.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(stands.hear()?, Some(ServerMessage::HeartbeatAck));
    stalled[0].set_read_timeout(Some(PATIENCE))?;
    let oldest = std::io::Read::read(&mut stalled[0], &mut [0]).map_err(|error| error.kind());
    assert!(matches!(oldest, Ok(0) | Err(ErrorKind::ConnectionReset)), "the oldest goes first: {oldest:?}");
    Ok(())
}

#[test]
fn newest_session_of_a_device_wins() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let settings = settings(rig.pki())?;
    let mut older = welcome(&server, &settings)?;
    let mut newer = welcome(&server, &settings)?;
    match older.hear()? {
        Some(ServerMessage::Goodbye(goodbye)) => assert_eq!(goodbye.reason, server_goodbye::REPLACED),
        other => panic!("no Goodbye but {other:?}"),
    }
    newer.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(newer.hear()?, Some(ServerMessage::HeartbeatAck));
    Ok(())
}

#[test]
fn stopping_server_sends_everyone_home() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.set("session.spread", "60s").start()?;
    let imeis = ["004999010640000", "869731052403821", "015184008301272"];
    let mut clients = Vec::new();
    for text in imeis {
        let imei: Imei = text.parse()?;
        let certified = rig.pki().device(imei)?;
        let mut client = Settings::new(rig.pki(), Some(&certified))?.connect(server.devices())?;
        client.say_hello(imei)?;
        assert!(matches!(client.hear()?, Some(ServerMessage::Welcome(_))));
        clients.push(client);
    }
    // One that has not said anything must not hold it up.
    let _stalled = stall(server.devices(), &STALLED)?;
    server.signal(rustix::process::Signal::TERM)?;
    let mut waits = Vec::new();
    for client in &mut clients {
        match client.hear()? {
            Some(ServerMessage::Goodbye(goodbye)) => {
                assert_eq!(goodbye.reason, server_goodbye::STOPPING);
                waits.push(goodbye.retry_after_s);
            }
            other => panic!("no Goodbye but {other:?}"),
        }
        assert_eq!(client.end(), "closed");
    }
    assert!(server.wait_exit(Duration::from_secs(5))?.success());
    waits.dedup();
    assert_eq!(waits.len(), imeis.len(), "they return at once: {waits:?}");
    Ok(())
}

#[test]
fn welcome_and_goodbye_spread_what_handshakes_are_measured_to_take() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let certified = rig.pki().device(imei()?)?;
    // A client of its own has no ticket, so each is a full handshake.
    let client = || Settings::new(rig.pki(), Some(&certified));
    for _ in 0..40 {
        drop(welcome(&server, &client()?)?);
    }
    let mut client = client()?.connect(server.devices())?;
    client.say_hello(imei()?)?;
    match client.hear()? {
        Some(ServerMessage::Welcome(welcome)) => {
            assert_eq!(welcome.spread_s, 1, "session.spread is the least");
        }
        other => panic!("no Welcome but {other:?}"),
    }
    server.signal(rustix::process::Signal::TERM)?;
    let line = server.wait_for(" handshakes a second are possible")?;
    let rate: u32 = line.split_whitespace().rev().nth(5).unwrap_or_default().parse()?;
    // An unmeasured machine is taken to be good for 70 on each core.
    assert!(rate > 400, "{line}");
    Ok(())
}

/// A socket that comes from another source than the others of this test.
#[expect(clippy::disallowed_methods, reason = "std cannot bind a socket before it connects")]
fn connect_from_elsewhere(server: SocketAddr) -> Result<TcpStream, Failure> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 2], 0)))?;
    rustix::net::connect(&socket, &server)?;
    Ok(TcpStream::from(socket))
}

/// The server stands still while a thousand handshakes from one source come in, and one from another behind them; then it
/// goes on. First come, first served would have the one wait for all.
#[test]
fn flood_from_one_source_does_not_keep_another_waiting() -> Result<(), Failure> {
    const FLOOD: usize = 1000;
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let settings = settings(rig.pki())?;
    let config = std::sync::Arc::new(settings.clone().into_config());
    let mut hello = Vec::new();
    rustls::ClientConnection::new(config, SERVER_NAME.try_into()?)?.write_tls(&mut hello)?;

    server.signal(rustix::process::Signal::STOP)?;
    let mut flood = Vec::new();
    for _ in 0..FLOOD {
        let mut socket = connect_from_elsewhere(server.devices())?;
        socket.write_all(&hello)?;
        socket.set_nonblocking(true)?;
        flood.push(socket);
    }
    let going_on = std::thread::scope(|scope| {
        let honest = scope.spawn(|| welcome(&server, &settings));
        server.signal(rustix::process::Signal::CONT)?;
        honest.join().map_err(|_| Failure::new("the honest device panicked"))?
    });
    let mut honest = going_on?;
    let answered = flood.iter().filter(|socket| socket.peek(&mut [0]).is_ok_and(|len| len > 0)).count();
    assert!(answered < FLOOD / 2, "{answered} of {FLOOD} were served before the one");
    honest.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(honest.hear()?, Some(ServerMessage::HeartbeatAck));
    Ok(())
}
