//! The agent's Debian package on whole boards, by their own dpkg: installed, upgraded while the agent is online, removed,
//! purged, and refused where it is for another machine. Ignored unless asked for, as those of `guest.rs`.

use std::fs;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use moorline_protocol::Imei;
use moorline_testbed::board;
use moorline_testbed::deb::{self, Deb};
use moorline_testbed::failure::Failure;
use moorline_testbed::guest::{BOOT, Board};
use moorline_testbed::modem::{Modem, Script};
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::{IMEI, Rig};
use moorline_testbed::scene::Scene;
use serde_json::Value;
use tempfile::TempDir;

/// The version that the package is upgraded to.
const NEXT: &str = "99.0.0-1";
/// How long an upgrade may keep a device away: most of what dpkg does, it does while the agent still runs.
const AWAY: SignedDuration = SignedDuration::from_secs(10);
/// What is of our name when the package is removed and not purged: the owner's, what the agent kept, and the word that the
/// unit was enabled, as Debian's own tool leaves it.
const REMOVED: &str = "/etc/moorline
/etc/systemd/system/multi-user.target.wants/moorline-agent.service
/var/lib/dpkg/info/moorline-agent.list
/var/lib/dpkg/info/moorline-agent.postrm
/var/lib/moorline-agent
/var/lib/systemd/deb-systemd-helper-enabled/moorline-agent.service.dsh-also
/var/lib/systemd/deb-systemd-helper-enabled/multi-user.target.wants/moorline-agent.service";
/// dpkg on a board that QEMU plays.
const INSTALLATION: Duration = BOOT.saturating_mul(2);

#[test]
#[ignore = "boots a guest"]
fn package_lives_its_life_on_armhf() -> Result<(), Failure> {
    life(Board::Armhf, Board::Arm64)
}

#[test]
#[ignore = "boots a guest"]
fn package_lives_its_life_on_arm64() -> Result<(), Failure> {
    life(Board::Arm64, Board::Armhf)
}

fn life(board: Board, other: Board) -> Result<(), Failure> {
    let mut scene = board_with_packages(board, other)?;
    install(&mut scene)?;
    refuse_foreign(&mut scene, board, other)?;
    upgrade(&mut scene)?;
    remove(&mut scene)?;
    install_again(&mut scene)?;
    purge(&mut scene)
}

/// A board with the packages in root's folder and none of them installed.
fn board_with_packages(board: Board, other: Board) -> Result<Scene, Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let modem = Modem::start(Script::ordinary(IMEI))?;
    let device = rig.pki().device(IMEI.parse::<Imei>()?)?;
    let deb = deb::shipped("moorline-agent", board.architecture())?;
    let folder = TempDir::new()?;
    let next = folder.path().join("next.deb");
    let unpacked = Deb::unpack(&deb)?;
    unpacked.set_version(NEXT)?;
    unpacked.build(&next)?;
    let foreign = deb::shipped("moorline-agent", other.architecture())?;
    let mut setup = board::owned(board, rig.pki(), &device)?.server(server.devices());
    for (name, deb) in [("agent", deb.as_path()), ("next", &next), ("foreign", &foreign)] {
        setup = setup.file(&format!("root/{name}.deb"), 0o644, fs::read(deb)?);
    }
    let mut guest = setup.clone().modem(modem.path()).boot()?;
    guest.wait_shell()?;
    Ok(Scene { guest, modem, server, rig, setup })
}

/// Installed, the unit waits for a configuration; with one it comes online.
fn install(scene: &mut Scene) -> Result<(), Failure> {
    let guest = &mut scene.guest;
    guest.ask("mv /etc/moorline/agent.toml /root", PATIENCE)?;
    let said = guest.ask("dpkg --install /root/agent.deb", INSTALLATION)?;
    assert!(!said.contains("warning") && !said.contains("error"), "{said}");
    assert_eq!(guest.ask("systemctl is-enabled moorline-agent", PATIENCE)?, "enabled");
    assert_eq!(shown(scene, "ActiveState")?, "inactive");
    assert_eq!(shown(scene, "ConditionResult")?, "no");
    assert_eq!(shown(scene, "Result")?, "success");
    scene.guest.ask("mv /root/agent.toml /etc/moorline && systemctl start moorline-agent", BOOT)?;
    scene.guest.wait_journal(board::UNIT, "registered", BOOT)?;
    scene.server.operators().wait_online(IMEI, true).map(drop)
}

/// dpkg says in one line what is wrong, and what runs goes on.
fn refuse_foreign(scene: &mut Scene, board: Board, other: Board) -> Result<(), Failure> {
    let process = shown(scene, "MainPID")?;
    let session = scene.server.operators().wait_online(IMEI, true)?["connected_at"].clone();
    let installed = scene.guest.ask("sha256sum /usr/bin/moorline-agent; dpkg-query --show", PATIENCE)?;
    let refused = scene.guest.run("dpkg --install /root/foreign.deb")?;
    assert_ne!(refused.code, 0);
    let words = format!(
        "package architecture ({}) does not match system ({})",
        other.architecture(),
        board.architecture()
    );
    assert!(refused.text.contains(&words), "{}", refused.text);
    assert_eq!(scene.guest.ask("sha256sum /usr/bin/moorline-agent; dpkg-query --show", PATIENCE)?, installed);
    assert_eq!(shown(scene, "MainPID")?, process);
    assert_eq!(scene.server.operators().wait_online(IMEI, true)?["connected_at"], session);
    Ok(())
}

