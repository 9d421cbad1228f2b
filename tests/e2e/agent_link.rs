//! How the agent stands by its session and comes back to it: lines that go dark or are cut, servers that stop.

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
