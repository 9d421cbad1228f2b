//! The agent hears of its network from the kernel, in real network namespaces: it acts at once, and no more than it should.

use std::net::SocketAddr;
use std::time::Duration;

use moorline_testbed::failure::Failure;
use moorline_testbed::field::{Field, Quality, Version, may_have_fields};
use moorline_testbed::left_out::left_out;
use moorline_testbed::process::Program;
use moorline_testbed::rig::{AGENT_STOP, AgentSetup, IMEI, Rig, Server};

/// What is promised.
const AT_ONCE: Duration = Duration::from_secs(1);

struct Scene<'a> {
    field: &'a Field,
    server: Server,
    agent: Program,
}

#[test]
fn address_that_changes_has_the_session_asked_at_once() -> Result<(), Failure> {
    // The next heartbeat would be an hour away.
    let quiet = |setup: AgentSetup| setup.set("heartbeat.interval", "1h").set("reconnect.max", "1s");
    for version in [Version::V4, Version::V6] {
        tell(version, quiet, |scene| {
            scene.field.readdress()?;
            scene.agent.wait_for_within("the network has changed: asking the server at once", AT_ONCE)?;
            scene.agent.wait_for("no answer for")?;
            scene.agent.wait_for("registered")?;
            scene.server.operators().wait_online(IMEI, true).map(drop)
        })?;
    }
    Ok(())
}

#[test]
fn link_that_comes_up_ends_the_wait_for_the_next_try() -> Result<(), Failure> {
    tell(Version::V4, patient, |scene| {
        scene.field.cable(false)?;
        scene.agent.wait_for("online -> offline: next try in")?;
        scene.field.cable(true)?;
        scene.agent.wait_for_within("the network has changed: trying now", AT_ONCE)?;
        scene.agent.wait_for("registered")?;
        scene.server.operators().wait_online(IMEI, true).map(drop)
    })
}

#[test]
fn link_that_flaps_brings_a_bounded_number_of_tries() -> Result<(), Failure> {
    tell(Version::V4, patient, |scene| {
        // Nothing gets through, so that every try is in vain.
        scene.field.line.set(Quality::DARK);
        scene.agent.wait_for("online -> offline: next try in")?;
        scene.field.cable(false)?;
        for _ in 0..50 {
            scene.field.cable(true)?;
            scene.field.cable(false)?;
        }
        scene.field.cable(true)?;
        scene.field.line.set(Quality::CABLE);
        scene.agent.wait_for_within("registered", Duration::from_secs(90))?;
        let tries = scene.agent.lines().iter().filter(|line| line.ends_with("trying now")).count();
        assert!((1..=5).contains(&tries), "{tries}: {:#?}", scene.agent.lines());
        Ok(())
    })
}

#[test]
fn diagnosis_names_the_missing_route() -> Result<(), Failure> {
    tell(Version::V4, patient, |scene| {
        scene.field.device.ip("route del default")?;
        scene.agent.wait_for("online -> offline: next try in")?;
        // Another interface's coming up has it tried, and there is still no way.
        scene.field.device.ip("link add extra type veth peer name extra-end")?;
        scene.field.device.ip("link set extra-end up")?;
        scene.field.device.ip("link set extra up")?;
        let line = scene.agent.wait_for("diagnosis: route fails since ")?;
        assert!(line.ends_with("; there is no default route"), "{line}");
        Ok(())
    })
}

/// It loses a dead link soon and then waits for long.
fn patient(setup: AgentSetup) -> AgentSetup {
    setup.set("reconnect.first", "1h").set("reconnect.max", "2h")
}

/// A device that is online over a line as good as a cable, and what happens to it then.
fn tell(
    version: Version,
    with: impl FnOnce(AgentSetup) -> AgentSetup + Send,
    tale: impl FnOnce(&mut Scene<'_>) -> Result<(), Failure> + Send,
) -> Result<(), Failure> {
    if !may_have_fields() {
        left_out("fields need root, ip, nft and /dev/net/tun");
        return Ok(());
    }
    let field = Field::new(version)?;
    field.server.within(|| {
        let rig = Rig::new()?;
        let at = SocketAddr::new(field.server_address(), 0);
        let server = rig.server()?.set("listen.devices", at).set("session.heartbeat_max", "1h").start()?;
        let setup = with(rig.agent(server.devices(), IMEI)?);
        let agent = Program::start(&mut field.device.command(&setup.command()?))?;
        let mut scene = Scene { field: &field, server, agent };
        scene.agent.wait_for("registered")?;
        tale(&mut scene)?;
        scene.agent.stop(AGENT_STOP)
    })
}
