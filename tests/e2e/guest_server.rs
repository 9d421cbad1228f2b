//! The server as its Debian package installs it, on a whole board beside an agent: its ports held by a real process 1, its
//! own hardened unit, its store in /var/lib. Ignored unless asked for, as those of `guest.rs`.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use moorline_protocol::{Imei, ServerMessage};
use moorline_testbed::board;
use moorline_testbed::client::Settings;
use moorline_testbed::deb;
use moorline_testbed::failure::Failure;
use moorline_testbed::guest::{BOOT, Board, Guest};
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::{IMEI, Rig, free_address};
use serde_json::Value;

/// The server's unit.
const UNIT: &str = "moorline-server.service";
const SOCKET: &str = "moorline-server.socket";
/// The unit that systemd starts when the server has stopped for good.
const LAST_WORDS: &str = "moorline-server-stopped.service";
/// The port for devices, as both the unit and the configuration have it from the package.
const DEVICES: u16 = 9089;
/// Where the package's configuration has the operators' socket, commented out.
const OPERATORS: &str = "/run/moorline-server/operators.sock";
/// A device that is not the board itself.
const ELSEWHERE: &str = "004999010640018";
/// dpkg on a board that QEMU plays.
const INSTALLATION: Duration = BOOT.saturating_mul(2);
/// Connects all the while that the service restarts, and says how many were let in and how many refused.
const KNOCKED_THROUGHOUT_A_RESTART: &str = "\
    (rm -f /run/restarted; (taken=0 refused=0; until test -e /run/restarted; do \
        if (exec 3<>/dev/tcp/127.0.0.1/9089); then taken=$((taken + 1)); else refused=$((refused + 1)); fi; \
    done; echo $taken $refused) & \
    systemctl restart moorline-server; touch /run/restarted; wait)";

/// A board with both, and the way to its server from outside.
struct Station {
    guest: Guest,
    rig: Rig,
    devices: SocketAddr,
}

#[test]
#[ignore = "boots a guest"]
fn restart_refuses_nobody_and_the_fleet_is_told_in_words() -> Result<(), Failure> {
    let mut station = Station::installed()?;
    let session = station.online("another")?;
    station.status_in_words()?;
    station.reload(&session)?;
    station.hold_a_connection()?;
    station.restart()?;
    station.kill()?;
    station.let_operators_in()
}

#[test]
#[ignore = "boots a guest"]
fn configuration_that_disagrees_with_the_socket_calls_a_person() -> Result<(), Failure> {
    let mut station = Station::installed()?;
    station.online("another")?;
    let guest = &mut station.guest;
    guest.ask("systemctl stop moorline-agent", BOOT)?;
    let spoil = "cp /etc/moorline/server.toml /root && \
        sed -i 's/^#devices = .*/devices = \"127.0.0.1:9089\"/' /etc/moorline/server.toml";
    guest.ask(spoil, PATIENCE)?;
    assert_ne!(guest.run("systemctl restart moorline-server")?.code, 0);
    let words = "listen.devices: here it is 127.0.0.1:9089, and systemd hands over [::]:9089";
    guest.wait_journal(UNIT, words, PATIENCE)?;
    guest.wait_journal(LAST_WORDS, "stopped until a person mends it", PATIENCE)?;
    let stopped = "systemctl show --value -p Result,NRestarts,ExecMainStatus moorline-server | xargs";
    assert_eq!(guest.ask(stopped, PATIENCE)?, "exit-code 0 78", "it was started again");
    assert_eq!(count(guest, UNIT, words)?, 1);

    // A device that knocks is refused, and does not start it again.
    guest.ask("systemctl start moorline-agent", BOOT)?;
    guest.wait_journal(board::UNIT, "Connection refused", BOOT)?;
    assert_eq!(guest.run(&format!("systemctl is-active {SOCKET}"))?.text, "inactive");
    assert_eq!(count(guest, UNIT, words)?, 1, "a device started it again");

    guest.ask("mv /root/server.toml /etc/moorline/ && systemctl restart moorline-server", BOOT)?;
    station.held_by_systemd()?;
    station.online("another").map(drop)
}

