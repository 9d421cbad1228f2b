//! The agent on whole ARM boards, from the power switch on. Each test boots a guest; they are ignored unless asked for,
//! because a machine needs QEMU, the guests' images and the boards' programs for them: `tests/run` sees to that.

use std::time::Duration;

use moorline_testbed::board;
use moorline_testbed::failure::Failure;
use moorline_testbed::guest::{BOOT, Board};
use moorline_testbed::modem::{Modem, Script};
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::IMEI;
use moorline_testbed::scene::Scene;

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
    assert_eq!(scene.guest.ask(board::RESTARTS, PATIENCE)?, "0 active");
    Ok(())
}

#[test]
#[ignore = "boots a guest"]
fn server_that_was_killed_is_found_again() -> Result<(), Failure> {
    let mut scene = Scene::online(Board::Armhf)?;
    let before = scene.server.operators().wait_online(IMEI, true)?;
    scene.server.kill()?;
    scene.guest.wait_journal(board::UNIT, "online -> ", PATIENCE)?;
    let status = scene.guest.ask("systemctl status moorline-agent", PATIENCE)?;
    assert!(status.contains("active (running)") && !status.contains("Status: \"online"), "{status}");
    scene.server.start_again()?;
    let again = scene.server.operators().wait_online(IMEI, true)?;
    assert_ne!(again["connected_at"], before["connected_at"], "{again:#}");
    assert_eq!(scene.guest.ask(board::RESTARTS, PATIENCE)?, "0 active");
    Ok(())
}

/// The session stands meanwhile, and the modem is read again when its time comes, two minutes after the last reading.
#[test]
#[ignore = "boots a guest"]
fn modem_that_comes_back_under_another_name_is_found() -> Result<(), Failure> {
    let mut settings = board::settings();
    settings.set("modem.watch", "2m");
    let mut scene = Scene::online_with(Board::Arm64, |board| {
        board.file("etc/moorline/agent.toml", 0o644, settings.to_string())
    })?;
    let session = scene.server.operators().wait_online(IMEI, true)?["connected_at"].clone();
    // A modem that is unplugged while it is read is taken for one that another program uses, and read more rarely.
    let read = "until moorline-agent status | grep --quiet '^modem .*registration'; do :; done";
    scene.guest.ask(read, BOOT)?;

    // The kernel does not give a name away that something has open.
    scene.guest.ask("exec 9</dev/ttyUSB0", PATIENCE)?;
    scene.guest.unplug_modem()?;
    let back = Modem::start(Script::ordinary(IMEI))?;
    scene.guest.plug_modem(back.path())?;
    back.wait_asked("AT+CSQ", Duration::from_secs(180))?;
    assert_eq!(scene.guest.ask("echo /dev/ttyUSB*", PATIENCE)?, "/dev/ttyUSB1");
    assert_eq!(scene.server.operators().wait_online(IMEI, true)?["connected_at"], session);
    assert_eq!(scene.guest.ask(board::RESTARTS, PATIENCE)?, "0 active");

    // And a process that knows no name from before finds it at once.
    scene.guest.ask("systemctl restart moorline-agent", BOOT)?;
    scene.guest.wait_journal(board::UNIT, &format!("IMEI {IMEI} from /dev/ttyUSB1"), BOOT)?;
    Ok(())
}

#[test]
#[ignore = "boots a guest"]
fn port_that_another_program_has_is_waited_for() -> Result<(), Failure> {
    let mut scene = Scene::new(Board::Arm64)?;
    scene.guest.ask("systemctl stop moorline-agent", BOOT)?;
    scene.guest.plug_modem(scene.modem.path())?;
    let hold = "until [ -c /dev/ttyUSB0 ]; do udevadm settle; done; \
        { flock --no-fork /dev/ttyUSB0 sleep infinity & holder=$!; } && systemctl start moorline-agent";
    scene.guest.ask(hold, BOOT)?;
    scene.guest.wait_journal(board::UNIT, "/dev/ttyUSB0: another program has it open", BOOT)?;
    scene.guest.ask("kill $holder", PATIENCE)?;
    scene.guest.wait_journal(board::UNIT, "registered", BOOT)?;
    assert_eq!(scene.guest.ask(board::RESTARTS, PATIENCE)?, "0 active");
    Ok(())
}

#[test]
#[ignore = "boots a guest"]
fn name_that_is_known_only_later_is_looked_up_again() -> Result<(), Failure> {
    let mut scene = Scene::online(Board::Armhf)?;
    let named = "sed -i 's/10.0.2.100:9089/gw.example:9089/' /etc/moorline/agent.toml && \
        systemctl restart moorline-agent";
    scene.guest.ask(named, BOOT)?;
    scene.guest.wait_journal(board::UNIT, "gw.example", BOOT)?;
    scene.server.operators().wait_online(IMEI, false)?;
    scene.guest.ask("echo 10.0.2.100 gw.example >>/etc/hosts", PATIENCE)?;
    scene.server.operators().wait_online(IMEI, true)?;
    assert_eq!(scene.guest.ask(board::RESTARTS, PATIENCE)?, "0 active");
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
