//! The classic protocol against plain programs that know nothing of Moorline: tests/classic/client.py and server.py,
//! Python over the operating system's TLS library, with RSA keys as older fleets have them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use moorline_protocol::Imei;
use moorline_testbed::certs::{Credentials, Keys};
use moorline_testbed::failure::Failure;
use moorline_testbed::process::{PATIENCE, Program};
use moorline_testbed::rig::{IMEI, Rig, SERVER_NAME, host};

#[test]
fn plain_peers_understand_each_other() -> Result<(), Failure> {
    for version in ["1.2", "1.3"] {
        let rig = Rig::with_keys(Keys::Rsa)?;
        let mut server = PlainServer::start(&rig, &["--tls", version])?;
        let mut device = plain_device(&rig, server.address, &[])?;
        device.wait_for(&format!("connected TLSv{version}"))?;
        device.wait_for("reply register 0")?;
        server.wait_for(&format!("register {IMEI}"))?;
    }
    Ok(())
}

#[test]
fn plain_device_outlives_the_server() -> Result<(), Failure> {
    plain_device_over_outlives_the_server("1.3")
}

#[test]
fn plain_device_over_tls_1_2_outlives_the_server_where_it_is_admitted() -> Result<(), Failure> {
    plain_device_over_outlives_the_server("1.2")
}

fn plain_device_over_outlives_the_server(version: &str) -> Result<(), Failure> {
    let rig = Rig::with_keys(Keys::Rsa)?;
    let mut server = rig.server()?.set("tls.min_version", version).start()?;
    let mut device = plain_device(&rig, server.devices(), &["--tls", version])?;
    let connected = format!("connected TLSv{version}");
    device.wait_for(&connected)?;
    device.wait_for("reply heartbeat 0")?;
    device.wait_for("reply datetime 0 2")?;
    device.wait_for("reply register 0")?;
    let shown = server.operators().wait_online(IMEI, true)?;
    assert_eq!((&shown["protocol"], &shown["tls"]), (&"classic".into(), &version.into()));

    server.kill()?;
    device.wait_for("lost:")?;
    server.start_again()?;
    device.wait_for(&connected)?;
    device.wait_for("reply heartbeat 0")?;
    // Known by its certificate, for it does not register again.
    server.operators().wait_online(IMEI, true)?;
    assert_eq!(device.lines().iter().filter(|line| *line == "sent register").count(), 1);
    Ok(())
}

#[test]
fn plain_device_with_anothers_certificate_is_refused() -> Result<(), Failure> {
    let rig = Rig::with_keys(Keys::Rsa)?;
    let mut server = rig.server()?.start()?;
    let mut device = plain_device(&rig, server.devices(), &["--imei", "015184008301272"])?;
    device.wait_for("reply register -1")?;
    device.wait_for("lost:")?;
    assert!(server.wait_for(" refused: ")?.contains("the device says 015184008301272"));
    server.operators().wait_until("/api/events", "the mismatch", |list| {
        list["events"].as_array()?.iter().find(|event| event["kind"] == "identity_mismatch").map(drop)
    })?;
    assert!(server.operators().device("015184008301272")?.is_null());
    Ok(())
}

#[test]
fn plain_device_that_stops_is_shown_offline() -> Result<(), Failure> {
    let rig = Rig::with_keys(Keys::Rsa)?;
    let server = rig.server()?.start()?;
    let mut device = plain_device(&rig, server.devices(), &[])?;
    device.wait_for("reply register 0")?;
    server.operators().wait_online(IMEI, true)?;
    device.kill()?;
    server.operators().wait_online(IMEI, false)?;
    server.operators().wait_events(IMEI, &["online", "offline"])?;
    Ok(())
}

#[test]
fn agent_on_auto_outlives_a_plain_server() -> Result<(), Failure> {
    agent_outlives_a_plain_server("auto")
}

#[test]
fn agent_on_classic_outlives_a_plain_server() -> Result<(), Failure> {
    agent_outlives_a_plain_server("classic")
}

