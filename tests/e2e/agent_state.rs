//! What the agent keeps over a restart, and how it does without: folders that are missing, full or read-only, files that
//! are cut or garbage, another modem than before.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use moorline_testbed::confined::{MOUNTS, confined, may_confine};
use moorline_testbed::failure::Failure;
use moorline_testbed::left_out::left_out;
use moorline_testbed::modem::{Modem, Script};
use moorline_testbed::process::{PATIENCE, Program};
use moorline_testbed::rig::{IMEI, Rig};

const OTHER_IMEI: &str = "869731052403821";

#[test]
fn missing_state_folder_is_made_for_its_owner_alone() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let folder = rig.folder().join("made");
    let modem = Modem::start(Script::ordinary(IMEI))?;
    let setup = rig.agent(server.devices(), IMEI)?.modem(modem.path()).set("state.dir", folder.display());
    let said = checked(&mut setup.command()?)?;
    assert!(said.contains("made, missing; the agent makes it when it starts"), "{said}");
    assert!(!folder.exists());

    let mut agent = setup.clone().start()?;
    agent.wait_for("registered")?;
    assert_eq!(fs::metadata(&folder)?.permissions().mode() & 0o777, 0o700);
    assert!(fs::read_to_string(folder.join("modem"))?.contains(IMEI));
    agent.stop()?;
    let said = checked(&mut setup.command()?)?;
    assert!(said.contains("made, there and writable"), "{said}");
    Ok(())
}

#[test]
fn useless_state_folder_is_told_once_and_stops_no_session() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let folder = rig.folder().join("not/made");
    let setup = rig.agent(server.devices(), IMEI)?.set("state.dir", folder.display());
    let said = checked(&mut setup.command()?)?;
    assert!(said.contains("of no use: No such file or directory"), "{said}");
    let mut agent = setup.start()?;
    agent.wait_for("registered")?;
    agent.wait_for("the server's time is")?;
    agent.stop()?;
    let told = agent.lines().iter().filter(|line| line.contains("state.dir: ")).count();
    assert_eq!(told, 1, "{:#?}", agent.lines());
    Ok(())
}

#[test]
fn what_was_learned_of_the_line_is_kept_over_a_restart() -> Result<(), Failure> {
    let rig = Rig::new()?;
    // The server's bound is above the agent's own, and makes the silences short enough for a test.
    let server = rig.server()?.set("session.heartbeat_max", "2s").start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.set("heartbeat.interval", "adaptive").start()?;
    agent.wait_for("the line may be silent for 2 s")?;
    let kept = fs::read_to_string(agent.folder().join("state/keepalive"))?;
    assert_eq!(kept, "moorline keepalive 1\n- localhost 2 0\nend\n");
    let status = fs::read_to_string(agent.folder().join("status"))?;
    assert!(status.contains(", silent for up to 2 s, "), "{status}");
    // No heartbeat was the device's own.
    let metrics = server.operators().text("/metrics")?;
    assert!(metrics.contains("\nmoorline_heartbeats_total 0\n"), "{metrics}");
    agent.stop()?;
    agent.start_again()?;
    let known = agent.find("what it knows", PATIENCE, |line| {
        line.contains("the line may be silent for 2 s").then_some(()).or_else(|| {
            assert!(!line.contains("the server's time is"), "it learned anew: {line}");
            None
        })
    });
    known?;
    agent.stop()
}

#[test]
fn full_disk_is_told_once_and_stops_no_session() -> Result<(), Failure> {
    let mount =
        "mount -t tmpfs -o size=16k tmpfs \"$0\" && { cat /dev/zero >\"$0/filler\" 2>/dev/null; true; }";
    on_a_bad_disk(mount, "cannot be used: No space left on device")
}

#[test]
fn read_only_disk_is_told_once_and_stops_no_session() -> Result<(), Failure> {
    on_a_bad_disk("mount -t tmpfs -o ro tmpfs \"$0\"", "cannot be used: Read-only file system")
}

#[test]
fn disk_that_fills_later_is_told_once() -> Result<(), Failure> {
    // Room for one of the files, but not for all.
    let mount = "mount -t tmpfs -o size=4k tmpfs \"$0\"";
    on_a_bad_disk(mount, "No space left on device")
}

/// The agent works on, and one line alone says that nothing is kept: with these words.
fn on_a_bad_disk(mount: &str, words: &str) -> Result<(), Failure> {
    if !may_confine(MOUNTS) {
        left_out("this user may not mount (unshare --map-root-user --mount)");
        return Ok(());
    }
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let modem = Modem::start(Script::ordinary(IMEI))?;
    let folder = rig.folder().join("disk");
    fs::create_dir(&folder)?;
    let setup = rig.agent(server.devices(), IMEI)?.modem(modem.path()).set("state.dir", folder.display());
    let place = folder.display().to_string();
    let mut agent = Program::start(&mut confined(MOUNTS, mount, &place, &setup.command()?))?;
    agent.wait_for(words)?;
    agent.wait_for("registered")?;
    agent.wait_for("the server's time is")?;
    server.operators().wait_online(IMEI, true)?;
    agent.stop(moorline_testbed::rig::AGENT_STOP)?;
    let told = agent.lines().iter().filter(|line| line.contains("os error")).count();
    assert_eq!(told, 1, "{:#?}", agent.lines());
    Ok(())
}

#[test]
fn cut_and_garbled_state_files_are_told_and_mended() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let modem = Modem::start(Script::ordinary(IMEI))?;
    let mut agent = rig.agent(server.devices(), IMEI)?.modem(modem.path()).start()?;
    let file = agent.folder().join("state/modem");
    agent.wait_for("registered")?;
    agent.stop()?;
    let whole = fs::read(&file)?;
    for garbage in [&whole[..whole.len() / 2], b"", b"\xff\x00\xfe"] {
        fs::write(&file, garbage)?;
        fs::write(file.with_file_name("time-floor"), garbage)?;
        agent.start_again()?;
        agent.wait_for("damaged, and ignored; it is written anew with the next IMEI")?;
        agent.wait_for("registered")?;
        agent.stop()?;
        assert!(fs::read_to_string(&file)?.contains(IMEI));
    }
    Ok(())
}

#[test]
fn another_imei_than_before_is_reported_and_taken_up() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let modem = Modem::start(Script::ordinary(IMEI))?;
    let mut agent = rig.agent(server.devices(), IMEI)?.modem(modem.path()).start()?;
    agent.wait_for("registered")?;
    agent.stop()?;
    let file = agent.folder().join("state/modem");
    fs::write(&file, fs::read_to_string(&file)?.replace(IMEI, OTHER_IMEI))?;
    agent.start_again()?;
    agent.wait_for(&format!("the modem was {OTHER_IMEI} before: if it was not swapped, look into that"))?;
    agent.wait_for("registered")?;
    agent.stop()?;
    assert!(fs::read_to_string(file)?.contains(&format!("previous={OTHER_IMEI}")));
    Ok(())
}

/// What `check` says of a configuration in which it finds no mistake.
fn checked(agent: &mut Command) -> Result<String, Failure> {
    let output = agent.arg("check").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}
