//! The agents for ARM boards, as they are shipped, under QEMU's user mode: they pass the tests that this machine's own agent
//! passes, against this machine's server. Ignored unless asked for, since they need what `packaging/build` makes.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use moorline_testbed::failure::Failure;
use moorline_testbed::left_out::left_out;
use moorline_testbed::modem::{Modem, Script};
use moorline_testbed::programs::{OTHER_AGENT, cargo, shipped_agent};
use moorline_testbed::rig::{IMEI, Rig};

/// The test programs that a foreign agent goes through: the whole life of a session, bad lines, mistakes and commands.
const TESTS: [&str; 3] = ["spine", "agent_link", "agent_process"];

/// What the user mode of older QEMUs, 7.2 for one, says to the system call that sets a port's speed (TCGETS2). No port can
/// be opened then; the guests' tests have the modem.
const NO_SPEED: &str = "Function not implemented";
const NEEDS_A_PORT: &str = "it_stops_while_a_modem_is_silent";

/// Tests that expect TLS 1.2 and the public roots to be missing.
const OF_THE_SMALLEST: [&str; 2] = ["every_mistake_is_told_at_once", "each_bad_file_has_its_words"];

#[test]
#[ignore = "needs what packaging/build makes"]
fn smallest_agent_for_armv7_does_what_this_machines_does() -> Result<(), Failure> {
    does_what_this_machines_does("armv7-unknown-linux-musleabihf/smallest", &[])
}

#[test]
#[ignore = "needs what packaging/build makes"]
fn standard_agent_for_armv7_does_what_this_machines_does() -> Result<(), Failure> {
    does_what_this_machines_does("armv7-unknown-linux-gnueabihf/standard", &OF_THE_SMALLEST)
}

#[test]
#[ignore = "needs what packaging/build makes"]
fn smallest_agent_for_aarch64_does_what_this_machines_does() -> Result<(), Failure> {
    does_what_this_machines_does("aarch64-unknown-linux-musl/smallest", &[])
}

#[test]
#[ignore = "needs what packaging/build makes"]
fn standard_agent_for_aarch64_does_what_this_machines_does() -> Result<(), Failure> {
    does_what_this_machines_does("aarch64-unknown-linux-gnu/standard", &OF_THE_SMALLEST)
}

fn does_what_this_machines_does(agent: &str, skipped: &[&str]) -> Result<(), Failure> {
    let program = shipped_agent(agent)?;
    let modem = Modem::start(Script::ordinary(IMEI))?;
    let has_modem = asks(&program, &modem)?;
    is_online_as_itself(agent, &program, has_modem.then_some(&modem))?;

    let mut tests = cargo("test");
    tests.arg("--no-fail-fast").args(TESTS.iter().flat_map(|test| ["--test", test]));
    tests.arg("--").args(skipped.iter().flat_map(|test| ["--skip", test])).env(OTHER_AGENT, agent);
    if !has_modem {
        left_out(&format!("the modem of {agent}: this QEMU's user mode opens no serial port"));
        tests.args(["--skip", NEEDS_A_PORT]);
    }
    let Output { status, stdout, stderr } = tests.output()?;
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{said}");
    let passed = said.lines().filter(|line| line.ends_with(" ... ok")).count();
    assert!(passed > 20, "tests were not found:\n{said}");
    Ok(())
}

/// Reads the IMEI from its modem; `false` when QEMU lets it open no port.
fn asks(program: &Path, modem: &Modem) -> Result<bool, Failure> {
    let asked = Command::new(program).args(["imei", "--port"]).arg(modem.path()).output()?;
    if String::from_utf8_lossy(&asked.stderr).contains(NO_SPEED) {
        return Ok(false);
    }
    assert_eq!(String::from_utf8_lossy(&asked.stdout).trim_end(), IMEI, "{asked:?}");
    Ok(true)
}

/// Comes online, and is a foreign program.
fn is_online_as_itself(agent: &str, program: &Path, modem: Option<&Modem>) -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut setup = rig.agent(server.devices(), IMEI)?.program(program);
    if let Some(modem) = modem {
        setup = setup.modem(modem.path());
    }
    let mut running = setup.start()?;
    running.wait_for("registered")?;
    server.operators().wait_online(IMEI, true)?;
    let runs = fs::read_link(format!("/proc/{}/exe", running.id()))?.display().to_string();
    assert!(runs.contains("/qemu-") || agent.starts_with(env::consts::ARCH), "{runs}");
    running.stop()
}
