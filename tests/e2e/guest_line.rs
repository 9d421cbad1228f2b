//! The agent on a board whose own kernel makes its line slow, narrow and lossy (netem), where `field_link.rs` has the
//! testbed's forwarder do so. Ignored unless asked for, as those of `guest.rs`.
//!
//! netem delays, narrows and loses what the board sends; what the server says comes as it is. So a round trip is the delay
//! once, and not twice.

use std::time::Duration;

use moorline_testbed::board;
use moorline_testbed::failure::Failure;
use moorline_testbed::guest::{BOOT, Board, GuestSetup};
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::IMEI;
use moorline_testbed::scene::Scene;
use serde_json::Value;

/// EDGE where it is good.
const EDGE: Line = Line { netem: "delay 350ms rate 50kbit", at_least: Duration::from_millis(350) };
/// Coverage that is about to end.
const WEAK: Line = Line { netem: "delay 1500ms rate 30kbit", at_least: Duration::from_millis(1500) };
/// As [`EDGE`], and one packet in twenty is lost.
const LOSSY: Line = Line { netem: "delay 350ms rate 50kbit loss 5%", at_least: Duration::from_millis(350) };
/// Nothing gets through.
const DARK: &str = "loss 100%";

/// The board's only interface, whose name depends on its bus.
const INTERFACE: &str = "$(ip -o route show default | cut -d' ' -f5)";
/// Heartbeats that a line which loses one packet in twenty carries without a loss once in thousands of runs, at the most.
const MOST_SPARED: usize = 100;
/// How many connections the agent has begun since the boot.
const CONNECTING: &str = "journalctl --boot --unit moorline-agent --output cat | grep -c -e '-> connecting'";

/// What the board's kernel makes of its line.
struct Line {
    netem: &'static str,
    /// No round trip on it is shorter.
    at_least: Duration,
}

#[test]
#[ignore = "boots a guest"]
fn slow_narrow_and_lossy_lines_carry_a_session() -> Result<(), Failure> {
    let mut scene = Scene::online_with(Board::Arm64, |setup| heartbeat_every("2s", setup))?;
    for (line, heartbeats) in [(EDGE, 5), (WEAK, 5), (LOSSY, 15)] {
        come_online_over(&mut scene, &line)?;
        stay_online(&scene, heartbeats)?;
        let said = scene.guest.ask("moorline-agent status", PATIENCE)?;
        println!("{}: {said}", line.netem);
        let round_trip = round_trip(&said)?;
        assert!(round_trip >= line.at_least, "netem does nothing: {round_trip:?}, {said}");
    }
    // Chance may have spared the last line so far: on, until it has lost something.
    for _ in 0..MOST_SPARED {
        if lost(&mut scene)? > 0 {
            break;
        }
        stay_online(&scene, 1)?;
    }
    let lost = lost(&mut scene)?;
    println!("{lost} packets lost");
    assert!(lost > 0, "netem loses nothing");
    assert_eq!(scene.guest.ask(board::RESTARTS, PATIENCE)?, "0 active");
    Ok(())
}

#[test]
#[ignore = "boots a guest"]
fn line_that_loses_everything_is_noticed_and_comes_back_by_itself() -> Result<(), Failure> {
    // The board must be the first to notice: the server's goodbye would reach it, as only what it sends is lost.
    let mut scene = Scene::online_with(Board::Armhf, |setup| heartbeat_every("8s", setup))?;
    come_online_over(&mut scene, &EDGE)?;
    let session = stay_online(&scene, 1)?;
    set_line(&mut scene, DARK)?;
    scene.guest.wait_journal(board::UNIT, "no answer for", BOOT)?;
    scene.guest.wait_journal(board::UNIT, "online -> offline: next try in", PATIENCE)?;
    scene.server.operators().wait_online(IMEI, false)?;

    let begun: u32 = scene.guest.ask(CONNECTING, PATIENCE)?.parse()?;
    set_line(&mut scene, EDGE.netem)?;
    let back = scene.server.operators().wait_online(IMEI, true)?;
    assert_ne!(back["connected_at"], session);
    // The attempt that began in the dark, or the one after it.
    let attempts = scene.guest.ask(CONNECTING, PATIENCE)?.parse::<u32>()? - begun;
    println!("back by attempt {attempts} after the line's return");
    assert!(attempts <= 1, "{attempts} attempts");
    assert_eq!(scene.guest.ask(board::RESTARTS, PATIENCE)?, "0 active");
    Ok(())
}

