//! A device and its server from end to end: real programs, real TLS, the native protocol, and what the operators see.

use std::time::Duration;

use moorline_protocol::Imei;
use moorline_testbed::failure::Failure;
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::{IMEI, Rig};
use moorline_testbed::service_manager::ServiceManager;
use serde_json::Value;

/// How often a service manager wants a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// Another device's.
const OTHER_IMEI: &str = "004999010640018";

#[test]
fn device_registers_beats_and_is_shown() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("-> online")?;
    let shown = server.operators().wait_online(IMEI, true)?;
    assert_eq!(shown["protocol"], "native");
    assert_eq!(shown["heartbeat_s"], 1);
    assert_eq!(shown["agent_version"], env!("CARGO_PKG_VERSION"));

    // Nothing but heartbeats is sent now, and each of them is noticed.
    for _ in 0..2 {
        let seen = server.operators().device(IMEI)?["last_seen"].clone();
        server.operators().wait_until("/api/devices", "a newer last_seen", |list| {
            (list["devices"][0]["last_seen"].as_str() > seen.as_str()).then_some(())
        })?;
    }
    agent.wait_for("the server's time is ")?;
    Ok(())
}

#[test]
fn device_outlives_a_killed_server() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("-> online")?;
    server.operators().wait_events(IMEI, &["online"])?;

    server.kill()?;
    agent.wait_for("-> offline")?;
    server.start_again()?;
    agent.wait_for("-> online")?;
    server.operators().wait_online(IMEI, true)?;
    // What the killed server knew is still there.
    server.operators().wait_until("/api/events", "the device online for the second time", |answer| {
        let online = |event: &&Value| event["imei"] == IMEI && event["kind"] == "online";
        (answer["events"].as_array()?.iter().filter(online).count() == 2).then_some(())
    })
}

#[test]
fn device_returns_to_a_server_that_said_goodbye() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("-> online")?;

    server.stop()?;
    agent.wait_for("the server said goodbye")?;
    server.start_again()?;
    agent.wait_for("-> online")?;
    server.operators().wait_events(IMEI, &["online", "offline", "online"])?;
    Ok(())
}

#[test]
fn stopped_agent_says_goodbye() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("-> online")?;
    agent.stop()?;
    server.operators().wait_online(IMEI, false)?;
    let events = server.operators().wait_events(IMEI, &["online", "offline"])?;
    let offline = &events[events.len() - 1];
    assert_eq!(offline["cause"], "goodbye", "{offline:#}");
    Ok(())
}

#[test]
fn killed_agent_is_noticed_at_once() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.set("heartbeat.interval", "1h").start()?;
    agent.wait_for("-> online")?;
    server.operators().wait_online(IMEI, true)?;
    agent.kill()?;
    server.operators().wait_online(IMEI, false)?;
    agent.start_again()?;
    agent.wait_for("-> online")?;
    server.operators().wait_events(IMEI, &["online", "offline", "online"])?;
    Ok(())
}

#[test]
fn newest_session_of_a_device_replaces_the_older() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut older =
        rig.agent(server.devices(), IMEI)?.set("reconnect.first", "1h").set("reconnect.max", "1h").start()?;
    older.wait_for("registered")?;
    let mut newer = rig.agent(server.devices(), IMEI)?.start()?;
    newer.wait_for("registered")?;
    older.wait_for("a newer session with this IMEI took over")?;
    server.operators().wait_online(IMEI, true)?;
    Ok(())
}

#[test]
fn another_devices_certificate_is_refused() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let others = rig.pki().device(OTHER_IMEI.parse::<Imei>()?)?;
    let mut agent = rig.agent(server.devices(), IMEI)?.certified(&others).start()?;
    agent.wait_for("rejected")?;
    server.operators().wait_until("/api/events", "the mismatch", |answer| {
        answer["events"].as_array()?.iter().find(|event| event["kind"] == "identity_mismatch").cloned()
    })?;
    assert!(server.operators().device(IMEI)?["online"] != true);
    agent.stop()
}

#[test]
fn service_manager_hears_how_they_are() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let manager = |name: &str| ServiceManager::listen(&rig.folder().join(name), SIGN_OF_LIFE, |_| ());
    let (mut of_server, mut of_agent) = (manager("server.sock")?, manager("agent.sock")?);
    let mut server = rig.server()?.under(&of_server).start()?;
    of_server.wait_for("READY=1")?;
    of_server.wait_for("WATCHDOG=1")?;

    let mut agent = rig.agent(server.devices(), IMEI)?.under(&of_agent).start()?;
    of_agent.wait_for("READY=1")?;
    of_agent.wait_for("STATUS=online since ")?;
    of_agent.wait_for("round trip ")?;
    of_agent.wait_for("WATCHDOG=1")?;
    server.kill()?;
    let status = of_agent.wait_for("STATUS=offline, next try at ")?;
    assert!(status.contains("; last fault at "), "{status}");
    agent.stop()?;
    of_agent.wait_for("STOPPING=1").map(drop)
}

#[test]
fn both_programs_stop_within_their_promise() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let mut connected = rig.agent(server.devices(), IMEI)?.start()?;
    connected.wait_for("registered")?;
    let nowhere = "127.0.0.1:1".parse()?;
    let mut offline = rig.agent(nowhere, OTHER_IMEI)?.start()?;
    offline.wait_for_within("127.0.0.1:1", PATIENCE)?;
    offline.stop()?;
    connected.stop()?;
    server.stop()
}
