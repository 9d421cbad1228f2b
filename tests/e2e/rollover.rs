//! The drill of a fleet whose CA is replaced, as the operating guide has it, with the real programs: both CAs are trusted at both
//! ends, certificates are changed, then the old CA goes. Nothing is started anew, nobody is refused, and either CA's list holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use moorline_testbed::failure::Failure;
use moorline_testbed::programs::program;
use moorline_testbed::rig::{Agent, Rig, Server};
use rustix::process::Signal;
use serde_json::Value;

const IMEIS: [&str; 4] = ["004999010640000", "015184008301272", "869731052403821", "990016259811154"];
/// Revoked by the old CA in the middle of it.
const LOST: &str = IMEIS[3];

/// A CA's folder.
struct Fleet {
    path: PathBuf,
    csv: PathBuf,
}

impl Fleet {
    /// A new CA, which has the name of every other one that was not given another.
    fn new(rig: &Rig, name: &str) -> Result<Self, Failure> {
        let csv = rig.folder().join("imeis.csv");
        fs::write(&csv, IMEIS.join("\n"))?;
        let fleet = Self { path: rig.folder().join(name), csv };
        fleet.certs(&["ca"])?;
        fleet.certs(&["server", "--dns", "localhost"])?;
        fleet.certs(&["devices", "--csv", &fleet.csv.to_string_lossy()])?;
        fleet.certs(&["crl"])?;
        Ok(fleet)
    }

    fn certs(&self, arguments: &[&str]) -> Result<(), Failure> {
        let output =
            Command::new(program("moorline-certs")?).args(arguments).arg("--dir").arg(&self.path).output()?;
        assert!(output.status.success(), "{output:?}");
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn text(&self, name: &str) -> Result<String, Failure> {
        Ok(fs::read_to_string(self.file(name))?)
    }
}

/// Where the programs look: what the drill replaces.
struct Installed(PathBuf);

impl Installed {
    fn new(rig: &Rig, name: &str) -> Result<Self, Failure> {
        let path = rig.folder().join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn put(&self, name: &str, text: &str) -> Result<(), Failure> {
        let unfinished = self.file("unfinished");
        fs::write(&unfinished, text)?;
        Ok(fs::rename(&unfinished, self.file(name))?)
    }

    /// A certificate and its key; the key's file keeps its mode.
    fn certify(&self, certificate: &Path, key: &Path) -> Result<(), Failure> {
        fs::copy(certificate, self.file("own.pem"))?;
        fs::copy(key, self.file("own.key"))?;
        Ok(())
    }
}

fn start(rig: &Rig, server: &Server, place: &Installed, imei: &str) -> Result<Agent, Failure> {
    let agent = rig.agent(server.devices(), imei)?;
    agent
        .set("server.trust", place.file("ca.pem").display())
        .set("identity.certificate", place.file("own.pem").display())
        .set("identity.key", place.file("own.key").display())
        .start()
}

/// Has an agent take up what was installed, and waits until it is back.
fn reload(agent: &mut Agent) -> Result<(), Failure> {
    agent.signal(Signal::HUP)?;
    agent.wait_for("online -> leaving")?;
    agent.wait_for("registered").map(drop)
}

fn issuer_and_serial(server: &Server, imei: &str) -> Result<(Value, Value), Failure> {
    let device = server.operators().wait_online(imei, true)?;
    Ok((device["certificate"]["issuer"].clone(), device["certificate"]["serial"].clone()))
}

#[test]
fn authority_is_rolled_over_and_no_device_is_offline_for_longer_than_a_reconnect() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let (old, new) = (Fleet::new(&rig, "old")?, Fleet::new(&rig, "new")?);
    let gateway = Installed::new(&rig, "gateway")?;
    gateway.put("ca.pem", &old.text("ca.pem")?)?;
    gateway.put("ca.crl", &old.text("ca.crl")?)?;
    gateway.certify(&old.file("server.pem"), &old.file("server.key"))?;
    let mut server = rig
        .server()?
        .set("tls.client_ca", gateway.file("ca.pem").display())
        .set("tls.crl", gateway.file("ca.crl").display())
        .set("tls.certificate", gateway.file("own.pem").display())
        .set("tls.key", gateway.file("own.key").display())
        .start()?;
    let device = |fleet: &Fleet, imei: &str, end: &str| fleet.file("devices").join(format!("{imei}.{end}"));
    let mut devices = Vec::new();
    for imei in IMEIS {
        let place = Installed::new(&rig, imei)?;
        place.put("ca.pem", &old.text("ca.pem")?)?;
        place.certify(&device(&old, imei, "pem"), &device(&old, imei, "key"))?;
        let agent = start(&rig, &server, &place, imei)?;
        devices.push((imei, place, agent));
    }
    let mut serials = Vec::new();
    for (imei, _, agent) in &mut devices {
        agent.wait_for("registered")?;
        serials.push(issuer_and_serial(&server, imei)?);
    }

