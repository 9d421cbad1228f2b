//! The server behind a load balancer that speaks the PROXY protocol, version 2: whom it believes, what it makes of broken
//! headers, and that health checks make no noise.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use moorline_protocol::{DeviceMessage, Imei, ServerMessage};
use moorline_testbed::client::{Client, Settings};
use moorline_testbed::failure::Failure;
use moorline_testbed::left_out::left_out;
use moorline_testbed::process::{PATIENCE, Program};
use moorline_testbed::rig::{IMEI, Rig, Server, free_address};
use serde_json::Value;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Where tests on loopback come from.
const HERE: &str = "127.0.0.1";

/// A header, byte by byte as the specification has it.
fn header(version_command: u8, transport: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    [SIGNATURE, &[version_command, transport], &length, body].concat()
}

/// The header for a device at 203.0.113.LAST, port 5678.
fn from(last: u8) -> Vec<u8> {
    header(0x21, 0x11, &[203, 0, 113, last, 10, 0, 0, 1, 0x16, 0x2e, 0x23, 0x81])
}

/// A balancer's connection on which it has said this.
#[expect(clippy::disallowed_methods, reason = "the balancer's socket")]
fn say(server: &Server, bytes: &[u8]) -> Result<TcpStream, Failure> {
    let mut socket = TcpStream::connect(server.devices())?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(bytes)?;
    Ok(socket)
}

fn settings(rig: &Rig) -> Result<Settings, Failure> {
    let imei: Imei = IMEI.parse()?;
    Settings::new(rig.pki(), Some(&rig.pki().device(imei)?))
}

fn register(settings: &Settings, socket: TcpStream) -> Result<Client, Failure> {
    let mut client = settings.connect_over(socket)?;
    client.say_hello(IMEI.parse()?)?;
    match client.hear()? {
        Some(ServerMessage::Welcome(_)) => Ok(client),
        other => Err(Failure::new(format!("no Welcome but {other:?}"))),
    }
}

/// Waits until the server has closed, with a FIN or with a reset for what it did not read.
fn closes(mut socket: TcpStream) -> Result<(), Failure> {
    match socket.read(&mut [0; 16]) {
        Ok(0) => Ok(()),
        Err(fault) if fault.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => Err(Failure::new(format!("it did not close: {other:?}"))),
    }
}

fn shown_address(server: &Server) -> Result<Value, Failure> {
    Ok(server.operators().wait_online(IMEI, true)?["address"].clone())
}

#[test]
fn device_is_where_the_balancer_says() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.set("listen.proxy_from", format!("{HERE}/32")).start()?;
    let settings = settings(&rig)?;
    let client = register(&settings, say(&server, &from(7))?)?;
    assert_eq!(shown_address(&server)?, "203.0.113.7:5678");
    server.wait_for(" online imei=004999010640000 session=1 address=203.0.113.7:5678")?;
    client.cut()?;

    // With TLVs behind the addresses, and each byte by itself.
    let v6 =
        [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &[0; 16], &[0, 7, 0, 8]].concat();
    let tlvs = [&[4, 2, 0][..], &[0; 512]].concat();
    let mut socket = say(&server, &[])?;
    for byte in header(0x21, 0x21, &[v6, tlvs].concat()) {
        socket.write_all(&[byte])?;
    }
    let client = register(&settings, socket)?;
    server.wait_for(" online imei=004999010640000 session=2 address=[2001:db8::9]:7")?;
    client.cut()?;
    let events = server.operators().wait_events(IMEI, &["online", "offline"])?;
    assert_eq!(events.last().map(|event| &event["address"]), Some(&Value::from("[2001:db8::9]:7")));

    // A balancer that tries the server as a device would is one, from its own address.
    let _client = register(&settings, say(&server, &header(0x20, 0, &[]))?)?;
    server.wait_for(&format!(" online imei=004999010640000 session=3 address={HERE}:"))?;
    Ok(())
}

#[test]
fn health_checks_make_no_noise() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.set("listen.proxy_from", "127.0.0.0/8").start()?;
    for _ in 0..20 {
        drop(say(&server, &[])?);
        drop(say(&server, &header(0x20, 0, &[]))?);
    }
    let _client = register(&settings(&rig)?, say(&server, &from(7))?)?;
    server.wait_for(" online imei=")?;
    server.stop()?;
    let noise: Vec<_> = server
        .lines()
        .into_iter()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .collect();
    assert!(noise.is_empty(), "{noise:#?}");
    Ok(())
}

