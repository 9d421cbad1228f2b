//! What the server's store promises when servers die, disks fill and files are not what they should be.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use moorline_testbed::failure::Failure;
use moorline_testbed::http::Operators;
use moorline_testbed::left_out::left_out;
use moorline_testbed::process::{PATIENCE, Program};
use moorline_testbed::programs::program;
use moorline_testbed::rig::{IMEI, Rig, Server};
use serde_json::Value;

/// What `kill -9` may cost at most.
const STORED_WITHIN: Duration = Duration::from_secs(1);

/// Lets time pass that is part of a promise.
fn let_pass(time: Duration) {
    let (_silent, clock) = mpsc::channel::<()>();
    let _ = clock.recv_timeout(time);
}

fn told(event: &Value) -> (&str, &str) {
    (event["kind"].as_str().unwrap_or_default(), event["cause"].as_str().unwrap_or_default())
}

#[test]
fn killed_server_keeps_what_is_older_than_a_second() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    let mut expected = Vec::new();
    for _ in 0..3 {
        agent.wait_for("registered")?;
        let_pass(STORED_WITHIN);
        server.kill()?;
        server.start_again()?;
        expected.extend([("online", ""), ("offline", "server_stopped")]);
    }
    server.operators().wait_online(IMEI, true)?;
    expected.push(("online", ""));
    let kinds: Vec<_> = expected.iter().map(|(kind, _)| *kind).collect();
    let events = server.operators().wait_events(IMEI, &kinds)?;
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), expected);
    Ok(())
}

#[test]
fn server_killed_at_any_moment_finds_its_file_whole() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let _agents = [IMEI, "869731052403821", "015184008301272"]
        .map(|imei| rig.agent(server.devices(), imei).and_then(moorline_testbed::rig::AgentSetup::start));
    for round in 0..8 {
        let_pass(Duration::from_millis(90 * round));
        server.kill()?;
        server.start_again()?;
    }
    let agent = server.operators().wait_online(IMEI, true)?;
    let events = server.operators().json("/api/events?limit=1000&after=0")?;
    let events = events["events"].as_array().cloned().unwrap_or_default();
    let sessions: Vec<_> = events
        .iter()
        .filter(|event| event["kind"] == "online")
        .map(|event| event["session_id"].as_u64())
        .collect();
    assert!(sessions.is_sorted_by(|earlier, later| earlier < later), "an id came twice: {sessions:?}");
    assert!(agent["session_id"].as_u64() >= sessions.last().copied().flatten(), "{agent} after {sessions:?}");
    Ok(())
}

#[test]
fn stopped_server_stores_its_last_words() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("registered")?;
    server.stop()?;
    agent.stop()?;
    server.start_again()?;
    let events = server.operators().wait_events(IMEI, &["online", "offline"])?;
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), [("online", ""), ("offline", "server_stopping")]);
    Ok(())
}

#[test]
fn file_that_is_no_database_is_refused_and_left_alone() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let file = rig.folder().join("notes.txt");
    let notes = "Not a database, but somebody's notes.\n".repeat(100);
    fs::write(&file, &notes)?;
    let mut command = rig.server()?.set("store.path", file.display()).command()?;
    let mut server = Program::start(&mut command)?;
    assert_eq!(server.wait_exit(PATIENCE)?.code(), Some(1));
    assert!(server.said("store.path: ") && server.said("notes.txt: this is not a database: move it away"));
    assert_eq!(fs::read_to_string(&file)?, notes);
    Ok(())
}

/// A server whose store is in a folder that `mount` makes a disk of its own, and that folder.
fn start_on_a_disk(rig: &Rig, mount: &str) -> Result<(Program, PathBuf), Failure> {
    let folder = rig.folder().join("disk");
    fs::create_dir(&folder)?;
    let command = rig.server()?.set("store.path", folder.join("fleet.db").display()).command()?;
    let mut confined = Command::new("unshare");
    confined
        .args(["--map-root-user", "--mount", "sh", "-c"])
        .arg(format!("{mount} && exec \"$@\""))
        .arg(&folder)
        .arg(command.get_program())
        .args(command.get_args());
    Ok((Program::start(&mut confined)?, folder))
}

/// A server whose store is on a disk of its own of half a megabyte, which this process can fill.
struct SmallDisk {
    server: Program,
    operators: Operators,
    devices: std::net::SocketAddr,
    disk: PathBuf,
}

impl SmallDisk {
    fn start(rig: &Rig) -> Result<Self, Failure> {
        let (mut server, mount) = start_on_a_disk(rig, "mount -t tmpfs -o size=512k tmpfs \"$0\"")?;
        let address =
            |line: &str, words: &str| line.split_once(words).and_then(|(_, rest)| rest.trim().parse().ok());
        let operators =
            server.find("its operators", PATIENCE, |line| address(line, "operators on http://"))?;
        let devices =
            server.find("its devices", PATIENCE, |line| address(line, "listening for devices on "))?;
        let disk = PathBuf::from(format!("/proc/{}/root", server.id())).join(mount.strip_prefix("/")?);
        Ok(Self { server, operators: Operators(operators), devices, disk })
    }

    fn filler(&self) -> PathBuf {
        self.disk.join("filler")
    }