    // Both are trusted at both ends.
    let both = old.text("ca.pem")? + &new.text("ca.pem")?;
    gateway.put("ca.pem", &both)?;
    gateway.put("ca.crl", &(old.text("ca.crl")? + &new.text("ca.crl")?))?;
    server.reload()?;
    for (_, place, agent) in &mut devices {
        place.put("ca.pem", &both)?;
        reload(agent)?;
    }
    // The server's certificate is the new CA's, then the devices'.
    gateway.certify(&new.file("server.pem"), &new.file("server.key"))?;
    server.reload()?;
    for (imei, place, agent) in devices.iter_mut().filter(|(imei, _, _)| *imei != LOST) {
        place.certify(&device(&new, imei, "pem"), &device(&new, imei, "key"))?;
        reload(agent)?;
    }
    for ((imei, ..), before) in devices.iter().zip(&serials) {
        let now = issuer_and_serial(&server, imei)?;
        assert_eq!(now.0, before.0, "both CAs have one name");
        assert_eq!(now.1 == before.1, *imei == LOST, "{imei}");
    }

    // The old CA's list is obeyed beside the new one's, and does not touch the new certificates of those that it names.
    old.certs(&["revoke", "--imei", LOST, "--imei", IMEIS[0]])?;
    gateway.put("ca.crl", &(old.text("ca.crl")? + &new.text("ca.crl")?))?;
    let events = server.operators().wait_until("/api/events?limit=1000", "the lost one's end", |answer| {
        let events = answer["events"].as_array()?;
        let gone = |event: &&Value| event["imei"] == LOST && event["cause"] == "revoked";
        events.iter().find(gone).map(|_| events.clone())
    })?;
    assert!(!events.iter().any(|event| event["imei"] != LOST && event["cause"] == "revoked"), "{events:#?}");

    // The old one goes: on the server, then on the devices.
    gateway.put("ca.pem", &new.text("ca.pem")?)?;
    server.reload()?;
    gateway.put("ca.crl", &new.text("ca.crl")?)?;
    server.wait_for("the revocation list was replaced, and the new one is in force")?;
    for (imei, place, agent) in devices.iter_mut().filter(|(imei, _, _)| *imei != LOST) {
        place.put("ca.pem", &new.text("ca.pem")?)?;
        reload(agent)?;
        server.operators().wait_online(imei, true)?;
        // From the first to the last step it was never turned away, and never had to wait for another try.
        assert!(!agent.said("refused") && !agent.said("next try in"), "{:#?}", agent.lines());
    }
    let answer = server.operators().json("/api/events?limit=1000")?;
    let refused = |event: &&Value| event["kind"] == "refused" && event["imei"] != LOST;
    let refusals: Vec<_> = answer["events"].as_array().into_iter().flatten().filter(refused).collect();
    assert!(refusals.is_empty(), "{refusals:#?}");

    // Whoever still has a certificate of the old CA, and was away all the time, is refused.
    let place = Installed::new(&rig, "late")?;
    place.put("ca.pem", &both)?;
    place.certify(&device(&old, IMEIS[1], "pem"), &device(&old, IMEIS[1], "key"))?;
    let mut late = start(&rig, &server, &place, IMEIS[1])?;
    late.wait_for("the server refused our certificate")?;
    Ok(())
}