#[test]
fn listed_balancer_has_to_introduce() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let cases: &[(&[u8], &str)] = &[
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "version 1 of the PROXY protocol: have the balancer send version 2",
        ),
        (&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc], "no PROXY protocol header begins the connection"),
        (&header(0x31, 0x11, &[0; 12]), "version 3 of the PROXY protocol is not known"),
        (&header(0x2f, 0x11, &[0; 12]), "no command 15"),
        (&header(0x21, 0x12, &[0; 12]), "for no TCP connection"),
        (&header(0x21, 0x21, &[0; 12]), "says 12 bytes, which is too short"),
        (&header(0x21, 0x11, &[0; 65_000]), "says 65000 bytes, more than 4096"),
        (&[], "no PROXY protocol header came within 3 s"),
    ];
    for (bytes, words) in cases {
        // Another one each time: a source has five lines a minute.
        let mut server = rig.server()?.set("listen.proxy_from", "127.0.0.0/8").start()?;
        let wrong = say(&server, &[])?;
        // It may be closed before all is written.
        let _ = (&wrong).write_all(bytes);
        closes(wrong)?;
        let line = server.wait_for(" refused: ")?;
        assert!(line.contains(words) && line.contains("reason=\"proxy_header\""), "{line}");
        register(&settings(&rig)?, say(&server, &from(7))?)?;
    }
    Ok(())
}

#[test]
fn others_are_not_believed() -> Result<(), Failure> {
    let rig = Rig::new()?;
    for listed in ["", "10.0.0.0/8"] {
        let setup = rig.server()?;
        let mut server =
            if listed.is_empty() { setup } else { setup.set("listen.proxy_from", listed) }.start()?;
        let mut socket = say(&server, &from(7))?;
        // The alert of TLS comes first, where it is not lost to a reset.
        let _ = socket.read(&mut [0; 64]);
        let line = server.wait_for(" refused: this is no TLS handshake")?;
        assert!(line.contains("reason=\"not_tls\"") && line.contains(&format!("address={HERE}:")), "{line}");
        let _client = register(&settings(&rig)?, say(&server, &[])?)?;
        assert!(shown_address(&server)?.as_str().is_some_and(|address| address.starts_with(HERE)));
    }
    Ok(())
}

#[test]
fn each_source_behind_the_balancer_has_its_own_share() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.set("listen.proxy_from", "127.0.0.0/8").start()?;
    // Five lines a minute are one source's share.
    for last in 1..=12 {
        let mut socket = say(&server, &from(last))?;
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        server.wait_for(&format!(" refused: this is no TLS handshake, it begins with \"GET / HTTP/1.1\\r\\n\" address=203.0.113.{last}:"))?;
    }
    Ok(())
}

#[test]
fn nothing_is_left_of_broken_headers() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.set("listen.proxy_from", "127.0.0.0/8").start()?;
    let descriptors = || Ok::<_, Failure>(fs::read_dir(format!("/proc/{}/fd", server.id()))?.count());
    let waiting = |server: &Server| -> Result<bool, Failure> {
        Ok(server.operators().text("/metrics")?.contains("\nmoorline_connections_waiting 0\n"))
    };
    let settings = settings(&rig)?;
    drop(register(&settings, say(&server, &from(7))?)?);
    server.operators().wait_online(IMEI, false)?;
    let before = descriptors()?;
    for round in 0..600_u32 {
        let bytes = header(0x21, 0x11, &[0; 4000]);
        let cut = usize::try_from(round)? * 7 % bytes.len();
        let socket = say(&server, bytes.get(..cut).unwrap_or_default())?;
        drop(socket);
    }
    // They are over when the last of them is; a device in between shows that the port is served.
    drop(register(&settings, say(&server, &from(8))?)?);
    server.operators().wait_online(IMEI, false)?;
    server.operators().wait_until("/readyz", "no connection waiting", |_| {
        waiting(&server).is_ok_and(|none| none).then_some(())
    })?;
    let after = descriptors()?;
    assert!(after <= before + 4, "{before} descriptors became {after}");
    Ok(())
}

/// Debian's haproxy, where it is installed.
#[test]
fn haproxy_introduces_devices_and_checks_in_silence() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.set("listen.proxy_from", "127.0.0.0/8").start()?;
    let (front, config) = (free_address()?, rig.folder().join("haproxy.cfg"));
    let text = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n\
         listen devices\n bind {front}\n server one {} send-proxy-v2 check inter 50ms\n",
        server.devices()
    );
    fs::write(&config, text)?;
    // As a master and its worker, for then it says when it listens.
    let started = Program::start(Command::new("haproxy").args(["-W", "-db", "-f"]).arg(&config));
    let Ok(mut haproxy) = started else {
        left_out("a real load balancer: haproxy is not installed (apt install haproxy)");
        return Ok(());
    };
    haproxy.wait_for("Loading success")?;
    #[expect(clippy::disallowed_methods, reason = "a device's socket on loopback")]
    let socket = TcpStream::connect(front)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let own = socket.local_addr()?;
    let mut client = register(&settings(&rig)?, socket)?;
    assert_eq!(shown_address(&server)?, own.to_string());
    for _ in 0..50 {
        client.send(&DeviceMessage::Heartbeat)?;
        assert_eq!(client.hear()?, Some(ServerMessage::HeartbeatAck));
    }
    drop(client);
    drop(haproxy);
    server.stop()?;
    let noise = server.lines().into_iter().filter(|line| line.contains(" WARN ")).collect::<Vec<_>>();
    assert!(noise.is_empty(), "{noise:#?}");
    Ok(())
}

#[test]
fn addresses_here_are_what_the_tests_think() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let local: SocketAddr = say(&server, &[])?.local_addr()?;
    assert_eq!(local.ip().to_string(), HERE);
    Ok(())
}
