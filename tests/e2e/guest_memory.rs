//! What the agent holds of a board's memory, each of those that boards are made for, under its own unit, and that it never holds more, however long it is
//! online. Ignored unless asked for, as those of `guest.rs`.
//!
//! A heartbeat a second, which is the quickest, would take 2,000 of them more than half an hour. So most of them are what a
//! device has in their place whose silence is learned: the server asks (Echo), the device answers. They pass through the same
//! link and session, and come as fast as the board can answer. The server is a bare one, as the real one would not hurry so.

use std::fs;

use moorline_protocol::{ALPN, DeviceMessage, Imei, ServerMessage, Time, Welcome};
use moorline_testbed::bare_server::{BareServer, Conversation};
use moorline_testbed::board;
use moorline_testbed::failure::Failure;
use moorline_testbed::footprint::Footprint;
use moorline_testbed::guest::{BOOT, Board, Guest};
use moorline_testbed::modem::{Modem, Script};
use moorline_testbed::process::PATIENCE;
use moorline_testbed::programs::distribution;
use moorline_testbed::rig::{IMEI, Rig};

/// Before the first look; they fill what there is to fill.
const FIRST: Exchanges = Exchanges { heartbeats: 5, echoes: 495 };
/// Between the two looks.
const BETWEEN: Exchanges = Exchanges { heartbeats: 10, echoes: 1990 };
/// Two pages, as a look may find one that is in use just now.
const SHIFT_KIB: u64 = 8;

/// Questions with their answers: the device's own, and the server's.
#[derive(Clone, Copy)]
struct Exchanges {
    heartbeats: u32,
    echoes: u32,
}

#[test]
#[ignore = "boots a guest"]
fn smallest_armv7_agent_holds_little_memory_and_never_more() -> Result<(), Failure> {
    holds_at_most(Board::Armhf, "armv7-unknown-linux-musleabihf/smallest", 1024)
}

#[test]
#[ignore = "boots a guest"]
fn smallest_aarch64_agent_holds_little_memory_and_never_more() -> Result<(), Failure> {
    holds_at_most(Board::Arm64, "aarch64-unknown-linux-musl/smallest", 1280)
}

#[test]
#[ignore = "boots a guest"]
fn standard_armv7_agent_holds_little_memory_and_never_more() -> Result<(), Failure> {
    holds_at_most(Board::Armhf, "armv7-unknown-linux-gnueabihf/standard", 1536)
}

#[test]
#[ignore = "boots a guest"]
fn standard_aarch64_agent_holds_little_memory_and_never_more() -> Result<(), Failure> {
    holds_at_most(Board::Arm64, "aarch64-unknown-linux-gnu/standard", 2048)
}

fn holds_at_most(board: Board, agent: &str, most_kib: u64) -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = BareServer::start(rig.pki(), &[ALPN])?;
    let modem = Modem::start(Script::ordinary(IMEI))?;
    let device = rig.pki().device(IMEI.parse::<Imei>()?)?;
    let program = fs::read(distribution().join(agent).join("moorline-agent"))?;
    let setup = board::with_agent(board, rig.pki(), &device)?.file("usr/bin/moorline-agent", 0o755, program);
    let mut guest = setup.server(server.address()?).modem(modem.path()).boot()?;
    guest.wait_shell()?;
    guest.wait_journal(board::UNIT, IMEI, BOOT)?;
    let mut conversation = welcome(&server)?;
    let process = guest.ask("systemctl show --value --property MainPID moorline-agent", PATIENCE)?;

    exchange(&mut conversation, FIRST)?;
    let before = footprint(&mut guest, &process)?;
    exchange(&mut conversation, BETWEEN)?;
    let after = footprint(&mut guest, &process)?;
    println!("{agent}: {before:?}, then {after:?}");
    assert!(after.pss_kib <= most_kib, "{after:?}");
    assert!(after.pss_kib <= before.pss_kib + SHIFT_KIB, "{before:?}, then {after:?}");
    // All that the kernel counts for the unit, which is more than the process, never came near what it may have.
    let group = "cd /sys/fs/cgroup/system.slice/moorline-agent.service && cat memory.max && grep '^max ' memory.events";
    assert_eq!(guest.ask(group, PATIENCE)?, "16777216\nmax 0");
    Ok(())
}

fn footprint(guest: &mut Guest, process: &str) -> Result<Footprint, Failure> {
    Footprint::read(&guest.ask(&format!("cat /proc/{process}/smaps_rollup"), PATIENCE)?)
}

/// Takes the device in.
fn welcome(server: &BareServer) -> Result<Conversation, Failure> {
    let mut agent = Conversation::new(server.accept()?);
    let DeviceMessage::Hello(hello) = agent.hear()? else {
        return Err(Failure::new("it does not say Hello"));
    };
    assert_eq!(hello.heartbeat_s, 1);
    let granted = Welcome { session_id: 1, heartbeat_s: hello.heartbeat_s, server_time_ms: 0, spread_s: 1 };
    agent.say(&ServerMessage::Welcome(granted))?;
    Ok(agent)
}

/// Waits for heartbeats and answers them, then asks, each time as soon as it is answered.
fn exchange(agent: &mut Conversation, Exchanges { heartbeats, echoes }: Exchanges) -> Result<(), Failure> {
    for _ in 0..heartbeats {
        while hear(agent)? != DeviceMessage::Heartbeat {}
    }
    for token in 0..echoes {
        agent.say(&ServerMessage::Echo { token })?;
        while hear(agent)? != (DeviceMessage::EchoAck { token }) {}
    }
    Ok(())
}

/// The next thing that the device says, answered where it asks for an answer.
fn hear(agent: &mut Conversation) -> Result<DeviceMessage, Failure> {
    let heard = agent.hear()?;
    match &heard {
        DeviceMessage::Heartbeat => agent.say(&ServerMessage::HeartbeatAck)?,
        DeviceMessage::TimeRequest { t1 } => {
            agent.say(&ServerMessage::Time(Time { t1: *t1, t2: *t1, t3: *t1 }))?;
        }
        _ => {}
    }
    Ok(heard)
}
