//! The agent's link in the field: what a cellular line does to it, in real network namespaces, and how it comes back.

use std::net::SocketAddr;
use std::time::Duration;

use moorline_testbed::failure::Failure;
use moorline_testbed::field::{Field, Quality, Version, may_have_fields};
use moorline_testbed::left_out::left_out;
use moorline_testbed::name_server::{NAME, NameServer};
use moorline_testbed::process::Program;
use moorline_testbed::rig::{AGENT_STOP, AgentSetup, IMEI, Rig, Server};

/// A line with round trips of seconds takes a while for everything.
const LONG: Duration = Duration::from_secs(90);

#[test]
fn coverage_that_goes_and_comes_back() -> Result<(), Failure> {
    tell(Version::V4, |scene| {
        scene.field.line.set(Quality::DARK);
        scene.agent.wait_for("no answer for")?;
        scene.server.operators().wait_online(IMEI, false)?;
        scene.field.line.set(Quality::CABLE);
        scene.agent.wait_for("registered")?;
        scene.online()
    })
}

#[test]
fn cable_that_is_pulled_and_plugged() -> Result<(), Failure> {
    tell(Version::V4, |scene| {
        scene.field.cable(false)?;
        scene.server.operators().wait_online(IMEI, false)?;
        scene.field.cable(true)?;
        scene.agent.wait_for("registered")?;
        scene.online()
    })
}

#[test]
fn another_address_needs_another_session() -> Result<(), Failure> {
    tell(Version::V4, |scene| {
        scene.field.readdress()?;
        scene.agent.wait_for("registered")?;
        let shown = scene.server.operators().wait_until("/api/devices", "the new address", |list| {
            let device = list["devices"].as_array()?.first()?.clone();
            device["address"].as_str()?.starts_with("10.9.1.3:").then_some(device)
        })?;
        assert_eq!(shown["online"], true, "{shown:#}");
        Ok(())
    })
}

#[test]
fn ipv6_alone_is_enough() -> Result<(), Failure> {
    tell(Version::V6, |scene| {
        let shown = scene.server.operators().device(IMEI)?;
        assert!(shown["address"].as_str().is_some_and(|at| at.starts_with("[fd09:1::2]:")), "{shown:#}");
        scene.field.readdress()?;
        scene.agent.wait_for("registered")?;
        scene.online()
    })
}

/// The server dies and its host's FIN and RST never arrive: the device finds out by itself.
#[test]
fn death_without_a_word_is_noticed() -> Result<(), Failure> {
    tell(Version::V4, |scene| {
        scene.field.line.set(Quality { endings_lost: true, ..Quality::CABLE });
        scene.server.kill()?;
        scene.agent.wait_for("no answer for")?;
        scene.server.start_again()?;
        scene.field.line.set(Quality::CABLE);
        scene.agent.wait_for("registered")?;
        scene.online()
    })
}

#[test]
fn slow_line_is_no_dead_line() -> Result<(), Failure> {
    for quality in [Quality::EDGE, Quality::WEAK, Quality { loss: 50, ..Quality::EDGE }] {
        on_line(quality, |scene| {
            let answered = scene.server.operators().device(IMEI)?["last_seen"].clone();
            scene.server.operators().wait_until("/api/devices", "a later heartbeat", |list| {
                let device = list["devices"].as_array()?.first()?;
                (device["last_seen"] != answered).then_some(())
            })?;
            assert!(!scene.agent.said("no answer for"), "{quality:?}: {:#?}", scene.agent.lines());
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn name_server_that_is_silent_and_speaks_again() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let field = Field::new(Version::V4)?;
    let at = field.server_address();
    field.device.resolve_by(at)?;
    field.server.within(|| {
        let names = NameServer::start(at)?;
        names.set_dumb(true);
        let rig = Rig::new()?;
        let server = rig.server()?.set("listen.devices", SocketAddr::new(at, 0)).start()?;
        let address = format!("{NAME}:{}", server.devices().port());
        let setup = rig.agent(server.devices(), IMEI)?.set("server.address", address);
        let mut agent = Program::start(&mut field.device.command(&setup.command()?))?;
        agent.wait_for("next try in")?;
        assert!(names.asked() > 0 && !agent.said("connecting"), "{:#?}", agent.lines());
        names.set_dumb(false);
        agent.wait_for("registered")?;
        // A session needs no names.
        names.set_dumb(true);
        server.operators().wait_online(IMEI, true)?;
        agent.stop(AGENT_STOP)
    })
}

struct Scene<'a> {
    field: &'a Field,
    server: Server,
    agent: Program,
}

impl Scene<'_> {
    fn online(&self) -> Result<(), Failure> {
        self.server.operators().wait_online(IMEI, true).map(drop)
    }
}

fn allowed() -> bool {
    let allowed = may_have_fields();
    if !allowed {
        left_out("fields need root, ip, nft and /dev/net/tun");
    }
    allowed
}

/// A device that is online over a line as good as a cable, and what happens to it then.
fn tell(
    version: Version,
    tale: impl FnOnce(&mut Scene<'_>) -> Result<(), Failure> + Send,
) -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let field = Field::new(version)?;
    cast(&field, |setup| setup, tale)
}

/// A device that comes online over a line like this.
fn on_line(
    quality: Quality,
    tale: impl FnOnce(&mut Scene<'_>) -> Result<(), Failure> + Send,
) -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let field = Field::new(Version::V4)?;
    field.line.set(quality);
    cast(&field, |setup| setup.set("heartbeat.timeout", "20s"), tale)
}

fn cast(
    field: &Field,
    with: impl FnOnce(AgentSetup) -> AgentSetup + Send,
    tale: impl FnOnce(&mut Scene<'_>) -> Result<(), Failure> + Send,
) -> Result<(), Failure> {
    field.server.within(|| {
        let rig = Rig::new()?;
        let at = SocketAddr::new(field.server_address(), 0);
        let server = rig.server()?.set("listen.devices", at).start()?;
        let setup = with(rig.agent(server.devices(), IMEI)?);
        let agent = Program::start(&mut field.device.command(&setup.command()?))?;
        let mut scene = Scene { field, server, agent };
        scene.agent.wait_for_within("registered", LONG)?;
        scene.server.operators().wait_online(IMEI, true)?;
        tale(&mut scene)?;
        scene.agent.stop(AGENT_STOP)
    })
}
