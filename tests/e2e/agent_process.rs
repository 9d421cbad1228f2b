//! The real agent against mistakes and bad company: wrong configurations, servers that never answer, signals.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use moorline_protocol::Imei;
use moorline_testbed::black_hole::BlackHole;
use moorline_testbed::certs::{Credentials, DeviceFlaw, Pki};
use moorline_testbed::failure::Failure;
use moorline_testbed::process::{PATIENCE, Program};
use moorline_testbed::programs::program;
use moorline_testbed::rig::IMEI;
use moorline_testbed::settings::Settings;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;

/// The promise is one second from the signal to the end; the rest is for a busy machine.
const STOP: Duration = Duration::from_millis(1500);

#[test]
fn every_mistake_is_told_at_once() -> Result<(), Failure> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/agent-many-mistakes.toml");
    let expected = [
        ":2: sever: unknown key",
        ":5: server.address: \"gw.example.com\" is not an address: the port is missing",
        ":5: server.address: \"gw.example.com:70000\" is not an address: the port must be",
        ":5: server.address: \"2001:db8::1:9089\" is not an address: an IPv6 address is written in brackets",
        ":6: server.name: is neither a DNS name nor an IP address",
        ":7: server.trust: /nonexistent/ca.pem: there is no such file",
        ":8: server.protocol: \"moorline\" is none of auto, native, classic",
        ":9: server.min_version: this agent was built without TLS 1.2",
        ":10: server.adress: unknown key, did you mean `address`?",
        ":13: identity.app_id: \"996da38d\" is not a UUID",
        ":14: identity.certificate: /nonexistent/device.pem: there is no such file",
        ":15: identity.key: /nonexistent/device.key: there is no such file",
        ":16: identity.imei: \"869731052403820\" is neither \"modem\" nor an IMEI: its check digit is 0 where 1",
        ":19: modem.port: must be a string",
        ":20: modem.baud: is out of range",
        ":23: heartbeat.interval: \"sometimes\" is not a duration",
        ":24: heartbeat.timeout: 10 needs a unit",
        ":28: reconnect.max: is less than `first`",
        ":31: state.dir: must be a string",
        ":33: watchdog: unknown table",
    ];
    for arguments in [&["check", "-c"][..], &["-c"]] {
        let output = run(Command::new(program("moorline-agent")?).args(arguments).arg(&file))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        for mistake in expected {
            assert!(said.contains(mistake), "{mistake}\nis not in\n{said}");
        }
    }
    Ok(())
}

