//! Boards whose clock is wrong, and boards whose clock is set while they are online: real kernels, which have no other
//! clock to spoil than their own. Ignored unless asked for, as those of `guest.rs`.

use moorline_testbed::board;
use moorline_testbed::failure::Failure;
use moorline_testbed::guest::{BOOT, Board};
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::IMEI;
use moorline_testbed::scene::Scene;

/// A year and an hour, in seconds: what a jump takes off does not make it a day less in words.
const YEAR: i64 = 365 * 24 * 3600 + 3600;
const BY_THE_FLOOR: &str = "clock not synchronised: certificates are judged by the floor 20";
const DROP_IN: &str = include_str!("../../systemd/moorline-agent-clock.conf");

#[test]
#[ignore = "boots a guest"]
fn board_in_1970_comes_online_without_its_clock_set() -> Result<(), Failure> {
    let mut scene = Scene::online_with(Board::Armhf, |board| board.clock("1970-01-01T00:00:00"))?;
    scene.guest.wait_journal(board::UNIT, BY_THE_FLOOR, PATIENCE)?;
    start_in("1970-01-01 00:01:00", &mut scene)?;

    // And when something sets the clock at last, the session stands.
    let session = heard_again(&scene)?["connected_at"].clone();
    let right = "date --utc --set @$(cat /var/lib/moorline-agent/time-floor)";
    scene.guest.ask(right, PATIENCE)?;
    scene.guest.wait_journal(board::UNIT, "the system clock was set forward by", PATIENCE)?;
    for _ in 0..4 {
        let heard = heard_again(&scene)?;
        assert_eq!(heard["connected_at"], session, "{heard:#}");
    }
    assert_eq!(scene.guest.ask(board::RESTARTS, PATIENCE)?, "0 active");
    Ok(())
}

#[test]
#[ignore = "boots a guest"]
fn board_in_2099_comes_online_without_its_clock_set() -> Result<(), Failure> {
    start_in("2099-06-01 12:00:00", &mut Scene::online(Board::Arm64)?)
}

#[test]
#[ignore = "boots a guest"]
fn jump_of_a_year_moves_no_timer() -> Result<(), Failure> {
    let mut scene = Scene::online(Board::Arm64)?;
    let session = scene.server.operators().wait_online(IMEI, true)?["connected_at"].clone();
    for (by, words) in [
        (YEAR, "forward by 365d"),
        (-2 * YEAR, "back by 730d"),
        (2 * YEAR, "forward by 730d"),
        (-YEAR, "back by 365d"),
    ] {
        scene.guest.ask(&format!("date --set @$(($(date +%s) + {by}))"), PATIENCE)?;
        scene.guest.wait_journal(board::UNIT, &format!("the system clock was set {words}"), PATIENCE)?;
        // The server lets go of a device that misses two heartbeats and a half, of a second each.
        for _ in 0..4 {
            let heard = heard_again(&scene)?;
            assert_eq!(heard["connected_at"], session, "{heard:#}");
        }
    }
    assert_eq!(scene.guest.ask(board::RESTARTS, PATIENCE)?, "0 active");
    let said = scene.guest.ask("journalctl --boot --unit moorline-agent --output cat", PATIENCE)?;
    assert!(!said.contains("online -> "), "{said}");
    Ok(())
}

/// With the drop-in the server's time sets a clock that nothing else keeps right; without it the log says so.
#[test]
#[ignore = "boots a guest"]
fn servers_time_sets_the_clock_with_the_drop_in_alone() -> Result<(), Failure> {
    let mut scene = Scene::online_with(Board::Arm64, |board| {
        board.clock("2031-01-01T00:00:00").file("etc/moorline/clock.conf", 0o644, DROP_IN)
    })?;
    let ask =
        "printf '[clock]\\nset = true\\n' >>/etc/moorline/agent.toml && systemctl restart moorline-agent";
    scene.guest.ask(ask, BOOT)?;
    scene.guest.wait_journal(
        board::UNIT,
        "clock.set: the system clock cannot be set: Operation not",
        BOOT,
    )?;
    assert_eq!(scene.guest.ask("date --utc +%Y", PATIENCE)?, "2031");

    let install = "cd /etc/systemd/system && mkdir moorline-agent.service.d && \
        mv /etc/moorline/clock.conf moorline-agent.service.d && systemctl daemon-reload && \
        systemctl restart moorline-agent";
    scene.guest.ask(install, BOOT)?;
    scene.guest.wait_journal(
        board::UNIT,
        "the system clock is set by the server's time from 2031-01-01",
        BOOT,
    )?;
    assert!(scene.guest.ask("date --utc +%Y", PATIENCE)?.as_str() < "2031");
    assert_eq!(scene.guest.ask(board::RESTARTS, PATIENCE)?, "0 active");
    Ok(())
}

/// Under its unit the agent may not ask the kernel, but it sees what systemd-timesyncd has touched, and when.
#[test]
#[ignore = "boots a guest"]
fn word_of_timesyncd_counts_until_the_clock_is_set() -> Result<(), Failure> {
    let mut scene = Scene::online(Board::Arm64)?;
    let synchronise = "mkdir -p /run/systemd/timesync && touch /run/systemd/timesync/synchronized && \
        systemctl restart moorline-agent";
    scene.guest.ask(synchronise, BOOT)?;
    scene.guest.wait_journal(board::UNIT, "clock synchronised: certificates are judged by it", BOOT)?;
    scene.server.operators().wait_events(IMEI, &["online", "offline", "online"])?;

    // Years later than its server's certificate lasts.
    scene.guest.forget_journal()?;
    scene.guest.ask("date --set '+10 years' && systemctl restart moorline-agent", BOOT)?;
    scene.guest.wait_journal(board::UNIT, BY_THE_FLOOR, BOOT)?;
    scene.guest.wait_journal(board::UNIT, "registered", BOOT).map(drop)
}

/// Starts the agent at that time, with no floor but the program's own. A board whose battery-backed clock stands there does
/// not do for that: when systemd starts, it moves a clock that is before its own build, or long after it, to that.
fn start_in(time: &str, scene: &mut Scene) -> Result<(), Failure> {
    let year = &time[..4];
    let start = format!(
        "systemctl stop moorline-agent && rm -f /var/lib/moorline-agent/time-floor && \
         date --utc --set '{time}' && systemctl start moorline-agent"
    );
    scene.guest.ask(&start, BOOT)?;
    scene.server.operators().wait_events(IMEI, &["online", "offline", "online"])?;
    assert_eq!(scene.guest.ask("date --utc +%Y", PATIENCE)?, year);
    assert_eq!(scene.guest.ask(board::RESTARTS, PATIENCE)?, "0 active");
    Ok(())
}

/// The device, once it was heard after now.
fn heard_again(scene: &Scene) -> Result<serde_json::Value, Failure> {
    let operators = scene.server.operators();
    let before = operators.device(IMEI)?["last_seen"].clone();
    operators.wait_until(&format!("/api/devices/{IMEI}"), "a heartbeat", |device| {
        (device["online"] == true && device["last_seen"] != before).then(|| device.clone())
    })
}