impl Station {
    /// Both packages installed on a board where certificates and keys lie ready.
    fn installed() -> Result<Self, Failure> {
        let rig = Rig::new()?;
        let device = rig.pki().device(IMEI.parse::<Imei>()?)?;
        let server = rig.pki().server()?;
        let mut agent = board::settings();
        agent.set("server.address", format!("127.0.0.1:{DEVICES}"));
        agent.set("identity.imei", IMEI);
        agent.unset("modem.port");
        let devices = free_address()?;
        let mut setup = board::owned(Board::Arm64, rig.pki(), &device)?
            .file("etc/moorline/agent.toml", 0o644, agent.to_string())
            .file("etc/moorline/server.pem", 0o644, fs::read(&server.certificate)?)
            .file("etc/moorline/server.key", 0o600, fs::read(&server.key)?)
            .way_in(devices, DEVICES);
        for package in ["moorline-server", "moorline-agent"] {
            let deb = fs::read(deb::shipped(package, Board::Arm64.architecture())?)?;
            setup = setup.file(&format!("root/{package}.deb"), 0o644, deb);
        }
        let mut guest = setup.boot()?;
        guest.wait_shell()?;
        let said = guest.ask("dpkg --install /root/moorline-server.deb", INSTALLATION)?;
        assert!(!said.contains("warning") && !said.contains("error"), "{said}");
        let mut station = Self { guest, rig, devices };
        station.held_by_systemd()?;
        assert_eq!(station.guest.ask(&format!("systemctl is-active {UNIT}"), PATIENCE)?, "active");
        station.guest.ask("dpkg --install /root/moorline-agent.deb", INSTALLATION)?;
        Ok(station)
    }

    /// Process 1 has both ports open, whoever else has.
    fn held_by_systemd(&mut self) -> Result<(), Failure> {
        assert_eq!(self.guest.ask(&format!("systemctl is-active {SOCKET}"), PATIENCE)?, "active");
        let listening = self.guest.ask("ss --listening --tcp --numeric --processes --no-header", PATIENCE)?;
        let held = listening.lines().filter(|line| line.contains("\"systemd\",pid=1,")).count();
        assert_eq!(held, 2, "{listening}");
        Ok(())
    }

    /// Waits until the board's agent is online in another session than this one, and returns when that began.
    fn online(&mut self, old: &str) -> Result<String, Failure> {
        let seen = format!(
            "nice moorlinectl --json device {IMEI} 2>/dev/null | grep -F '\"online\":true' | grep -vF '{old}'"
        );
        let device: Value = serde_json::from_str(&self.wait(&seen)?)?;
        Ok(device["connected_at"].as_str().unwrap_or_default().to_owned())
    }

    /// Runs a command in the guest until it succeeds, and returns what it says then.
    fn wait(&mut self, command: &str) -> Result<String, Failure> {
        let again =
            format!("(SECONDS=0; until {command}; do ((SECONDS < {})) || exit; done)", BOOT.as_secs());
        self.guest.ask(&again, BOOT + PATIENCE)
    }

    fn shown(&mut self, property: &str) -> Result<String, Failure> {
        self.guest.ask(&format!("systemctl show --value --property {property} {UNIT}"), PATIENCE)
    }

    fn status_in_words(&mut self) -> Result<(), Failure> {
        let status =
            format!("systemctl status {UNIT} | grep -F 'Status: \"1 device online, 1 connection open\"'");
        println!("{}", self.wait(&status)?);
        Ok(())
    }

    /// A reload reads everything anew and drops no session.
    fn reload(&mut self, session: &str) -> Result<(), Failure> {
        let process = self.shown("MainPID")?;
        self.guest.ask("systemctl reload moorline-server", BOOT)?;
        self.guest.wait_journal(UNIT, "configuration and certificates read anew", PATIENCE)?;
        assert_eq!(self.shown("MainPID")?, process);
        assert_eq!(self.online("another")?, session);
        Ok(())
    }

    /// While nobody serves, a connection stands and waits; it has systemd start the server, and is answered.
    fn hold_a_connection(&mut self) -> Result<(), Failure> {
        self.guest.ask("systemctl stop moorline-agent && systemctl stop moorline-server", BOOT)?;
        assert_eq!(self.guest.run(&format!("systemctl is-active {UNIT}"))?.text, "inactive");
        self.held_by_systemd()?;
        assert_eq!(self.guest.run("pgrep --exact moorline-server")?.text, "");

        let imei: Imei = ELSEWHERE.parse()?;
        let settings = Settings::new(self.rig.pki(), Some(&self.rig.pki().device(imei)?))?;
        #[expect(clippy::disallowed_methods, reason = "a device's socket on loopback")]
        let waiting = TcpStream::connect(self.devices)?;
        waiting.set_read_timeout(Some(BOOT))?;
        let mut client = settings.connect_over(waiting)?;
        client.say_hello(imei)?;
        assert!(matches!(client.hear()?, Some(ServerMessage::Welcome(_))));
        assert_eq!(self.guest.run(&format!("systemctl is-active {UNIT}"))?.text, "active");
        self.guest.ask("systemctl start moorline-agent", BOOT)?;
        Ok(())
    }

