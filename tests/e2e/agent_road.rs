//! The agent's road to a server: addresses that are dead, of either family and of one name, and servers that speak TLS
//! in their own way.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use moorline_protocol::{ALPN, DeviceMessage, Rejected, ServerMessage, device_goodbye};
use moorline_testbed::bare_server::{BareServer, read_to_close_notify};
use moorline_testbed::confined::{MOUNTS, confined, may_confine};
use moorline_testbed::failure::Failure;
use moorline_testbed::left_out::left_out;
use moorline_testbed::process::{PATIENCE, Program};
use moorline_testbed::rig::{AGENT_STOP, IMEI, Rig, free_address};
use moorline_testbed::service_manager::ServiceManager;
use rustix::process::Signal;

/// The promise is one second from the signal to the end; the rest is for a busy machine.
const STOP: Duration = Duration::from_millis(1500);

#[test]
fn dead_address_is_passed_over_without_a_backoff() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let dead = free_address()?;
    let setup = rig.agent(server.devices(), IMEI)?;
    let mut agent = with_addresses(setup, &[dead, server.devices()])?;
    agent.wait_for(&format!("{dead}: no connection: Connection refused"))?;
    agent.wait_for("registered")?;
    assert!(!agent.said("next try in"), "{:#?}", agent.lines());
    agent.stop(AGENT_STOP)
}

#[test]
fn device_registers_over_ipv6() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.set("listen.devices", "[::1]:0").start()?;
    assert!(server.devices().is_ipv6());
    // Without a name, so that the certificate has to be for the address.
    let mut agent = rig.agent(server.devices(), IMEI)?.unset("server.name").start()?;
    agent.wait_for("registered")?;
    let shown = server.operators().wait_online(IMEI, true)?;
    assert!(shown["address"].as_str().is_some_and(|address| address.starts_with("[::1]:")), "{shown}");
    agent.stop()
}

#[test]
fn every_address_of_a_name_is_tried() -> Result<(), Failure> {
    if !may_confine(MOUNTS) {
        left_out("this user may not mount (unshare --map-root-user --mount)");
        return Ok(());
    }
    let rig = Rig::new()?;
    let server = rig.server()?.set("listen.devices", "127.0.0.1:0").start()?;
    let hosts = rig.folder().join("hosts");
    fs::write(&hosts, "::1 gw.example.com\n127.0.0.1 gw.example.com\n")?;
    let port = server.devices().port();
    let setup = rig.agent(server.devices(), IMEI)?.set("server.address", format!("gw.example.com:{port}"));
    let script = "mount --bind \"$0\" /etc/hosts";
    let place = hosts.display().to_string();
    let mut agent = Program::start(&mut confined(MOUNTS, script, &place, &setup.command()?))?;
    agent.wait_for("-> resolving: gw.example.com")?;
    agent.wait_for(&format!("gw.example.com:{port} (::1): no connection: Connection refused"))?;
    agent.wait_for("registered")?;
    assert!(!agent.said("next try in"), "{:#?}", agent.lines());
    agent.stop(AGENT_STOP)
}

/// A server that knows another protocol ends the handshake with no_application_protocol.
#[test]
fn server_of_another_protocol_is_spoken_to_in_classic() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = BareServer::start(rig.pki(), &[b"other/1"])?;
    let mut agent = rig.agent(server.address()?, IMEI)?.start()?;
    assert!(server.accept().is_err(), "moorline/1 was offered");
    let mut device = server.accept()?;
    assert_eq!(device.conn.alpn_protocol(), None);
    let mut register = [0; 57];
    device.read_exact(&mut register)?;
    assert_eq!(&register[42..], IMEI.as_bytes());
    device.write_all(&[0, 0, 0, 2, 0, 0])?;
    agent.wait_for("the server does not speak moorline/1")?;
    agent.wait_for("TLS 1.3, classic")?;
    agent.wait_for("-> online")?;
    assert!(!agent.said("next try in"), "{:#?}", agent.lines());
    agent.stop()
}

#[test]
fn native_alone_is_no_classic() -> Result<(), Failure> {
    let rig = Rig::new()?;
    for protocols in [&[b"other/1".as_slice()][..], &[]] {
        let server = BareServer::start(rig.pki(), protocols)?;
        let mut agent = rig.agent(server.address()?, IMEI)?.set("server.protocol", "native").start()?;
        // Whether the handshake ends well here is the server's matter.
        let _ = server.accept();
        agent.wait_for("the server does not speak moorline/1; see `server.protocol`")?;
        agent.find("a wait of a minute or more", Duration::from_secs(5), |line| {
            ["next try in 1m", "next try in 2m"].iter().any(|wait| line.contains(wait)).then_some(())
        })?;
        agent.stop()?;
    }
    Ok(())
}