#[test]
fn missing_configuration_is_told() -> Result<(), Failure> {
    for arguments in [&["check", "-c"][..], &["-c"]] {
        let output =
            run(Command::new(program("moorline-agent")?).args(arguments).arg("/nowhere/agent.toml"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("/nowhere/agent.toml: there is no such file"), "{said}");
    }
    Ok(())
}

#[test]
fn each_bad_file_has_its_words() -> Result<(), Failure> {
    let device = Device::new()?;
    let (good, other) = (device.pki.device(imei()?)?, device.pki.device(imei()?)?);
    let ca = fs::read_to_string(device.pki.ca())?;
    let bundle = |pem: &str| device.file("bundle.pem", pem);

    let readable = device.file("readable.key", &fs::read_to_string(&good.key)?)?;
    fs::set_permissions(&readable, Permissions::from_mode(0o644))?;
    let version_1 = device.pki.flawed_device(imei()?, DeviceFlaw::Version1)?;
    let cut =
        ca.replace("-----END", "A-----END").replace("BEGIN CERTIFICATE-----\n", "BEGIN CERTIFICATE-----\n!");

    let cases = [
        ("identity.key", readable, "every user of this device may use the key"),
        ("identity.key", other.key, "does not belong to the certificate"),
        ("identity.key", device.pki.ca(), "there is no private key in it"),
        ("identity.certificate", good.key.clone(), "there is no certificate in it"),
        ("identity.certificate", version_1.certificate, "is X.509 v1; issue it as v3"),
        ("server.trust", bundle("no PEM at all")?, "there is no certificate in it"),
        (
            "server.trust",
            device.file("bad.pem", &format!("{ca}{cut}{ca}"))?,
            "PEM section 2 in it is not base64",
        ),
        (
            "server.trust",
            device.file(
                "cut.pem",
                &format!("{ca}{ca}-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"),
            )?,
            "certificate 3 in it cannot serve as a root",
        ),
        ("server.trust", device.folder.path().to_owned(), "is a folder, not a file"),
        ("server.trust", "webpki".into(), "built without the public roots"),
    ];
    for (key, file, words) in cases {
        let mut device_settings = device.settings("127.0.0.1:1", &good);
        device_settings.set(key, file.display());
        let output = run(device.command(&device_settings)?.arg("check"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{key}: {said}");
        assert!(said.contains(key) && said.contains(words), "{words}\nis not in\n{said}");
    }
    Ok(())
}

#[test]
fn a_right_configuration_is_described() -> Result<(), Failure> {
    let device = Device::new()?;
    let output = run(device.command(&device.good(&"gw.example.com:9089")?)?.arg("check"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for part in ["no mistakes", "gw.example.com:9089", IMEI, "TLS 1.3"] {
        assert!(said.contains(part), "{part}\nis not in\n{said}");
    }
    Ok(())
}

#[test]
fn unknown_arguments_are_named() -> Result<(), Failure> {
    let output = run(Command::new(program("moorline-agent")?).arg("--conifg"))?;
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--conifg"));
    Ok(())
}

#[test]
fn it_stops_while_a_black_hole_is_being_connected_to() -> Result<(), Failure> {
    let device = Device::new()?;
    let hole = BlackHole::new()?;
    let mut agent = device.start(&device.good(&hole.address)?)?;
    agent.wait_for("-> connecting")?;
    agent.stop(STOP)
}

#[test]
fn interrupt_stops_it_as_well() -> Result<(), Failure> {
    let device = Device::new()?;
    let hole = BlackHole::new()?;
    let mut agent = device.start(&device.good(&hole.address)?)?;
    agent.wait_for("-> connecting")?;
    agent.signal(Signal::INT)?;
    assert!(agent.wait_exit(STOP)?.success());
    Ok(())
}

#[test]
fn it_stops_while_a_server_accepts_and_says_nothing() -> Result<(), Failure> {
    let device = Device::new()?;
    let server = mute_server()?;
    let mut agent = device.start(&device.good(&server.local_addr()?)?)?;
    let (_silent, _) = server.accept()?;
    agent.wait_for("-> handshaking")?;
    agent.stop(STOP)
}

#[test]
fn it_stops_while_a_modem_is_silent() -> Result<(), Failure> {
    let device = Device::new()?;
    let modem = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&modem)?;
    unlockpt(&modem)?;
    let mut settings = device.good(&"127.0.0.1:1")?;
    settings.set("identity.imei", "modem");
    settings.set("modem.port", ptsname(&modem, Vec::new())?.to_string_lossy());
    let mut agent = device.start(&settings)?;
    // The first command shows that the port is open and an answer is waited for.
    let mut asked = [0; 2];
    File::from(modem.try_clone()?).read_exact(&mut asked)?;
    assert_eq!(&asked, b"AT");
    agent.stop(STOP)
}

#[test]
fn kept_imei_serves_when_the_modem_is_gone() -> Result<(), Failure> {
    let device = Device::new()?;
    let hole = BlackHole::new()?;
    let mut settings = device.good(&hole.address)?;
    settings.set("identity.imei", "modem");
    settings.set("modem.port", device.folder.path().join("ttyUSB*").display());
    let mut agent = device.start(&settings)?;
    agent.wait_for("no modem tells an IMEI, and none is kept")?;
    assert!(!agent.said("-> connecting"), "{:#?}", agent.lines());
    agent.stop(STOP)?;

    let kept = format!(
        "moorline modem identity 1\nimei={IMEI}\nport=/dev/ttyUSB2\ncommand=AT+CGSN\nat_ms=1\nmodem=\nprevious=\nend\n"
    );
    device.file("modem", &kept)?;
    let mut agent = device.start(&settings)?;
    agent.wait_for(&format!("going on with {IMEI}"))?;
    agent.wait_for("-> connecting")?;
    agent.stop(STOP)
}

#[test]
fn refused_and_reset_are_told_and_tried_again() -> Result<(), Failure> {
    let device = Device::new()?;
    let server = mute_server()?;
    let address = server.local_addr()?;
    let mut agent = device.start(&device.good(&address)?)?;
    let (stream, _) = server.accept()?;
    agent.wait_for("-> handshaking")?;
    reset(stream)?;
    agent.wait_for("the connection broke")?;
    agent.wait_for("next try in")?;
    drop(server);
    agent.wait_for("no connection: Connection refused")?;
    agent.wait_for("-> offline: next try in")?;
    agent.stop(STOP)
}

#[test]
fn what_is_no_tls_is_called_so() -> Result<(), Failure> {
    let device = Device::new()?;
    let server = mute_server()?;
    let mut agent = device.start(&device.good(&server.local_addr()?)?)?;
    server.accept()?.0.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\n\r\n")?;
    agent.wait_for("does not speak TLS")?;
    agent.stop(STOP)
}

#[test]
fn every_server_is_tried_before_a_backoff() -> Result<(), Failure> {
    let device = Device::new()?;
    let (first, second) = (mute_server()?, mute_server()?);
    let mut settings = device.good(&first.local_addr()?)?.to_string();
    let both = format!("address = [\"{}\", \"{}\"]", first.local_addr()?, second.local_addr()?);
    let single = format!("address = \"{}\"", first.local_addr()?);
    assert!(settings.contains(&single), "{settings}");
    settings = settings.replace(&single, &both);
    let mut agent = device.start_with(&settings)?;
    reset(first.accept()?.0)?;
    let (stream, _) = second.accept()?;
    assert!(!agent.said("next try in"), "{:#?}", agent.lines());
    reset(stream)?;
    agent.wait_for("next try in")?;
    agent.stop(STOP)
}

#[test]
fn systemd_hears_that_it_is_ready_while_offline() -> Result<(), Failure> {
    let device = Device::new()?;
    let (socket, systemd) = device.systemd()?;
    let hole = BlackHole::new()?;
    let mut command = device.command(&device.good(&hole.address)?)?;
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "200000");
    let agent = Program::start(&mut command)?;
    hear(&systemd, "READY=1")?;
    hear(&systemd, "STATUS=connecting")?;
    for _ in 0..3 {
        hear(&systemd, "WATCHDOG=1")?;
    }
    agent.signal(Signal::HUP)?;
    hear(&systemd, "RELOADING=1\nMONOTONIC_USEC=")?;
    hear(&systemd, "READY=1")?;
    agent.signal(Signal::TERM)?;
    hear(&systemd, "STOPPING=1")
}

#[test]
fn journal_gets_priorities_and_people_get_times() -> Result<(), Failure> {
    let device = Device::new()?;
    let hole = BlackHole::new()?;
    let agent = device.command(&device.good(&hole.address)?)?;
    for (setup, line) in [
        ("export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2)", "<6>offline -> connecting"),
        ("export JOURNAL_STREAM=1:1", "Z offline -> connecting"),
    ] {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{setup}; exec \"$0\" \"$@\"")).arg(agent.get_program());
        let mut agent =
            Program::start(shell.args(agent.get_args()).env("RUNTIME_DIRECTORY", "/dev/null/no-folder"))?;
        let said = agent.wait_for("offline -> connecting")?;
        assert!(said.contains(line), "{said}");
        agent.stop(STOP)?;
    }
    Ok(())
}

#[test]
fn bad_new_configuration_leaves_the_old_one_in_force() -> Result<(), Failure> {
    let device = Device::new()?;
    let (old, new) = (mute_server()?, mute_server()?);
    let mut agent = device.start(&device.good(&old.local_addr()?)?)?;
    let (_silent, _) = old.accept()?;
    agent.wait_for("-> handshaking")?;
    fs::write(device.config(), "[server]\naddres = 1\n")?;
    agent.signal(Signal::HUP)?;
    agent.wait_for("server.addres: unknown key")?;
    agent.wait_for("the configuration before stays in force")?;
    fs::write(device.config(), device.good(&new.local_addr()?)?.to_string())?;
    agent.signal(Signal::HUP)?;
    let (_silent, _) = new.accept()?;
    agent.stop(STOP)
}

#[test]
fn status_knows_whether_its_writer_lives() -> Result<(), Failure> {
    let device = Device::new()?;
    let hole = BlackHole::new()?;
    let status = || -> Result<Output, Failure> {
        let mut command = Command::new(program("moorline-agent")?);
        run(command.arg("status").env("RUNTIME_DIRECTORY", device.folder.path()))
    };
    assert_eq!(status()?.status.code(), Some(1));
    let (socket, systemd) = device.systemd()?;
    let mut command = device.command(&device.good(&hole.address)?)?;
    let mut agent = Program::start(command.env("NOTIFY_SOCKET", socket))?;
    // The file is written before systemd is told.
    hear(&systemd, "STATUS=connecting")?;
    let said = String::from_utf8_lossy(&status()?.stdout).into_owned();
    for part in ["running", &format!("process {}", agent.id()), IMEI, "connecting"] {
        assert!(said.contains(part), "{part}\nis not in\n{said}");
    }
    agent.kill()?;
    let after = status()?;
    assert_eq!(after.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&after.stdout).contains("not running"));
    Ok(())
}

