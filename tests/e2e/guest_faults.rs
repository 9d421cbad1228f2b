//! Boards with something broken: what is wrong in /etc/moorline calls a person, in one line and without a restart after
//! the other; and what was being kept when the power was cut is whole afterwards. Ignored unless asked for, as those of
//! `guest.rs`.

use moorline_testbed::board;
use moorline_testbed::failure::Failure;
use moorline_testbed::guest::{BOOT, Board, Guest, format_disk};
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::IMEI;
use moorline_testbed::scene::Scene;

/// The unit that systemd starts when the agent has stopped for good.
const LAST_WORDS: &str = "moorline-agent-stopped.service";

/// What is done to /etc/moorline, and what is then said of it: by the agent, which ends with 78.
const MISTAKES: [(&str, &str); 5] = [
    ("echo 'nonsense = 1' >>agent.toml", "nonsense: unknown key"),
    ("head --lines 8 good/agent.toml | head --bytes -3 >agent.toml", "agent.toml:8:10: unclosed table"),
    (": >device.key", "there is no private key in it"),
    (
        "echo 'key = \"/etc/moorline/device.key\"' | sed '/certificate/r /dev/stdin' -i agent.toml",
        "identity.key: /etc/moorline/device.key: may not be read by this user",
    ),
    ("chmod 600 device.pem", "device.pem: may not be read by this user"),
];

#[test]
#[ignore = "boots a guest"]
fn whatever_is_wrong_in_the_configuration_calls_a_person_once() -> Result<(), Failure> {
    let mut scene = Scene::online(Board::Armhf)?;
    scene.guest.ask("cd /etc/moorline && mkdir good && cp -a agent.toml *.pem device.key good", PATIENCE)?;
    for (mistake, words) in MISTAKES {
        breaks(&mut scene.guest, mistake, words, 78)?;
        let told = scene.guest.ask(
            "journalctl --boot --unit moorline-agent --priority err --output cat _COMM=moorline-agent",
            PATIENCE,
        )?;
        assert_eq!(told.lines().count(), 1, "{mistake}: {told}");
    }
    // systemd itself finds no key to hand over.
    breaks(&mut scene.guest, "rm device.key", "status=243/CREDENTIALS", 243)?;

    // Whose the key is, and whether anybody may read it, is all one to systemd.
    let mend =
        "cp -a good/* . && chown nobody device.key && chmod 0 device.key && systemctl restart moorline-agent";
    scene.guest.ask(mend, BOOT)?;
    scene.server.operators().wait_online(IMEI, true).map(drop)
}

/// Power cuts while the budget is being written: it is written whenever the agent starts, attempts and stops.
#[test]
#[ignore = "boots a guest"]
fn power_cut_leaves_what_was_kept_old_or_new() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("state");
    format_disk(&disk)?;
    let mount = "[Mount]\nWhat=/dev/vda\nWhere=/var/lib/moorline-agent\nType=ext4\n";
    let mut scene = Scene::online_with(Board::Armhf, |board| {
        board.disk(&disk).file(r"etc/systemd/system/var-lib-moorline\x2dagent.mount", 0o644, mount)
    })?;
    for _ in 0..2 {
        let before = Kept::read(&mut scene.guest)?;
        let restarts = "(until ! systemctl restart moorline-agent; do :; done) >/dev/null 2>&1 &";
        scene.guest.ask(restarts, PATIENCE)?;
        scene.guest.ask("until [ -e /var/lib/moorline-agent/budget.new ]; do :; done", BOOT)?;
        scene.guest.kill()?;

        // Without its modem, which the board is now, only what was kept tells it who it is.
        scene.switch_on_again()?;
        let after = Kept::read(&mut scene.guest)?;
        assert_eq!((&after.modem, &after.floor), (&before.modem, &before.floor));
        assert!(after.attempts > before.attempts, "{} and then {}", before.attempts, after.attempts);
        let said = scene.guest.ask("journalctl --boot --unit moorline-agent --output cat", PATIENCE)?;
        assert!(said.contains("no modem tells an IMEI; going on with "), "{said}");
        assert!(!said.contains("damaged") && !said.contains("floor 2026-11-01"), "{said}");
        let status = scene.guest.ask("systemctl status moorline-agent", PATIENCE)?;
        assert!(status.contains("Status: \"online since"), "{status}");
    }
    Ok(())
}

/// Breaks what is in /etc/moorline, of which a copy in `good` is whole, and waits until a person is called for.
fn breaks(guest: &mut Guest, mistake: &str, words: &str, status: u32) -> Result<(), Failure> {
    guest.ask(&format!("cd /etc/moorline && cp -a good/* . && {mistake}"), PATIENCE)?;
    guest.forget_journal()?;
    guest.run("systemctl restart moorline-agent")?;
    guest.wait_journal(board::UNIT, words, BOOT)?;
    guest.wait_journal(LAST_WORDS, "stopped until a person mends it", BOOT)?;
    let how =
        "systemctl show --value -p ActiveState,Result,NRestarts,ExecMainStatus moorline-agent | sort | xargs";
    assert_eq!(guest.ask(how, PATIENCE)?, format!("0 {status} exit-code failed"), "{mistake}");
    Ok(())
}

/// What the state folder holds, and how many attempts the budget counts.
struct Kept {
    modem: String,
    floor: String,
    attempts: u64,
}

impl Kept {
    fn read(guest: &mut Guest) -> Result<Self, Failure> {
        let modem = guest.ask("cat /var/lib/moorline-agent/modem", PATIENCE)?;
        let floor = guest.ask("cat /var/lib/moorline-agent/time-floor", PATIENCE)?;
        let attempts = guest.ask("moorline-agent status | awk '$1 == \"budget\" { print $2 }'", PATIENCE)?;
        Ok(Self { modem, floor, attempts: attempts.parse()? })
    }
}