    fn fill(&self) -> Result<(), Failure> {
        let mut filler = File::create(self.filler())?;
        while filler.write_all(&[0; 4096]).is_ok() {}
        Ok(())
    }
}

/// Whether this machine lets its users have file systems of their own.
fn can_mount() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args(["--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    unshare.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[test]
fn full_disk_is_told_and_sessions_go_on() -> Result<(), Failure> {
    if !can_mount() {
        left_out("this user may not mount (unshare --map-root-user --mount)");
        return Ok(());
    }
    let rig = Rig::new()?;
    let mut small = SmallDisk::start(&rig)?;
    let operators = small.operators;
    operators.wait_until("/readyz", "that it is ready", |ready| (ready["ready"] == true).then_some(()))?;
    small.fill()?;
    let mut agent = rig.agent(small.devices, IMEI)?.start()?;
    agent.wait_for("registered")?;
    small.server.wait_for("the store cannot be written")?;
    assert!(small.server.said("the disk is full: make room on it"));
    let (status, problem) = not_ready(operators)?;
    assert!(status == 503 && problem.contains("the disk is full"), "{status}: {problem}");
    // The device is online, and listed, though the disk does not know it.
    operators.wait_online(IMEI, true)?;
    fs::remove_file(small.filler())?;
    small.server.wait_for("the store can be written again")?;
    operators.wait_events(IMEI, &["online"])?;
    operators.wait_until("/readyz", "that it is ready", |ready| (ready["ready"] == true).then_some(()))?;
    agent.stop()
}

#[test]
fn read_only_disk_is_refused_in_words() -> Result<(), Failure> {
    if !can_mount() {
        left_out("this user may not mount (unshare --map-root-user --mount)");
        return Ok(());
    }
    for before in ["true", ": >\"$0/fleet.db\""] {
        let rig = Rig::new()?;
        let mount = format!("mount -t tmpfs tmpfs \"$0\" && {before} && mount -o remount,ro \"$0\"");
        let (mut server, _) = start_on_a_disk(&rig, &mount)?;
        assert_eq!(server.wait_exit(PATIENCE)?.code(), Some(1), "{before}");
        let words = server.lines().join("\n");
        assert!(words.contains("store.path: ") && words.to_lowercase().contains("read-only"), "{words}");
    }
    Ok(())
}

fn not_ready(operators: Operators) -> Result<(u16, String), Failure> {
    let mut answer =
        ureq::get(operators.url("/readyz")).config().http_status_as_error(false).build().call()?;
    let text = answer.body_mut().read_to_string()?;
    Ok((answer.status().as_u16(), text))
}

fn backup(server: &Server, file: &Path) -> Result<Output, Failure> {
    let mut command = Command::new(program("moorlinectl")?);
    command.env_clear().env("MOORLINE_SERVER", server.operators().url("")).arg("backup").arg(file);
    Ok(command.output()?)
}

/// While a device is online; then the file is lost, the server refuses to begin on what is left, and takes the backup.
#[test]
fn lost_fleet_is_restored_from_a_backup() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let file = rig.folder().join("fleet.db");
    let mut server = rig.server()?.set("store.path", file.display()).start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    server.operators().wait_events(IMEI, &["online"])?;
    let copy = rig.folder().join("monday.db");
    let taken = backup(&server, &copy)?;
    assert_eq!((taken.status.code(), String::from_utf8_lossy(&taken.stderr).as_ref()), (Some(0), ""));
    assert!(String::from_utf8(taken.stdout)?.contains("monday.db: "));
    // What is there is written over by nobody.
    let again = backup(&server, &copy)?;
    let said = String::from_utf8(again.stderr)?;
    assert!(again.status.code() == Some(1) && said.contains("monday.db is there already"), "{said}");

    let running = restore(&server, &copy)?;
    let said = String::from_utf8(running.stderr)?;
    assert!(
        running.status.code() == Some(1) && said.contains("a server has it open: stop it first"),
        "{said}"
    );
    agent.stop()?;
    server.stop()?;
    let whole = fs::read(&file)?;
    fs::write(&file, &whole[..whole.len() / 2])?;
    // What the journal may still hold would make it whole again.
    for companion in ["fleet.db-wal", "fleet.db-shm"].map(|name| file.with_file_name(name)) {
        if companion.exists() {
            fs::remove_file(companion)?;
        }
    }
    let damaged = fs::read(&file)?;
    let refusal = server.start_again().map(drop).map_err(|failure| failure.to_string());
    assert!(refusal.as_ref().is_err_and(|said| said.contains("the database is damaged")), "{refusal:?}");
    assert_eq!(fs::read(&file)?, damaged);

    let restored = restore(&server, &copy)?;
    let said = String::from_utf8(restored.stdout)?;
    assert!(restored.status.success() && said.contains("what it held before is in "), "{said}");
    server.start_again()?;
    let device = server.operators().device(IMEI)?;
    assert_eq!((&device["imei"], &device["online"]), (&IMEI.into(), &false.into()));
    Ok(())
}

fn restore(server: &Server, backup: &Path) -> Result<Output, Failure> {
    let mut command = Command::new(program("moorline-server")?);
    Ok(command
        .env_clear()
        .arg("-c")
        .arg(server.folder().join("config.toml"))
        .arg("restore")
        .arg(backup)
        .output()?)
}