/// One device's certificates and folder.
struct Device {
    pki: Pki,
    folder: TempDir,
}

impl Device {
    fn new() -> Result<Self, Failure> {
        Ok(Self { pki: Pki::new()?, folder: tempfile::tempdir()? })
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("agent.toml")
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let file = self.folder.path().join(name);
        fs::write(&file, text)?;
        Ok(file)
    }

    fn good(&self, server: &impl ToString) -> Result<Settings, Failure> {
        Ok(self.settings(&server.to_string(), &self.pki.device(imei()?)?))
    }

    fn settings(&self, server: &str, by: &Credentials) -> Settings {
        let mut settings = Settings::default();
        settings.set("server.address", server);
        settings.set("server.trust", self.pki.ca().display());
        settings.set("identity.certificate", by.certificate.display());
        settings.set("identity.key", by.key.display());
        settings.set("identity.imei", IMEI);
        settings.set("reconnect.first", "100ms");
        settings.set("reconnect.max", "500ms");
        settings.set("state.dir", self.folder.path().display());
        settings
    }

    /// A socket to be told through, and its other end.
    fn systemd(&self) -> Result<(PathBuf, UnixDatagram), Failure> {
        let socket = self.folder.path().join("notify");
        let systemd = UnixDatagram::bind(&socket)?;
        systemd.set_read_timeout(Some(PATIENCE))?;
        Ok((socket, systemd))
    }

