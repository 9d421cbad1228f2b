//! The agent's log when nobody reads it: the session matters more than the lines, and what was lost is told.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _, pipe};
use std::process::{Command, Stdio};

use moorline_testbed::failure::Failure;
use moorline_testbed::process::Program;
use moorline_testbed::rig::{AGENT_STOP, IMEI, Rig};
use rustix::fs::{OFlags, fcntl_setfl};

#[test]
fn session_stands_while_nobody_reads_the_log() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let (reader, mut writer) = pipe()?;
    fcntl_setfl(&writer, OFlags::NONBLOCK)?;
    let full = loop {
        if let Err(fault) = writer.write(b"stands still\n") {
            break fault;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    fcntl_setfl(&writer, OFlags::empty())?;

    let agent = rig.agent(server.devices(), IMEI)?.command()?;
    // Its standard error is the pipe; what is heard of the shell is nothing.
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 2>&1 >/dev/null", "sh"]).arg(agent.get_program()).args(agent.get_args());
    shell.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut agent = Program::start_between(&mut shell, Stdio::null(), writer)?;
    let first = server.operators().wait_online(IMEI, true)?["last_seen"].clone();
    server.operators().wait_until("/api/devices", "a heartbeat", |list| {
        (list["devices"].as_array()?.first()?["last_seen"] != first).then_some(())
    })?;

    // Read at last, it says with its next line that some are missing.
    let lines = BufReader::new(reader).lines().map_while(Result::ok);
    let mut lines = lines.skip_while(|line| line.contains("stands still"));
    let told = std::thread::spawn(move || lines.next());
    agent.stop(AGENT_STOP)?;
    let told = told.join().unwrap_or_default().unwrap_or_default();
    assert!(told.contains("lines were lost here: nobody read them"), "{told}");
    Ok(())
}
