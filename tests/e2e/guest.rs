//! The agent on whole ARM boards, from the power switch on. Each test boots a guest; they are ignored unless asked for,
//! because a machine needs QEMU, the guests' images and the boards' programs for them: `tests/run` sees to that.

use moorline_testbed::board;
use moorline_testbed::failure::Failure;
use moorline_testbed::guest::{BOOT, Board};
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::IMEI;
use moorline_testbed::scene::Scene;

/// The unit that systemd starts when the agent has stopped for good.
const LAST_WORDS: &str = "moorline-agent-stopped.service";

#[test]
#[ignore = "boots a guest"]
fn armhf_board_is_online_after_a_cold_boot() -> Result<(), Failure> {
    online_after_a_cold_boot(Board::Armhf)
}

#[test]
#[ignore = "boots a guest"]
fn arm64_board_is_online_after_a_cold_boot() -> Result<(), Failure> {
    online_after_a_cold_boot(Board::Arm64)
}

#[test]
#[ignore = "boots a guest"]
fn modem_may_come_late_and_be_plugged_again() -> Result<(), Failure> {
    let mut scene = Scene::new(Board::Armhf)?;
    scene.guest.wait_journal(board::UNIT, "moorline-agent", BOOT)?;
    assert_eq!(scene.guest.ask("ls /dev/ttyUSB* 2>/dev/null | wc -l", PATIENCE)?, "0");
    scene.guest.plug_modem(scene.modem.path())?;
    scene.guest.wait_journal(board::UNIT, "registered", BOOT)?;

    // The session goes on without its modem, and the agent starts without it: it knows whose it was.
    scene.guest.unplug_modem()?;
    scene.server.operators().wait_online(IMEI, true)?;
    scene.guest.ask("systemctl restart moorline-agent", BOOT)?;
    scene.server.operators().wait_events(IMEI, &["online", "offline", "online"])?;
    Ok(())
}

#[test]
#[ignore = "boots a guest"]
fn line_that_was_cut_is_used_again() -> Result<(), Failure> {
    let mut scene = Scene::online(Board::Arm64)?;
    scene.guest.line(false)?;
    scene.server.operators().wait_online(IMEI, false)?;
    scene.guest.line(true)?;
    scene.server.operators().wait_online(IMEI, true)?;
    // It was the line and not the agent: the process is the one that was started.
    let restarts =
        scene.guest.ask(&format!("systemctl show --value -p NRestarts {}", board::UNIT), PATIENCE)?;
    assert_eq!(restarts, "0");
    Ok(())
}

#[test]
#[ignore = "boots a guest"]
fn hung_agent_is_started_again_by_its_watchdog() -> Result<(), Failure> {
    let mut scene = Scene::online(Board::Arm64)?;
    // The unit's own three minutes are for the field; the limit is shorter here and the rest the same.
    let drop_in = "mkdir -p /run/systemd/system/moorline-agent.service.d && \
        printf '[Service]\\nWatchdogSec=5s\\n' >/run/systemd/system/moorline-agent.service.d/watchdog.conf && \
        systemctl daemon-reload && systemctl restart moorline-agent";
    scene.guest.ask(drop_in, BOOT)?;
    scene.server.operators().wait_online(IMEI, true)?;
    scene.guest.ask("kill -STOP $(systemctl show --value -p MainPID moorline-agent)", PATIENCE)?;
    scene.guest.wait_journal(board::UNIT, "Watchdog timeout", BOOT)?;
    scene.guest.wait_journal(board::UNIT, "Scheduled restart job", BOOT)?;
    scene.server.operators().wait_until("/api/devices", "the device back", |list| {
        list["devices"].as_array()?.iter().find(|device| device["online"] == true).map(drop)
    })
}

#[test]
#[ignore = "boots a guest"]
fn wrong_configuration_and_missing_key_call_a_person() -> Result<(), Failure> {
    let mut scene = Scene::online(Board::Armhf)?;
    let stopped = "systemctl show --value -p Result,NRestarts,ExecMainStatus moorline-agent | xargs";
    let mend = "; systemctl restart moorline-agent";
    let agent = &mut scene.guest;
    agent.ask("cd /etc/moorline && mv agent.toml good.toml && echo 'nonsense = 1' >agent.toml", PATIENCE)?;
    agent.run("systemctl restart moorline-agent")?;
    agent.wait_journal(board::UNIT, "nonsense: unknown key", BOOT)?;
    agent.wait_journal(LAST_WORDS, "stopped until a person mends it", BOOT)?;
    assert_eq!(agent.ask(stopped, PATIENCE)?, "exit-code 0 78", "it was started again");
    agent.ask(&format!("mv /etc/moorline/good.toml /etc/moorline/agent.toml{mend}"), BOOT)?;
    agent.wait_journal(board::UNIT, "registered", BOOT)?;

    agent.ask("mv /etc/moorline/device.key /etc/moorline/away.key", PATIENCE)?;
    agent.run("systemctl restart moorline-agent")?;
    agent.wait_journal(board::UNIT, "status=243/CREDENTIALS", BOOT)?;
    assert_eq!(agent.ask(stopped, PATIENCE)?, "exit-code 0 243", "it was started again");
    agent.ask(&format!("mv /etc/moorline/away.key /etc/moorline/device.key{mend}"), BOOT)?;
    scene.server.operators().wait_online(IMEI, true).map(drop)
}

fn online_after_a_cold_boot(board: Board) -> Result<(), Failure> {
    let Scene { mut guest, modem, server, .. } = Scene::online(board)?;
    let listed = server.operators().wait_online(IMEI, true)?;
    assert_eq!(listed["protocol"], "native", "{listed:#}");
    assert!(modem.asked().iter().any(|command| command == "AT+CGSN"), "{:?}", modem.asked());
    let status = guest.ask(&format!("systemctl status {}", board::UNIT), PATIENCE)?;
    assert!(status.contains("Status: \"online since"), "{status}");
    println!("{status}");
    println!("online within {} s of the kernel's start", guest.ask("cut -d' ' -f1 /proc/uptime", PATIENCE)?);

    guest.power_off()?;
    server.operators().wait_online(IMEI, false).map(drop)
}