/// The server lets go after two heartbeats and a half.
fn heartbeat_every(interval: &str, setup: GuestSetup) -> GuestSetup {
    let mut settings = board::settings();
    settings.set("heartbeat.interval", interval);
    settings.set("heartbeat.timeout", "10s");
    setup.file("etc/moorline/agent.toml", 0o644, settings.to_string())
}

/// A new process has no ticket, and so its handshake is a full one.
fn come_online_over(scene: &mut Scene, line: &Line) -> Result<(), Failure> {
    let before = full_handshakes(scene)?;
    let old = scene.server.operators().wait_online(IMEI, true)?["connected_at"].clone();
    set_line(scene, line.netem)?;
    scene.guest.ask("systemctl restart moorline-agent", BOOT)?;
    scene.server.operators().wait_until("/api/devices", "a new session", |list| {
        let device = list["devices"].as_array()?.first()?;
        (device["online"] == true && device["connected_at"] != old).then_some(())
    })?;
    assert_eq!(full_handshakes(scene)?, before + 1, "{}", line.netem);
    Ok(())
}

/// The session's beginning, after it has stood for so many heartbeats.
fn stay_online(scene: &Scene, heartbeats: usize) -> Result<Value, Failure> {
    let operators = scene.server.operators();
    let mut heard = operators.wait_online(IMEI, true)?;
    let session = heard["connected_at"].clone();
    for _ in 0..heartbeats {
        let before = heard["last_seen"].clone();
        heard = operators.wait_until("/api/devices", "a heartbeat", |list| {
            let device = list["devices"].as_array()?.first()?;
            (device["last_seen"] != before).then(|| device.clone())
        })?;
        assert_eq!(heard["connected_at"], session, "{heard:#}");
        assert_eq!(heard["online"], true, "{heard:#}");
    }
    Ok(session)
}

fn set_line(scene: &mut Scene, netem: &str) -> Result<(), Failure> {
    scene.guest.ask(&format!("tc qdisc replace dev {INTERFACE} root netem {netem}"), PATIENCE).map(drop)
}

/// How many packets netem has lost on all lines so far.
fn lost(scene: &mut Scene) -> Result<u32, Failure> {
    let counted = scene.guest.ask(&format!("tc -s qdisc show dev {INTERFACE}"), PATIENCE)?;
    let lost = counted.split_once("dropped ").and_then(|(_, rest)| rest.split_once(',')?.0.parse().ok());
    lost.ok_or_else(|| Failure::new(format!("no count: {counted}")))
}

fn full_handshakes(scene: &Scene) -> Result<u64, Failure> {
    let metrics = scene.server.operators().text("/metrics")?;
    let name = "moorline_handshakes_total{result=\"ok\",reason=\"none\",kind=\"full\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(name));
    Ok(count.ok_or_else(|| Failure::new("no full handshake is counted"))?.parse()?)
}

/// What the agent says that a round trip takes.
fn round_trip(status: &str) -> Result<Duration, Failure> {
    let told = status.split_once("round trip ").and_then(|(_, rest)| rest.split(',').next());
    let round_trip = told.and_then(|told| match told.split_once(' ')? {
        (number, "ms") => number.parse().ok().map(Duration::from_millis),
        (number, "s") => number.parse().ok().map(Duration::from_secs_f64),
        _ => None,
    });
    round_trip.ok_or_else(|| Failure::new(format!("no round trip: {status}")))
}