#[test]
fn it_stops_while_it_waits_for_the_next_try() -> Result<(), Failure> {
    let (rig, other) = (Rig::new()?, Rig::new()?);
    let server = BareServer::start(other.pki(), &[ALPN])?;
    let mut agent = rig.agent(server.address()?, IMEI)?.start()?;
    assert!(server.accept().is_err(), "its CA is another");
    // Which a retry does not mend: the next try is a minute away at least.
    agent.wait_for("-> offline: next try in")?;
    (*agent).stop(STOP)
}

#[test]
fn it_says_goodbye_while_it_registers() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = BareServer::start(rig.pki(), &[ALPN])?;
    let mut agent = rig.agent(server.address()?, IMEI)?.start()?;
    let mut device = server.accept()?;
    agent.wait_for("-> registering: TLS 1.3, native")?;
    agent.signal(Signal::TERM)?;
    let said = read_to_close_notify(&mut device)?;
    let mut goodbye = [0; DeviceMessage::MAX_ENCODED];
    let length = DeviceMessage::Goodbye { reason: device_goodbye::STOPPING }.encode(&mut goodbye)?;
    assert!(said.ends_with(&goodbye[..length]), "{said:x?}");
    drop(device);
    assert!(agent.wait_exit(STOP)?.success());
    Ok(())
}

#[test]
fn it_stops_though_the_server_talks_on() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = BareServer::start(rig.pki(), &[ALPN])?;
    let mut agent = rig.agent(server.address()?, IMEI)?.start()?;
    let mut device = server.accept()?;
    agent.wait_for("-> registering: TLS 1.3, native")?;
    agent.signal(Signal::TERM)?;
    read_to_close_notify(&mut device)?;
    let talk = thread::spawn(move || while device.write_all(&[0; 16_384]).is_ok() {});
    let ended = agent.wait_exit(STOP);
    drop(agent);
    // Its end is the agent's.
    let _ = talk.join();
    assert!(ended?.success());
    Ok(())
}

/// A line break in STATUS= would begin another assignment, such as MAINPID=.
#[test]
fn words_of_a_server_are_no_orders_to_systemd() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = BareServer::start(rig.pki(), &[ALPN])?;
    let mut systemd = ServiceManager::listen(&rig.folder().join("notify"), PATIENCE, |_| ())?;
    let mut agent = rig.agent(server.address()?, IMEI)?.under(&systemd).start()?;
    let mut device = server.accept()?;
    let text = "no\nMAINPID=1\u{1b}[2J".try_into().map_err(|_| Failure::new("too long"))?;
    let mut frame = [0; ServerMessage::MAX_ENCODED];
    let length = ServerMessage::Rejected(Rejected { code: 0, text }).encode(&mut frame)?;
    device.write_all(&frame[..length])?;
    let told = systemd.wait_for("the server rejected this device")?;
    assert!(told.starts_with("STATUS=") && told.contains("no\\nMAINPID=1\\u{1b}[2J (code 0)"), "{told}");
    let status = fs::read_to_string(agent.folder().join("status"))?;
    assert!(status.contains("no\\nMAINPID=1\\u{1b}[2J (code 0)"), "{status}");
    agent.stop()
}

#[test]
fn server_that_never_answers_a_greeting_is_left() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = BareServer::start(rig.pki(), &[ALPN])?;
    let mut agent = rig.agent(server.address()?, IMEI)?.set("heartbeat.timeout", "1s").start()?;
    let _device = server.accept()?;
    agent.wait_for("no answer for 2 s; its host took the question in, so the server is stuck")?;
    agent.wait_for("-> offline: next try in")?;
    agent.stop()
}

#[test]
fn public_roots_do_not_vouch_for_a_private_ca() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let setup = rig.agent(server.devices(), IMEI)?.features(&["webpki-roots"]).set("server.trust", "webpki");
    let output = setup.command()?.arg("check").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("trust      webpki (1"), "{said}");
    let mut agent = setup.start()?;
    agent.wait_for("the server's certificate is from another CA than those in `server.trust`")?;
    agent.wait_for("-> offline: next try in")?;
    agent.stop()
}

/// Starts it with several addresses, which are tried in this order.
fn with_addresses(
    setup: moorline_testbed::rig::AgentSetup,
    addresses: &[SocketAddr],
) -> Result<Program, Failure> {
    let mut command = setup.unset("server.address").command()?;
    let file =
        command.get_args().last().map(std::path::PathBuf::from).ok_or_else(|| Failure::new("no -c"))?;
    let several: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let text = fs::read_to_string(&file)?;
    let list = format!("[server]\naddress = [{}]\n", several.join(", "));
    fs::write(&file, text.replace("[server]\n", &list))?;
    Program::start(&mut command)
}
