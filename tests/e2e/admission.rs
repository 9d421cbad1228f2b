//! The server among peers that stall, flood and babble: the honest are served meanwhile, the others cost what they should,
//! and nothing is left of them.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use moorline_protocol::{DeviceMessage, Imei, ServerMessage, classic, server_goodbye};
use moorline_testbed::certs::Pki;
use moorline_testbed::client::{Client, Settings, hello};
use moorline_testbed::failure::Failure;
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::{IMEI, Rig, Server};
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
fn hello_in_single_bytes_is_a_hello() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut client = settings(rig.pki())?.connect(server.devices())?;
    let mut frame = [0; DeviceMessage::MAX_ENCODED];
    let len = DeviceMessage::Hello(hello(imei()?)).encode(&mut frame)?;
    for byte in &frame[..len] {
        client.send_bytes(std::slice::from_ref(byte))?;
    }
    assert!(matches!(client.hear()?, Some(ServerMessage::Welcome(_))));
    Ok(())
}

#[test]
fn requests_in_one_write_are_answered_each() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut native = welcome(&server, &settings(rig.pki())?)?;
    let mut frame = [0; DeviceMessage::MAX_ENCODED];
    let mut flood = Vec::new();
    for n in 0..200 {
        let message =
            if n % 2 == 0 { DeviceMessage::Heartbeat } else { DeviceMessage::TimeRequest { t1: n } };
        let len = message.encode(&mut frame)?;
        flood.extend_from_slice(&frame[..len]);
    }
    native.send_bytes(&flood)?;
    for n in 0..200 {
        match (n % 2, native.hear()?) {
            (0, Some(ServerMessage::HeartbeatAck)) => {}
            (1, Some(ServerMessage::Time(time))) if time.t1 == n => {}
            (_, other) => panic!("answer {n} is {other:?}"),
        }
    }

    let mut classic = settings(rig.pki())?.offering(&[]).connect(server.devices())?;
    classic.send_bytes(&classic::Request::Heartbeat.encode().repeat(200))?;
    let answer = classic::Reply { message: classic::id::HEARTBEAT, error: classic::code::OK, payload: &[] };
    assert_eq!(classic.hear_bytes(200 * answer.encode().len())?, answer.encode().repeat(200));
    Ok(())
}

#[test]
fn babble_ends_the_session_and_nothing_else() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let settings = settings(rig.pki())?;
    let cases: [(&str, &[u8]); 8] = [
        ("length 0", &[0]),
        ("length over the limit", &[0xff, 0x7f]),
        ("length of three bytes", &[0xff, 0xff, 0x7f]),
        ("length not in its shortest form", &[0x81, 0x00, 1]),
        ("second Hello", &[]),
        ("bytes left over", &[2, 1, 1]),
        ("fields that do not fit", &[1, 2]),
        ("no discriminant", &[5, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ];
    for (what, bytes) in cases {
        let mut client = welcome(&server, &settings)?;
        match bytes {
            [] => client.say_hello(imei()?)?,
            bytes => client.send_bytes(bytes)?,
        }
        match client.hear() {
            Ok(Some(ServerMessage::Goodbye(goodbye))) => {
                assert_eq!(goodbye.reason, server_goodbye::PROTOCOL_ERROR, "{what}");
            }
            other => panic!("{what}: no Goodbye but {other:?}"),
        }
        assert_eq!(client.end(), "closed", "{what}");
    }
    // A message from a version to come is skipped.
    let mut newer = welcome(&server, &settings)?;
    newer.send_bytes(&[3, 99, 1, 2])?;
    newer.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(newer.hear()?, Some(ServerMessage::HeartbeatAck));
    Ok(())
}

#[test]
fn classic_babble_ends_the_session_and_nothing_else() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let settings = settings(rig.pki())?.offering(&[]);
    for bytes in [[0, 0, 0, 0], [0, 0, 0, 1], [0xff, 0xff, 0xff, 0xff], [0, 1, 0, 1]] {
        let mut client = settings.connect(server.devices())?;
        client.send_bytes(&bytes)?;
        assert_eq!(client.end(), "closed", "{bytes:?}");
    }
    let mut client = settings.connect(server.devices())?;
    // 60,000 bytes of a message nobody knows pass by, and are answered.
    client.send_bytes(&[&60_000_u32.to_be_bytes()[..], &[0, 77], &[1; 59_998]].concat())?;
    assert_eq!(client.hear_bytes(6)?, [0, 0, 0, 2, 77, 0xff]);
    Ok(())
}

#[test]
fn bytes_behind_tls_end_the_connection() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let settings = settings(rig.pki())?;
    let client = welcome(&server, &settings)?;
    client.socket().write_all(b"these are no records, not even nearly")?;
    server.wait_for("the connection was lost")?;
    let client = welcome(&server, &settings)?;
    // Half a record, and then nothing more.
    client.socket().write_all(&[23, 3, 3, 0, 40, 1, 2, 3])?;
    client.socket().shutdown(Shutdown::Write)?;
    server.wait_for("the connection was lost")?;
    welcome(&server, &settings).map(drop)
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