fn agent_outlives_a_plain_server(protocol: &str) -> Result<(), Failure> {
    let rig = Rig::with_keys(Keys::Rsa)?;
    let mut server = PlainServer::start(&rig, &[])?;
    let mut agent = rig.agent(server.address, IMEI)?.set("server.protocol", protocol).start()?;
    for _ in 0..2 {
        server.wait_for(&format!("register {IMEI}"))?;
        server.wait_for("heartbeat")?;
        server.wait_for("heartbeat")?;
        assert!(server.said("datetime "), "the time is asked for once after registering");
        agent.wait_for("-> online")?;
        server.kill()?;
        server.start_again()?;
    }
    // Unlike an older fleet's device, it registers after every reconnect.
    server.wait_for(&format!("register {IMEI}"))?;
    agent.stop()
}

#[test]
fn agent_with_tls_1_2_registers_with_a_plain_server() -> Result<(), Failure> {
    let rig = Rig::with_keys(Keys::Rsa)?;
    let mut server = PlainServer::start(&rig, &["--tls", "1.2"])?;
    let mut agent =
        rig.agent(server.address, IMEI)?.features(&["tls12"]).set("server.min_version", "1.2").start()?;
    server.wait_for("TLSv1.2")?;
    server.wait_for(&format!("register {IMEI}"))?;
    agent.wait_for("-> online")?;
    agent.stop()
}

#[test]
fn agent_without_tls_1_2_says_what_it_lacks() -> Result<(), Failure> {
    let rig = Rig::with_keys(Keys::Rsa)?;
    let server = PlainServer::start(&rig, &["--tls", "1.2"])?;
    let mut agent = rig.agent(server.address, IMEI)?.start()?;
    agent.wait_for(
        "the server does not speak TLS 1.3; see `server.min_version` and the cargo feature tls12",
    )?;
    agent.wait_for("-> offline: next try in")?;
    agent.stop()
}

/// client.py with a certificate for [`IMEI`].
#[track_caller]
fn plain_device(rig: &Rig, server: SocketAddr, options: &[&str]) -> Result<Program, Failure> {
    let credentials = rig.pki().device(IMEI.parse::<Imei>()?)?;
    let mut command = python("client.py", server, &rig.pki().ca(), &credentials);
    Program::start(command.args(["--name", SERVER_NAME, "--imei", IMEI]).args(options))
}

/// server.py, which comes back to the same port.
struct PlainServer {
    run: Box<dyn Fn(SocketAddr) -> Result<Program, Failure>>,
    program: Program,
    address: SocketAddr,
}

impl PlainServer {
    #[track_caller]
    fn start(rig: &Rig, options: &[&'static str]) -> Result<Self, Failure> {
        let (ca, credentials, options) = (rig.pki().ca(), rig.pki().server()?, options.to_vec());
        let run =
            move |address| Program::start(python("server.py", address, &ca, &credentials).args(&options));
        let mut program = run(SocketAddr::new(host(), 0))?;
        let address = program
            .find("where it listens", PATIENCE, |line| line.strip_prefix("listening on ")?.parse().ok())?;
        Ok(Self { run: Box::new(run), program, address })
    }

    #[track_caller]
    fn wait_for(&mut self, text: &str) -> Result<String, Failure> {
        self.program.wait_for(text)
    }

    fn said(&self, text: &str) -> bool {
        self.program.said(text)
    }

    #[track_caller]
    fn kill(&mut self) -> Result<(), Failure> {
        self.program.kill()
    }

    #[track_caller]
    fn start_again(&mut self) -> Result<(), Failure> {
        self.program = (self.run)(self.address)?;
        self.program.wait_for("listening on ").map(drop)
    }
}

fn python(script: &str, address: SocketAddr, ca: &Path, credentials: &Credentials) -> Command {
    let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("classic").join(script);
    let mut command = Command::new("python3");
    command
        .arg(script)
        .args([address.ip().to_string(), address.port().to_string()])
        .arg("--ca")
        .arg(ca)
        .arg("--certificate")
        .arg(&credentials.certificate)
        .arg("--key")
        .arg(&credentials.key);
    command
}
