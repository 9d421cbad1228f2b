//! The server's log when nobody reads it: devices are served all the same, and what was lost is told.

use std::io::{BufRead as _, BufReader, ErrorKind, PipeWriter, Write as _, pipe};
use std::process::{Command, Stdio};
use std::time::Duration;

use moorline_protocol::{DeviceMessage, Imei, ServerMessage};
use moorline_testbed::client::Settings;
use moorline_testbed::failure::Failure;
use moorline_testbed::process::Program;
use moorline_testbed::rig::{IMEI, Rig, SERVER_STOP, ServerSetup, free_address};
use moorline_testbed::service_manager::ServiceManager;
use rustix::fs::{OFlags, fcntl_setfl};

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
