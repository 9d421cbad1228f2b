//! The server's log: one JSON object a line where that is wanted, each connection found by its id; and when nobody reads it,
//! devices are served all the same, and what was lost is told.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, PipeWriter, Write as _, pipe};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use moorline_protocol::{DeviceMessage, Imei, ServerMessage};
use moorline_testbed::client::Settings;
use moorline_testbed::failure::Failure;
use moorline_testbed::process::Program;
use moorline_testbed::rig::{IMEI, Rig, SERVER_STOP, ServerSetup, free_address};
use moorline_testbed::service_manager::ServiceManager;
use rustix::fs::{OFlags, fcntl_setfl};
use serde_json::Value;

/// Enough that their lines would fill a second pipe.
const SESSIONS: usize = 300;

/// Fills a pipe to its last byte.
fn fill(pipe: &mut PipeWriter) -> Result<(), Failure> {
    fcntl_setfl(&*pipe, OFlags::NONBLOCK)?;
    let full = loop {
        if let Err(fault) = pipe.write(b"stands still\n") {
            break fault;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    Ok(fcntl_setfl(&*pipe, OFlags::empty())?)
}

/// Starts a server whose standard error is this pipe.
fn start(setup: &ServerSetup, error: PipeWriter) -> Result<Program, Failure> {
    let server = setup.command()?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 2>&1 >/dev/null", "sh"]).arg(server.get_program()).args(server.get_args());
    shell.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Program::start_between(&mut shell, Stdio::null(), error)
}

#[test]
fn server_serves_while_nobody_reads_its_log() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let devices = free_address()?;
    let mut manager = ServiceManager::listen(&rig.folder().join("notify"), Duration::from_secs(60), |_| ())?;
    let setup = rig.server()?.set("listen.devices", devices).under(&manager);
    let (reader, mut writer) = pipe()?;
    fill(&mut writer)?;
    let mut server = start(&setup, writer)?;
    manager.wait_for("READY=1")?;

    let imei: Imei = IMEI.parse()?;
    let settings = Settings::new(rig.pki(), Some(&rig.pki().device(imei)?))?;
    for _ in 0..SESSIONS {
        let mut client = settings.connect(devices)?;
        client.say_hello(imei)?;
        assert!(matches!(client.hear()?, Some(ServerMessage::Welcome(_))));
        client.send(&DeviceMessage::Heartbeat)?;
        assert_eq!(client.hear()?, Some(ServerMessage::HeartbeatAck));
    }

    // Read at last, it tells from the beginning what happened.
    let mut lines = BufReader::new(reader).lines();
    let line = |words: &str, lines: &mut dyn Iterator<Item = std::io::Result<String>>| {
        lines.map_while(Result::ok).any(|line| line.contains(words))
    };
    assert!(line("configuration ", &mut lines) && line("listening for devices on ", &mut lines));
    for _ in 0..SESSIONS {
        assert!(line(" online", &mut lines));
    }
    server.stop(SERVER_STOP)?;
    assert!(line("stopped", &mut lines), "the last line is lost");
    Ok(())
}

#[test]
fn server_stops_while_nobody_reads_its_log() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut manager = ServiceManager::listen(&rig.folder().join("notify"), Duration::from_secs(60), |_| ())?;
    let setup = rig.server()?.under(&manager);
    let (_reader, mut writer) = pipe()?;
    fill(&mut writer)?;
    let mut server = start(&setup, writer)?;
    manager.wait_for("READY=1")?;
    server.stop(SERVER_STOP)
}

/// The secret part of a PEM file.
fn secret(file: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find(|line| !line.starts_with("-----"));
    line.map(str::to_owned).ok_or_else(|| Failure::new("no key"))
}

#[test]
fn connection_is_found_by_its_id_in_json() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let setup = rig.server()?.set("log.format", "json").logging("trace");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&lines);
    let mut server = setup.heard(move |line| heard.lock().unwrap().push(line.to_owned())).start()?;
    let imei: Imei = IMEI.parse()?;
    let device = rig.pki().device(imei)?;
    let settings = Settings::new(rig.pki(), Some(&device))?;
    for _ in 0..20 {
        let mut client = settings.connect(server.devices())?;
        client.say_hello(imei)?;
        assert!(matches!(client.hear()?, Some(ServerMessage::Welcome(_))));
        // Its end is not always seen before the next one comes.
        client.cut()?;
        let mut impostor = settings.connect(server.devices())?;
        impostor.say_hello("004999010640018".parse()?)?;
        assert!(matches!(impostor.hear()?, Some(ServerMessage::Rejected(_))));
        let stranger = Settings::new(rig.pki(), None)?.connect(server.devices());
        drop(stranger.map(|mut client| client.end()));
    }
    server.operators().wait_events(IMEI, &["offline"])?;
    server.reload()?;
    server.stop()?;
    server.wait_for("\"stopped\"")?;

    let lines = lines.lock().unwrap();
    let logged: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    for line in &logged {
        for name in ["time", "level", "target", "message"] {
            assert!(line[name].is_string(), "no {name} in {line}");
        }
    }
    let online: Vec<_> = logged.iter().filter(|line| line["message"] == "online").collect();
    assert_eq!(online.len(), 20);
    for line in online {
        assert_eq!((&line["imei"], &line["dialect"]), (&Value::from(IMEI), &Value::from("native")), "{line}");
        assert!(line["session"].is_u64() && line["connection"].is_string(), "{line}");
        let life = logged.iter().filter(|other| other["connection"] == line["connection"]);
        let told: Vec<_> = life.map(|line| line["message"].as_str().unwrap_or_default()).collect();
        assert!(told.len() >= 2 && told.last().is_some_and(|last| last.starts_with("offline: ")), "{told:?}");
        assert!(!told.iter().any(|words| words.starts_with("refused: ")), "{told:?}");
    }
    let refused: Vec<_> = logged.iter().filter(|line| line["reason"] == "no_certificate").collect();
    assert!(!refused.is_empty() && refused.iter().all(|line| line["connection"].is_string()), "{refused:?}");
    let text = lines.join("\n");
    for key in [&device.key, &rig.pki().server()?.key] {
        assert!(!text.contains(&secret(key)?), "a private key is in the log");
    }
    Ok(())
}

#[test]
fn people_see_the_connection_too() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let imei: Imei = IMEI.parse()?;
    let settings = Settings::new(rig.pki(), Some(&rig.pki().device(imei)?))?;
    let mut client = settings.connect(server.devices())?;
    client.say_hello(imei)?;
    let online = server.wait_for(" online imei=")?;
    client.cut()?;
    let offline = server.wait_for(" offline: ")?;
    let id = |line: &str| line.rsplit_once(" connection=").map(|(_, id)| id.to_owned());
    assert!(id(&online).is_some() && id(&online) == id(&offline), "{online}\n{offline}");
    Ok(())
}
