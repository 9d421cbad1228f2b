//! What the agent makes of its clock and of its server's time, as a process: what it says, what it keeps, and what it
//! leaves alone. Whether this machine's clock is kept right decides what can be seen here; both cases are tried with
//! clocks that are made up in `agent_dates.rs`, and with clocks that are wrong in `guest_clock.rs`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use moorline_agent::clock;
use moorline_agent::floor::BUILT;
use moorline_agent::synchronised;
use moorline_certs::Validity;
use moorline_protocol::{ALPN, Imei, ServerMessage, Time, Welcome};
use moorline_testbed::bare_server::{BareServer, Connection};
use moorline_testbed::certs::ServerFlaw;
use moorline_testbed::confined::{MOUNTS, confined, may_confine};
use moorline_testbed::failure::Failure;
use moorline_testbed::left_out::left_out;
use moorline_testbed::process::Program;
use moorline_testbed::rig::{AGENT_STOP, AgentSetup, IMEI, Rig};
use time::{Duration, OffsetDateTime};

#[test]
fn log_and_status_say_which_time_counts() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let runtime = rig.folder().join("runtime");
    let mut command = rig.agent(server.devices(), IMEI)?.command()?;
    command.env("RUNTIME_DIRECTORY", &runtime);
    let mut agent = Program::start(&mut command)?;
    let words = if is_synchronised() {
        "clock synchronised: certificates are judged by it"
    } else {
        "clock not synchronised: certificates are judged by the floor 20"
    };
    agent.wait_for(words)?;
    agent.wait_for("registered")?;
    let mut status = Command::new(command.get_program());
    let said = status.arg("status").env("RUNTIME_DIRECTORY", &runtime).output()?.stdout;
    let said = String::from_utf8(said)?;
    let words = words.replace("clock ", "clock    ");
    assert!(said.lines().any(|line| line.starts_with(&words)), "{said}");
    agent.stop(AGENT_STOP)?;
    assert_eq!(agent.lines().iter().filter(|line| line.contains("certificates are judged by")).count(), 1);
    Ok(())
}

#[test]
fn server_that_begins_tomorrow_is_judged_by_the_time_that_counts() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.certified(&rig.pki().flawed_server(ServerFlaw::NotYetValid)?).start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    if is_synchronised() {
        agent.wait_for("the server's certificate is valid from")?;
        return agent.stop();
    }
    agent.wait_for("the server's certificates are valid from")?;
    agent.wait_for("registered")?;
    agent.stop()
}

#[test]
fn server_in_2099_raises_the_floor_no_further_than_the_first_certificate_lasts() -> Result<(), Failure> {
    let now = OffsetDateTime::now_utc();
    // The server's lasts for 50 days.
    for (devices, first) in [(55, 50), (10, 10)] {
        let rig = Rig::new()?;
        let validity = Validity { not_before: now - Duration::DAY, not_after: now + Duration::days(devices) };
        let device = rig.pki().device_valid(IMEI.parse::<Imei>()?, validity)?;
        let server = BareServer::start(rig.pki(), &[ALPN])?;
        let mut agent = rig.agent(server.address()?, IMEI)?.certified(&device).start()?;
        let floor = agent.folder().join("state/time-floor");
        let mut connection = server.accept()?;
        tell_time(&mut connection, 4_070_908_800_000)?;
        agent.wait_for("the server's time is 2099-01-01T")?;
        // What is said after it was written.
        drop(connection);
        agent.wait_for("online -> offline")?;
        if is_synchronised() {
            // Two clocks that differ, of which nobody knows which is right.
            assert!(!floor.exists());
        } else {
            let end = now + Duration::days(first);
            let kept = kept(&floor)?;
            let slack = Duration::minutes(1);
            assert!((end - slack..=end + slack).contains(&kept), "{kept} is not {end}");
            // Who was accepted before is accepted still.
            let mut connection = server.accept()?;
            tell_time(&mut connection, 4_070_908_800_000)?;
            agent.wait_for("-> online")?;
        }
        agent.stop()?;
    }
    Ok(())
}