/// An upgrade costs one restart; what the device was told and has learned stays.
fn upgrade(scene: &mut Scene) -> Result<(), Failure> {
    scene.guest.ask("echo '# ours' >>/etc/moorline/agent.toml", PATIENCE)?;
    let owned = "cd /etc/moorline && sha256sum * && stat -c '%n %a %U %G' . *";
    let before = scene.guest.ask(owned, PATIENCE)?;
    let process = shown(scene, "MainPID")?;
    let said = scene.guest.ask("dpkg --install /root/next.deb", INSTALLATION)?;
    assert!(!said.contains("warning") && !said.contains("error"), "{said}");

    let events = scene.server.operators().wait_events(IMEI, &["online", "offline", "online"])?;
    let [_, offline, online] = &events[..] else {
        return Err(Failure::new(format!("it came and went more often than that: {events:#?}")));
    };
    let away = at(online)?.duration_since(at(offline)?);
    println!("an upgrade kept the device away for {} ms", away.as_millis());
    assert!(away <= AWAY, "{away}: {events:#?}");
    assert_eq!(offline["cause"], "goodbye", "{offline:#}");

    let version = "dpkg-query --show --showformat '${Version} ${db:Status-Status}' moorline-agent";
    assert_eq!(scene.guest.ask(version, PATIENCE)?, format!("{NEXT} installed"));
    assert_eq!(scene.guest.ask(owned, PATIENCE)?, before);
    assert_eq!(
        scene.guest.ask("find / -xdev -name '*.dpkg-*' -path '*moorline*'", PATIENCE)?,
        "",
        "left behind"
    );
    // Kept in the state folder: the attempt of the process before, which counts as one of this hour.
    let status = scene.guest.ask("moorline-agent status", PATIENCE)?;
    assert!(status.contains("budget   2 of 60 attempts this hour"), "{status}");
    // The new program and nothing beside it.
    let new = shown(scene, "MainPID")?;
    assert_ne!(new, process);
    assert_eq!(scene.guest.ask("pgrep --exact moorline-agent", PATIENCE)?, new, "processes left over");
    assert_eq!(scene.guest.ask(&format!("readlink /proc/{new}/exe"), PATIENCE)?, "/usr/bin/moorline-agent");
    assert_eq!(shown(scene, "NRestarts")?, "0");
    assert_eq!(scene.guest.ask("systemctl is-enabled moorline-agent", PATIENCE)?, "enabled");
    let journal = scene.guest.ask("journalctl --boot --unit moorline-agent --output cat", PATIENCE)?;
    let told = |text: &str| journal.lines().filter(|line| line.contains(text)).count();
    assert_eq!((told("asked to stop"), told(": registered")), (1, 2), "{journal}");
    Ok(())
}

/// Removed, the agent takes its leave, and what its owner and its work have made is still there.
fn remove(scene: &mut Scene) -> Result<(), Failure> {
    let kept = "cd / && sha256sum etc/moorline/* && ls var/lib/moorline-agent";
    let before = scene.guest.ask(kept, PATIENCE)?;
    scene.guest.ask("dpkg --remove moorline-agent", INSTALLATION)?;
    let left = scene.server.operators().wait_online(IMEI, false)?;
    assert_eq!(left["disconnect_cause"], "goodbye", "{left:#}");
    assert_eq!(scene.guest.ask(kept, PATIENCE)?, before);
    assert_eq!(scene.guest.run("pgrep --exact moorline-agent")?.text, "");
    assert_eq!(ours(scene)?, REMOVED, "left behind, or lost");
    Ok(())
}

/// Installed once more, it takes up what it was told before.
fn install_again(scene: &mut Scene) -> Result<(), Failure> {
    scene.guest.ask("dpkg --install /root/next.deb", INSTALLATION)?;
    scene.server.operators().wait_online(IMEI, true)?;
    assert_eq!(scene.guest.ask("systemctl is-enabled moorline-agent", PATIENCE)?, "enabled");
    Ok(())
}

/// Purged, nothing is left but what was never the package's: certificates and keys, and the user, whose number another
/// must not get.
fn purge(scene: &mut Scene) -> Result<(), Failure> {
    scene.guest.ask("dpkg --purge moorline-agent", INSTALLATION)?;
    scene.server.operators().wait_online(IMEI, false)?;
    assert_eq!(scene.guest.run("pgrep --exact moorline-agent")?.text, "");
    assert_eq!(ours(scene)?, "/etc/moorline", "left behind");
    assert_eq!(scene.guest.ask("ls -1 /etc/moorline", PATIENCE)?, "ca.pem\ndevice.key\ndevice.pem");
    assert_eq!(scene.guest.ask("id -un moorline-agent", PATIENCE)?, "moorline-agent");
    let failed = scene.guest.ask("systemctl --failed --no-legend --plain", PATIENCE)?;
    assert_eq!(failed, "");
    Ok(())
}

/// What is of our name on the board's disk and in /run.
fn ours(scene: &mut Scene) -> Result<String, Failure> {
    scene.guest.ask("find / /run -xdev -name '*moorline*' | sort", PATIENCE)
}

/// A property of the unit.
fn shown(scene: &mut Scene, property: &str) -> Result<String, Failure> {
    scene.guest.ask(&format!("systemctl show --value --property {property} moorline-agent"), PATIENCE)
}

fn at(event: &Value) -> Result<Timestamp, Failure> {
    Ok(event["at"].as_str().unwrap_or_default().parse()?)
}
