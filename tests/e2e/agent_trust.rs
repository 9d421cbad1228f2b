//! Whom the agent trusts, and how it tells what is wrong with a certificate: the server's and its own, against the real
//! server.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use moorline_protocol::Imei;
use moorline_testbed::certs::{Credentials, DeviceFlaw, ServerFlaw};
use moorline_testbed::failure::Failure;
use moorline_testbed::process::{PATIENCE, Program};
use moorline_testbed::rig::{Agent, IMEI, Rig};
use rustix::process::Signal;

#[test]
fn each_flaw_of_a_server_has_its_words() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let cases = [
        (ServerFlaw::Expired, "the server's certificate expired at"),
        (ServerFlaw::WrongCa, "is from another CA than those in `server.trust`"),
        (ServerFlaw::WrongName, "the server's certificate is not for \"localhost\" but for"),
        (ServerFlaw::ForClients, "is not for use by a server"),
    ];
    for (flaw, words) in cases {
        let server = rig.server()?.certified(&rig.pki().flawed_server(flaw)?).start()?;
        // With a floor of now it does not matter whether this machine's clock is kept right.
        let state = rig.folder().join(format!("{flaw:?}"));
        fs::create_dir(&state)?;
        fs::write(state.join("time-floor"), format!("{}\n", now()?))?;
        let mut agent = rig.agent(server.devices(), IMEI)?.set("state.dir", state.display()).start()?;
        agent.wait_for(words)?;
        waits_a_minute(&mut agent)?;
        agent.stop()?;
    }
    Ok(())
}

/// Moorline's own server does not start with such a certificate, but those of older fleets do.
#[test]
fn version_1_certificate_of_a_server_is_called_so() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let flawed = rig.pki().flawed_server(ServerFlaw::Version1)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("classic/server.py");
    let mut command = Command::new("python3");
    command.arg(script).args(["127.0.0.1", "0", "--ca"]).arg(rig.pki().ca());
    command.arg("--certificate").arg(flawed.certificate).arg("--key").arg(flawed.key);
    let mut server = Program::start(&mut command)?;
    let address = server.find("where it listens", PATIENCE, |line| {
        line.strip_prefix("listening on ").and_then(|address| address.parse().ok())
    })?;
    let mut agent = rig.agent(address, IMEI)?.start()?;
    agent.wait_for("the server's certificate is X.509 v1; issue it as v3")?;
    agent.stop()
}

#[test]
fn refusal_of_our_certificate_is_called_so() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    for (flaw, words) in [
        (DeviceFlaw::Expired, "the server refused our certificate: it has expired"),
        (DeviceFlaw::WrongCa, "the server refused our certificate: the server does not know its CA"),
        (DeviceFlaw::ForServers, "the server refused our certificate"),
    ] {
        let device = rig.pki().flawed_device(IMEI.parse::<Imei>()?, flaw)?;
        let mut agent = rig.agent(server.devices(), IMEI)?.certified(&device).start()?;
        agent.wait_for(words)?;
        agent.wait_for("-> offline: next try in")?;
        agent.stop()?;
    }
    Ok(())
}

#[test]
fn identity_of_another_device_is_rejected_in_words() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let other = rig.pki().device("869731052403821".parse::<Imei>()?)?;
    let mut agent = rig.agent(server.devices(), IMEI)?.certified(&other).start()?;
    agent.wait_for("the server rejected this device")?;
    agent.stop()
}

#[test]
fn new_certificate_is_taken_up_without_a_restart() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("registered")?;
    agent.signal(Signal::HUP)?;
    agent.wait_for("the session stands")?;
    let config = agent.folder().join("config.toml");
    let fresh = rig.pki().device(IMEI.parse::<Imei>()?)?;
    let text = fs::read_to_string(&config)?;
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("certificate", _)) => format!("certificate = \"{}\"\n", fresh.certificate.display()),
        Some(("key", _)) => format!("key = \"{}\"\n", fresh.key.display()),
        _ => format!("{line}\n"),
    });
    fs::write(&config, lines.collect::<String>())?;
    agent.signal(Signal::HUP)?;
    agent.wait_for("online -> leaving")?;
    agent.wait_for("registered")?;
    agent.stop()
}

/// The drill of a fleet whose CA is replaced: both are trusted at both ends, the certificates are changed one by one, then the
/// old CA goes. Nobody travels, and nothing is started anew.
#[test]
fn ca_is_rolled_over_without_losing_a_device() -> Result<(), Failure> {
    let (rig, next) = (Rig::new()?, Rig::new()?);
    let imei: Imei = IMEI.parse()?;
    let trusted = rig.folder().join("trusted.pem");
    fs::write(&trusted, fs::read_to_string(rig.pki().ca())? + &fs::read_to_string(next.pki().ca())?)?;
    let (of_server, of_device) = (rig.pki().server()?, rig.pki().device(imei)?);
    let replace = |old: &Credentials, new: &Credentials| -> Result<(), Failure> {
        fs::copy(&new.certificate, &old.certificate)?;
        fs::copy(&new.key, &old.key)?;
        Ok(())
    };
    let server = rig.server()?.certified(&of_server).set("tls.client_ca", trusted.display());
    let mut server = server.start()?;
    let agent = rig.agent(server.devices(), IMEI)?.certified(&of_device);
    let mut agent = agent.set("server.trust", trusted.display()).start()?;
    agent.wait_for("registered")?;

    replace(&of_server, &next.pki().server()?)?;
    server.reload()?;
    replace(&of_device, &next.pki().device(imei)?)?;
    agent.signal(Signal::HUP)?;
    agent.wait_for("online -> leaving")?;
    agent.wait_for("registered")?;
    let shown = server.operators().wait_online(IMEI, true)?;
    assert_eq!(shown["protocol"], "native", "{shown:#}");

    fs::copy(next.pki().ca(), &trusted)?;
    server.reload()?;
    agent.signal(Signal::HUP)?;
    agent.wait_for("online -> leaving")?;
    agent.wait_for("registered")?;
    assert!(!agent.said("refused"), "{:#?}", agent.lines());

    // The old CA, which has the name of the new one, is worth nothing now.
    let late = rig.agent(server.devices(), IMEI)?.certified(&rig.pki().device(imei)?);
    let mut late = late.set("server.trust", trusted.display()).start()?;
    late.wait_for("the server refused our certificate: its signature is not that of the server's CA")?;
    waits_a_minute(&mut late)?;
    late.stop()?;
    agent.stop()
}

/// At least, though the configuration says half a second at most: a retry won't mend it.
#[track_caller]
fn waits_a_minute(agent: &mut Agent) -> Result<(), Failure> {
    agent.find("a wait of a minute or more", PATIENCE, |line| {
        ["next try in 1m", "next try in 2m"].iter().any(|wait| line.contains(wait)).then_some(())
    })
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the certificates are of the real time")]
fn now() -> Result<u64, Failure> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
