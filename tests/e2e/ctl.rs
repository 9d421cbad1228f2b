//! The operator's tool beside a real server and a real device.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use moorline_testbed::failure::Failure;
use moorline_testbed::process::Program;
use moorline_testbed::programs::program;
use moorline_testbed::rig::{IMEI, Rig, Server, free_address};
use serde_json::Value;

fn ctl(server: &str, words: &[&str]) -> Result<Command, Failure> {
    let mut command = Command::new(program("moorlinectl")?);
    command.env_clear().env("MOORLINE_SERVER", server).args(words);
    Ok(command)
}

fn run(server: &Server, words: &[&str]) -> Result<Output, Failure> {
    Ok(ctl(&server.operators().url(""), words)?.output()?)
}

#[test]
fn device_is_shown_to_people_and_to_programs() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("registered")?;
    let table = String::from_utf8(run(&server, &["devices"])?.stdout)?;
    let row = table.lines().nth(1).unwrap_or_default();
    assert!(row.starts_with(&format!("{IMEI}  online  ")) && row.contains("  native  "), "{table}");
    let shown = run(&server, &["device", IMEI, "--json"])?;
    let device: Value = serde_json::from_slice(&shown.stdout)?;
    assert_eq!(
        (shown.status.code(), &device["imei"], &device["online"]),
        (Some(0), &IMEI.into(), &true.into())
    );
    Ok(())
}

#[test]
fn events_are_followed_through_a_restart() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let mut tool =
        Program::start(&mut ctl(&server.operators().url(""), &["events", "--follow", "--imei", IMEI])?)?;
    tool.wait_for("TIME (UTC)")?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    tool.wait_for(" online ")?;
    server.stop()?;
    tool.wait_for("Asking again until it answers")?;
    server.start_again()?;
    tool.wait_for("the server answers again")?;
    tool.wait_for(" offline ")?;
    tool.wait_for(" online ")?;
    agent.stop()?;
    tool.wait_for("it said goodbye")?;
    Ok(())
}

#[test]
fn each_failure_has_its_exit_code() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    for (words, code, text) in [
        (&["device", IMEI][..], 3, "no device with the IMEI 004999010640000 ever came or was added"),
        (&["device", "123"], 2, "it has 3 digits, an IMEI has 15"),
        (&["devices", "--server", "ftp://here"], 2, "it is of the form http://127.0.0.1:9090"),
    ] {
        let output = run(&server, words)?;
        let said = String::from_utf8(output.stderr)?;
        assert!(output.status.code() == Some(code) && said.contains(text), "{words:?}: {said}");
    }
    let nobody = ctl(&free_address()?.to_string(), &["devices"])?.output()?;
    let said = String::from_utf8(nobody.stderr)?;
    assert!(nobody.status.code() == Some(1) && said.contains("is moorline-server running"), "{said}");
    Ok(())
}

#[test]
fn reader_that_has_seen_enough_is_no_failure() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let _agent = rig.agent(server.devices(), IMEI)?.start()?;
    server.operators().wait_events(IMEI, &["online"])?;
    let mut tool = ctl(&server.operators().url(""), &["events", "--follow", "--json"])?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut first = String::new();
    // The pipe is closed with the reader, and the next event finds nobody.
    tool.stdout.take().map(BufReader::new).map(|mut out| out.read_line(&mut first)).transpose()?;
    assert!(first.contains("\"kind\":\"online\""), "{first}");
    let again = rig.agent(server.devices(), IMEI)?.start()?;
    let output = tool.wait_with_output()?;
    drop(again);
    assert_eq!((output.status.code(), String::from_utf8(output.stderr)?.as_str()), (Some(0), ""));
    Ok(())
}

/// The README's walk, by its very commands.
#[test]
fn device_is_seen_blocked_gone_unblocked_and_back() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    server.operators().wait_online(IMEI, true)?;
    let told = |words: &[&str], wanted: &str| {
        let output = run(&server, words)?;
        let said = String::from_utf8(output.stdout)?;
        let lines: Vec<_> =
            said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let is_told = lines.iter().any(|line| line.starts_with(wanted));
        assert!(output.status.success() && is_told, "{words:?}: {said}");
        Ok::<_, Failure>(())
    };
    told(&["device", IMEI], "State online")?;
    told(&["block", IMEI, "--reason", "stolen"], "Admission blocked since ")?;
    server.operators().wait_online(IMEI, false)?;
    told(&["device", IMEI], "State blocked")?;
    agent.wait_for("the server rejected this device: the device is blocked")?;
    told(&["unblock", IMEI], "Admission active")?;
    // It was turned away, so it comes after a minute, by itself.
    let is_back = (0..12).any(|_| server.operators().wait_online(IMEI, true).is_ok());
    assert!(is_back, "{:#?}", agent.lines());
    told(&["device", IMEI], "State online")?;
    agent.stop()
}
