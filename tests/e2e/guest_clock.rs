//! Boards whose clock is wrong, and boards whose clock is set while they are online: real kernels, which have no other
//! clock to spoil than their own. Ignored unless asked for, as those of `guest.rs`.

use moorline_testbed::board;
use moorline_testbed::failure::Failure;
use moorline_testbed::guest::{BOOT, Board};
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::IMEI;
use moorline_testbed::scene::Scene;

const YEAR: i64 = 365 * 24 * 3600;
const BY_THE_FLOOR: &str = "clock not synchronised: certificates are judged by the floor 20";
const DROP_IN: &str = include_str!("../../systemd/moorline-agent-clock.conf");
const RESTARTS: &str = "systemctl show --value -p NRestarts,ActiveState moorline-agent | xargs";

#[test]
#[ignore = "boots a guest"]
fn board_in_1970_comes_online_without_its_clock_set() -> Result<(), Failure> {
    let mut scene = Scene::online_with(Board::Armhf, |board| board.clock("1970-01-01T00:00:00"))?;
    scene.guest.wait_journal(board::UNIT, BY_THE_FLOOR, PATIENCE)?;
    // When systemd starts, it moves a clock that is behind its own build up to that. So once more, in the real 1970, and
    // with no floor but the program's own.
    let in_1970 = "systemctl stop moorline-agent && rm -f /var/lib/moorline-agent/time-floor && \
        date --utc --set @60 && systemctl start moorline-agent";
    scene.guest.ask(in_1970, BOOT)?;
    scene.server.operators().wait_events(IMEI, &["online", "offline", "online"])?;
    assert_eq!(scene.guest.ask("date --utc +%Y", PATIENCE)?, "1970");
    assert_eq!(scene.guest.ask(RESTARTS, PATIENCE)?, "0 active");
    Ok(())
}

#[test]
#[ignore = "boots a guest"]
fn board_in_2099_comes_online_without_its_clock_set() -> Result<(), Failure> {
    let mut scene = Scene::online_with(Board::Arm64, |board| board.clock("2099-06-01T12:00:00"))?;
    scene.guest.wait_journal(board::UNIT, BY_THE_FLOOR, PATIENCE)?;
    assert_eq!(scene.guest.ask("date --utc +%Y", PATIENCE)?, "2099");
    Ok(())
}

#[test]
#[ignore = "boots a guest"]
fn jump_of_a_year_moves_no_timer() -> Result<(), Failure> {
    let mut scene = Scene::online(Board::Arm64)?;
    let session = scene.server.operators().wait_online(IMEI, true)?["connected_at"].clone();
    for (by, words) in [(YEAR, "forward by 365d"), (-2 * YEAR, "back by 730d"), (YEAR, "forward by 365d")] {
        scene.guest.ask(&format!("date --set @$(($(date +%s) + {by}))"), PATIENCE)?;
        scene.guest.wait_journal(board::UNIT, &format!("the system clock was set {words}"), PATIENCE)?;
        // The server lets go of a device that misses two heartbeats and a half, of a second each.
        for _ in 0..4 {
            let heard = heard_again(&scene)?;
            assert_eq!(heard["connected_at"], session, "{heard:#}");
        }
    }
    assert_eq!(scene.guest.ask(RESTARTS, PATIENCE)?, "0 active");
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
    assert_eq!(scene.guest.ask(RESTARTS, PATIENCE)?, "0 active");
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