    /// Whoever knocks during a restart is let in, and the agent is back.
    fn restart(&mut self) -> Result<(), Failure> {
        let session = self.online("another")?;
        let process = self.shown("MainPID")?;
        let knocks = self.guest.ask(KNOCKED_THROUGHOUT_A_RESTART, BOOT)?;
        println!("let in, refused: {knocks}");
        let (taken, refused) = knocks.split_once(' ').unwrap_or_default();
        assert_eq!(refused, "0", "{knocks}");
        assert!(taken.parse::<u32>()? >= 10, "{knocks}");
        assert_ne!(self.shown("MainPID")?, process);
        self.online(&session)?;
        let said = self.guest.ask("journalctl --boot --unit moorline-agent --output cat", PATIENCE)?;
        assert!(!said.contains("refused"), "{said}");
        Ok(())
    }

    /// Killed, it is started again and knows its fleet.
    fn kill(&mut self) -> Result<(), Failure> {
        let session = self.online("another")?;
        assert_eq!(self.shown("NRestarts")?, "0");
        self.guest.ask("systemctl kill --signal KILL moorline-server", PATIENCE)?;
        self.online(&session)?;
        assert_eq!(self.shown("NRestarts")?, "1");
        self.guest.wait_journal(UNIT, "2 devices known in /var/lib/moorline-server/fleet.db", PATIENCE)?;
        let owned = "stat -c '%a %U %G' /var/lib/moorline-server /var/lib/moorline-server/fleet.db";
        let [user, folder, file] = ["moorline-server moorline-server", "700", "600"];
        assert_eq!(self.guest.ask(owned, PATIENCE)?, format!("{folder} {user}\n{file} {user}"));
        assert_eq!(self.guest.ask("systemctl --failed --no-legend --plain", PATIENCE)?, "");
        Ok(())
    }

    /// By the operators' socket, members of the server's group and nobody else; it stays where it is over a restart.
    fn let_operators_in(&mut self) -> Result<(), Failure> {
        let session = self.online("another")?;
        let switch = "sed -i 's/^#operators_socket/operators_socket/' /etc/moorline/server.toml";
        self.guest.ask(&format!("{switch} && systemctl restart moorline-server"), BOOT)?;
        self.guest.wait_journal(UNIT, &format!("operators on unix:{OPERATORS}"), BOOT)?;
        self.online(&session)?;
        let owned = format!("stat -c '%a %U %G' /run/moorline-server {OPERATORS}");
        let user = "moorline-server moorline-server";
        assert_eq!(self.guest.ask(&owned, PATIENCE)?, format!("750 {user}\n660 {user}"));
        let asked = |groups: &str| {
            format!(
                "setpriv --reuid=nobody --regid=nogroup {groups} moorlinectl --server unix:{OPERATORS} devices 2>&1"
            )
        };
        let refused = self.guest.run(&asked("--clear-groups"))?;
        assert!(refused.code == 1 && refused.text.contains("Permission denied"), "{}", refused.text);
        self.guest.ask(&asked("--groups=moorline-server"), PATIENCE)?;
        // Without `--server` it is found by whoever may look into its folder: the address is shut.
        let shut = "sed -i 's/^#operators = .*/operators = \"off\"/' /etc/moorline/server.toml && \
            systemctl mask --now moorline-server.socket && systemctl restart moorline-server";
        self.guest.ask(shut, BOOT)?;
        self.online("another").map(drop)
    }
}

/// How often a line of a unit's journal holds `text`.
fn count(guest: &mut Guest, unit: &str, text: &str) -> Result<u32, Failure> {
    let said = format!("journalctl --boot --unit {unit} --output cat | grep -cF -e '{text}'");
    Ok(guest.ask(&said, PATIENCE)?.parse()?)
}