    fn command(&self, settings: &Settings) -> Result<Command, Failure> {
        fs::write(self.config(), settings.to_string())?;
        self.command_in_force()
    }

    fn command_in_force(&self) -> Result<Command, Failure> {
        let mut command = Command::new(program("moorline-agent")?);
        command.arg("-c").arg(self.config()).env("RUNTIME_DIRECTORY", self.folder.path());
        Ok(command)
    }

    fn start(&self, settings: &Settings) -> Result<Program, Failure> {
        Program::start(&mut self.command(settings)?)
    }

    fn start_with(&self, text: &str) -> Result<Program, Failure> {
        fs::write(self.config(), text)?;
        Program::start(&mut self.command_in_force()?)
    }
}

#[expect(clippy::disallowed_methods, reason = "here the test is the server")]
fn mute_server() -> Result<TcpListener, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)
}

/// Ends a connection by a reset instead of an orderly end.
fn reset(stream: TcpStream) -> Result<(), Failure> {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

/// Waits for a datagram that begins like this, past others.
fn hear(systemd: &UnixDatagram, text: &str) -> Result<(), Failure> {
    let mut buffer = [0; 1024];
    loop {
        let length = systemd.recv(&mut buffer)?;
        if buffer[..length].starts_with(text.as_bytes()) {
            return Ok(());
        }
    }
}

fn imei() -> Result<Imei, Failure> {
    Ok(IMEI.parse()?)
}

fn run(command: &mut Command) -> Result<Output, Failure> {
    Ok(command.output()?)
}