#[test]
fn floor_follows_a_native_server_and_outlives_a_restart() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    let floor = agent.folder().join("state/time-floor");
    agent.wait_for("the floor is raised to 20")?;
    agent.stop()?;
    let first = kept(&floor)?;
    assert!(OffsetDateTime::now_utc() - first < Duration::minutes(5), "{first}");
    agent.start_again()?;
    agent.wait_for("the server's time is")?;
    agent.stop()?;
    assert!(!agent.said("the floor is raised"), "{:#?}", agent.lines());
    assert_eq!(kept(&floor)?, first, "twice in a day");
    Ok(())
}

#[test]
fn classic_time_raises_no_floor() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.set("server.protocol", "classic").start()?;
    agent.wait_for("the server's local time is")?;
    agent.stop()?;
    assert!(!agent.folder().join("state/time-floor").exists());
    Ok(())
}

#[test]
fn clock_that_may_not_be_set_is_told_once() -> Result<(), Failure> {
    if is_synchronised() {
        left_out("a clock that the server sets: this machine's is synchronised, and so left alone");
        return Ok(());
    }
    // In a user namespace nobody may set the clock, root neither: this machine's is safe.
    if !may_confine(MOUNTS) {
        left_out("this user may not mount (unshare --map-root-user --mount)");
        return Ok(());
    }
    let rig = Rig::new()?;
    let server = BareServer::start(rig.pki(), &[ALPN])?;
    let setup = rig.agent(server.address()?, IMEI)?.set("clock.set", true);
    let mut agent = Program::start(&mut confined(MOUNTS, "true", "", &setup.command()?))?;
    let in_two_days =
        (OffsetDateTime::now_utc() + Duration::hours(47) + Duration::minutes(30)).unix_timestamp() * 1000;
    for _ in 0..2 {
        let mut connection = server.accept()?;
        tell_time(&mut connection, in_two_days)?;
        agent.wait_for("23h ahead of this clock")?;
    }
    let mut connection = server.accept()?;
    // Before the floor: a server that is wrong for certain.
    tell_time(&mut connection, 1_000_000_000_000)?;
    agent.wait_for("the clock is not set to the server's time, 2001-09-09T01:46:40Z")?;
    agent.stop(AGENT_STOP)?;
    let told: Vec<_> = agent.lines().into_iter().filter(|line| line.contains("clock.set: ")).collect();
    assert_eq!(told.len(), 1, "{:#?}", agent.lines());
    assert!(told[0].contains("Operation not permitted") && told[0].contains("CAP_SYS_TIME"), "{told:?}");
    Ok(())
}

#[test]
fn check_says_what_becomes_of_the_clock() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let check = |setup: AgentSetup| -> Result<String, Failure> {
        Ok(String::from_utf8(setup.command()?.arg("check").output()?.stdout)?)
    };
    let setup = rig.agent(server.devices(), IMEI)?;
    assert!(check(setup.clone())?.contains("\nclock      left alone\n"));
    assert!(check(setup.set("clock.set", true))?.contains("\nclock      set by the server's time"));
    Ok(())
}

/// Takes the device in, and answers its question for the time with this one.
fn tell_time(connection: &mut Connection, utc_ms: i64) -> Result<(), Failure> {
    let welcome = Welcome { session_id: 1, heartbeat_s: 60, server_time_ms: utc_ms, spread_s: 0 };
    for answer in
        [ServerMessage::Welcome(welcome), ServerMessage::Time(Time { t1: 0, t2: utc_ms, t3: utc_ms })]
    {
        // Hello, then TimeRequest: a record each.
        assert!(connection.read(&mut [0; 256])? > 0);
        let mut frame = [0; ServerMessage::MAX_ENCODED];
        let length = answer.encode(&mut frame)?;
        connection.write_all(&frame[..length])?;
        connection.flush()?;
    }
    Ok(())
}

/// The floor that was kept.
fn kept(file: &Path) -> Result<OffsetDateTime, Failure> {
    let seconds: i64 = fs::read_to_string(file)?.trim_end().parse()?;
    assert!(seconds >= BUILT as i64, "{seconds}");
    Ok(OffsetDateTime::from_unix_timestamp(seconds)?)
}

/// Whether this machine's clock counts.
fn is_synchronised() -> bool {
    synchronised::is_synchronised(clock::now().utc_ms)
}
