//! What people and disks give an agent that is wrong, on whole boards: each ends in one clear line in the journal, and the
//! device is online wherever it can be. Ignored unless asked for, as those of `guest.rs`.

use moorline_testbed::failure::Failure;
use moorline_testbed::guest::{BOOT, Board, Guest};
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::IMEI;
use moorline_testbed::scene::Scene;

/// What the unit says last when it has stopped for good, with what to do.
const LAST_WORDS: &str = "stopped until a person mends it: its configuration is wrong (78/CONFIG above) or its private key is \
     missing (243/CREDENTIALS above). Look: moorline-agent check -c /etc/moorline/agent.toml. Then: systemctl restart \
     moorline-agent";
const NOTHING_IS_KEPT: &str = "no last IMEI, time floor, budget or learned silence outlives a restart";

#[test]
#[ignore = "boots a guest"]
fn configuration_that_does_not_fit_is_told_in_a_line() -> Result<(), Failure> {
    let mut scene = Scene::online(Board::Arm64)?;
    let session = scene.server.operators().wait_online(IMEI, true)?["connected_at"].clone();
    let guest = &mut scene.guest;

    // As a version would have it that called the key something else.
    guest.ask("sed -i 's/^interval = /period = /' /etc/moorline/agent.toml", PATIENCE)?;
    let mistake =
        "/etc/moorline/agent.toml:2: heartbeat.period: unknown key; known here: interval, min, max, timeout";
    mark(guest, "reload")?;
    guest.ask("systemctl reload moorline-agent", BOOT)?;
    let stays = "the configuration before stays in force";
    assert_eq!(told(guest, "reload", stays)?, [mistake, stays]);
    assert_eq!(scene.server.operators().wait_online(IMEI, true)?["connected_at"], session);
    ends_with(&mut scene, mistake)?;
    mend(&mut scene, "sed -i 's/^period = /interval = /' /etc/moorline/agent.toml")?;

    scene.guest.ask("mv /etc/moorline/ca.pem /root", PATIENCE)?;
    ends_with(
        &mut scene,
        "/etc/moorline/agent.toml:14: server.trust: /etc/moorline/ca.pem: there is no such file",
    )?;
    mend(&mut scene, "mv /root/ca.pem /etc/moorline")
}

#[test]
#[ignore = "boots a guest"]
fn state_that_cannot_be_kept_is_told_in_a_line_and_keeps_no_device_away() -> Result<(), Failure> {
    let mut scene = Scene::online(Board::Armhf)?;
    let full = "mount -t tmpfs -o size=16k state /var/lib/moorline-agent && \
        { cat /dev/zero >/var/lib/moorline-agent/filler 2>/dev/null; true; }";
    online_without_state(&mut scene, full, "No space left on device (os error 28)")?;

    // What the package has left, and the agent has never run: its folder is there nevertheless.
    let read_only = "umount /var/lib/moorline-agent && rm -r /var/lib/moorline-agent && \
        systemd-tmpfiles --create moorline-agent.conf && mount -o remount,ro /";
    online_without_state(&mut scene, read_only, "Read-only file system (os error 30)")
}

/// Restarted with such a mistake the agent stops for good, and says nothing but that and what to do.
fn ends_with(scene: &mut Scene, mistake: &str) -> Result<(), Failure> {
    let begin = &format!("restart with {mistake}");
    mark(&mut scene.guest, begin)?;
    scene.guest.run("systemctl restart moorline-agent")?;
    assert_eq!(told(&mut scene.guest, begin, LAST_WORDS)?, [mistake, LAST_WORDS]);
    let how = "systemctl show --value -p Result,NRestarts,ExecMainStatus moorline-agent | xargs";
    assert_eq!(scene.guest.ask(how, PATIENCE)?, "exit-code 0 78", "it was started again");
    scene.server.operators().wait_online(IMEI, false).map(drop)
}

fn mend(scene: &mut Scene, command: &str) -> Result<(), Failure> {
    scene.guest.ask(&format!("{command} && systemctl restart moorline-agent"), BOOT)?;
    scene.server.operators().wait_online(IMEI, true).map(drop)
}

/// Started after such a command the agent is online, and one line alone says what is wrong.
fn online_without_state(scene: &mut Scene, command: &str, error: &str) -> Result<(), Failure> {
    scene.guest.ask("systemctl stop moorline-agent", BOOT)?;
    scene.server.operators().wait_online(IMEI, false)?;
    scene.guest.ask(command, PATIENCE)?;
    let (begin, end) = (&format!("start with {error}"), &format!("online with {error}"));
    mark(&mut scene.guest, begin)?;
    scene.guest.ask("systemctl start moorline-agent", BOOT)?;
    scene.server.operators().wait_online(IMEI, true)?;
    mark(&mut scene.guest, end)?;
    let line = format!("state.dir: /var/lib/moorline-agent cannot be used: {error}; {NOTHING_IS_KEPT}");
    assert_eq!(told(&mut scene.guest, begin, end)?, [line.as_str(), end]);
    Ok(())
}

/// Puts a line into the journal for [`told`] to begin or end at.
fn mark(guest: &mut Guest, text: &str) -> Result<(), Failure> {
    let mark = "systemd-cat --identifier moorline-agent --priority warning";
    guest.ask(&format!("{mark} printf '%s\\n' '{text}' && journalctl --sync"), PATIENCE).map(drop)
}

/// The warnings and errors after the line `begin` and up to the line `end`, once that is there.
fn told(guest: &mut Guest, begin: &str, end: &str) -> Result<Vec<String>, Failure> {
    // journalctl would only notice at the next line that its reader has gone.
    let follow = format!(
        "exec 3< <(exec journalctl --boot --identifier moorline-agent --priority warning --output cat --no-tail --follow); \
         begun= ended=1; while ((ended)) && IFS= read -r -t {} line <&3; do \
         if [[ $begun ]]; then echo \"$line\"; if [[ $line == '{end}' ]]; then ended=0; fi; \
         elif [[ $line == '{begin}' ]]; then begun=yes; fi; done; kill $!; exec 3<&-; (exit $ended)",
        BOOT.as_secs()
    );
    let said = guest.ask(&follow, BOOT + PATIENCE)?;
    Ok(said.lines().map(str::to_owned).collect())
}
