//! How the agent stands by its session and comes back to it: lines that go dark or are cut, servers that stop.

use std::fs;
use std::time::Duration;

use moorline_testbed::failure::Failure;
use moorline_testbed::process::PATIENCE;
use moorline_testbed::relay::Relay;
use moorline_testbed::rig::{IMEI, Rig};

/// The promise is one second from the signal to the end; the rest is for a busy machine.
const STOP: Duration = Duration::from_millis(1500);

#[test]
fn it_stops_while_the_line_is_dark() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let relay = Relay::start(server.devices());
    let mut agent = rig.agent(relay.address(), IMEI)?.start()?;
    agent.wait_for("registered")?;
    relay.set_dark(true);
    // Deref: not `Agent::stop`, which is more patient.
    (*agent).stop(STOP)
}

/// Neither the agent's log nor its ports tell anybody more than they should.
#[test]
fn agent_listens_on_nothing_and_tells_no_secret() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let device = rig.pki().device(IMEI.parse()?)?;
    let mut agent = rig.agent(server.devices(), IMEI)?.certified(&device).start()?;
    agent.wait_for("registered")?;
    let process = format!("/proc/{}", agent.id());
    let sockets: Vec<_> = fs::read_dir(format!("{process}/fd"))?
        .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
        .filter_map(|to| Some(to.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    let mut states = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let table = fs::read_to_string(format!("{process}/net/{table}"))?;
        // Fields of proc_net_tcp(5): the state is the fourth, the inode the tenth.
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let own = rows.filter(|row| row.get(9).is_some_and(|inode| sockets.iter().any(|own| own == inode)));
        states.extend(own.map(|row| row[3].to_owned()));
    }
    assert_eq!(states, ["01"], "one connection that stands, and nothing that listens");
    agent.stop()?;
    let key = fs::read_to_string(&device.key)?;
    let secrets: Vec<_> = key.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(!secrets.is_empty() && !secrets.iter().any(|secret| agent.said(secret)), "{:#?}", agent.lines());
    Ok(())
}

#[test]
fn silence_ends_a_session_and_light_brings_it_back() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let relay = Relay::start(server.devices());
    let mut agent = rig.agent(relay.address(), IMEI)?.start()?;
    agent.wait_for("registered")?;
    relay.set_dark(true);
    agent.wait_for("no answer for")?;
    agent.wait_for("online -> offline: next try in")?;
    relay.set_dark(false);
    relay.cut();
    agent.wait_for_within("registered", Duration::from_secs(60))?;
    agent.stop()
}

#[test]
fn reconnect_resumes_the_tls_session() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let relay = Relay::start(server.devices());
    let mut agent = rig.agent(relay.address(), IMEI)?.set("heartbeat.interval", "1h").start()?;
    agent.wait_for("registered")?;
    agent.wait_for("the server's time is")?;
    let full = relay.bytes();
    relay.cut();
    agent.wait_for_within("registered", Duration::from_secs(60))?;
    agent.wait_for("the server's time is")?;
    let resumed = relay.bytes().since(full);
    // The certificate and its proof, some 700 bytes, are what a full handshake sends beside.
    assert!(resumed.up + 300 < full.up, "full {full:?}, resumed {resumed:?}");
    agent.stop()
}

#[test]
fn stopping_server_is_heard_and_found_again() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("registered")?;
    server.stop()?;
    agent.wait_for("the server said goodbye: it stops or restarts")?;
    server.start_again()?;
    agent.wait_for_within("registered", PATIENCE + Duration::from_secs(60))?;
    agent.stop()
}
