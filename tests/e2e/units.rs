//! The systemd units: systemd itself finds nothing to complain of, and they keep what they promise.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use moorline_testbed::failure::Failure;
use moorline_testbed::left_out::left_out;
use moorline_testbed::process::Program;
use moorline_testbed::programs::program;
use moorline_testbed::rig::{IMEI, Rig, free_address};
use tempfile::TempDir;

const SERVICES: [&str; 2] = ["moorline-agent.service", "moorline-server.service"];
const MODEM_RULES: &str = "60-moorline-modem.rules";
const SOCKET: &str = "moorline-server.socket";
/// What starts when a service has stopped for good.
const LAST_WORDS: [&str; 2] = ["moorline-agent-stopped.service", "moorline-server-stopped.service"];
/// The highest exposure that `systemd-analyze security` may find in each, times ten.
const EXPOSURE: [u32; 2] = [13, 13];

#[test]
fn systemd_verifies_the_units() -> Result<(), Failure> {
    let installed = Installed::new()?;
    let complaints = installed.verify(&[SERVICES[0], SERVICES[1], SOCKET])?;
    assert!(complaints.is_empty(), "{complaints:#?}");
    Ok(())
}

#[test]
fn services_are_hardly_exposed() -> Result<(), Failure> {
    for (name, highest) in SERVICES.into_iter().zip(EXPOSURE) {
        let Some(analysis) = analysis(name)? else { return Ok(()) };
        let exposure = analysis.split("Overall exposure level for ").nth(1).and_then(exposure);
        let exposure = exposure.ok_or_else(|| Failure::new(analysis.clone()))?;
        assert!(exposure <= highest, "{name}: {analysis}");
    }
    Ok(())
}

#[test]
fn what_stays_open_is_explained_in_the_unit() -> Result<(), Failure> {
    for name in SERVICES {
        let Some(analysis) = analysis(name)? else { return Ok(()) };
        let unit = fs::read_to_string(source(name))?;
        let explained = |key: &str| unit.lines().any(|line| line.starts_with('#') && line.contains(key));
        let open: Vec<_> = analysis.lines().filter_map(|line| line.strip_prefix("✗ ")).collect();
        assert!(!open.is_empty(), "{analysis}");
        for line in open {
            let key = line.split_inclusive('=').next().unwrap_or(line);
            // Their values, and not their key, say what is open.
            let key = match key {
                "RestrictAddressFamilies=" => "IPv6",
                "SystemCallFilter=" => line.split(['~', ' ']).nth(1).unwrap_or(key),
                key => key,
            };
            assert!(explained(key), "{name} does not say why {key} stays open: {line}");
        }
    }
    Ok(())
}

#[test]
fn growing_restart_is_the_only_thing_that_needs_a_newer_systemd() -> Result<(), Failure> {
    let installed = Installed::new()?;
    installed.add_drop_in("moorline-agent.service", "restart-growing.conf")?;
    let complaints = installed.verify(&["moorline-agent.service"])?;
    if systemd_version()? >= 254 {
        assert!(complaints.is_empty(), "{complaints:#?}");
    } else {
        assert_eq!(complaints.len(), 2, "{complaints:#?}");
        assert!(complaints[0].contains("'RestartSteps'"), "{complaints:#?}");
        assert!(complaints[1].contains("'RestartMaxDelaySec'"), "{complaints:#?}");
    }
    Ok(())
}

/// As its own unit has it, the agent can neither set the clock nor ask the kernel about it.
#[test]
fn clock_is_set_with_its_drop_in_alone() -> Result<(), Failure> {
    let unit = Unit::read("moorline-agent.service")?;
    assert_eq!(unit.all("ProtectClock"), ["yes"]);
    assert_eq!(unit.all("CapabilityBoundingSet"), [""]);
    assert_eq!(unit.all("AmbientCapabilities"), [""]);
    let drop_in = Unit::read("moorline-agent-clock.conf")?;
    assert_eq!(drop_in.all("ProtectClock"), ["no"]);
    assert!(drop_in.all("SystemCallFilter").concat().contains("adjtimex "));
    assert_eq!(drop_in.all("AmbientCapabilities"), ["CAP_SYS_TIME"]);
    assert_eq!(drop_in.all("CapabilityBoundingSet"), ["CAP_SYS_TIME"]);
    let installed = Installed::new()?;
    installed.add_drop_in("moorline-agent.service", "moorline-agent-clock.conf")?;
    let complaints = installed.verify(&["moorline-agent.service"])?;
    assert!(complaints.is_empty(), "{complaints:#?}");
    Ok(())
}

#[test]
fn services_come_back_whatever_happens() -> Result<(), Failure> {
    for name in SERVICES {
        let unit = Unit::read(name)?;
        assert_eq!(unit.all("Restart"), ["always"], "{name}");
        assert_eq!(unit.all("StartLimitIntervalSec"), ["0"], "{name}: systemd must never give up");
        assert_eq!(unit.all("RestartSec"), ["5s"], "{name}");
        assert_eq!(unit.all("RestartPreventExitStatus"), ["78 243"], "{name}: no restart mends these");
        assert_eq!(unit.all("Type"), ["notify"], "{name}");
        let minutes = unit.all("WatchdogSec").concat();
        let minutes: u32 = minutes.strip_suffix("min").unwrap_or(&minutes).parse()?;
        assert!(minutes >= 2, "{name}: a slow device needs time for a turn of the loop");
        for order in ["After", "Wants", "Requires"] {
            let units = unit.all(order).concat();
            assert!(!units.contains("network-online"), "{name}: being offline is normal");
        }
    }
    Ok(())
}

#[test]
fn person_is_called_when_no_restart_helps() -> Result<(), Failure> {
    for (name, last_words) in SERVICES.iter().zip(LAST_WORDS) {
        assert_eq!(Unit::read(name)?.all("OnFailure"), [last_words], "{name}");
        let unit = Unit::read(last_words)?;
        assert_eq!(unit.all("SyslogLevel"), ["err"], "{last_words}");
        assert_eq!(unit.all("SyslogIdentifier"), [name.trim_end_matches(".service")], "{last_words}");
        let words = unit.all("ExecStart").concat();
        for word in ["78/CONFIG", "243/CREDENTIALS", " check -c /etc/moorline/", "systemctl restart "] {
            assert!(words.contains(word), "{last_words} does not speak of {word}");
        }
    }
    Ok(())
}

#[test]
fn users_of_the_services_are_made() -> Result<(), Failure> {
    for name in SERVICES {
        let user = Unit::read(name)?.all("User").concat();
        let made = fs::read_to_string(source(&format!("sysusers.d/{user}.conf")))?;
        assert!(made.lines().any(|line| line.starts_with(&format!("u {user} "))), "{made}");
        let folder = fs::read_to_string(source(&format!("tmpfiles.d/{user}.conf")))?;
        assert!(folder.contains("\nd /etc/moorline 0750 root moorline\n"), "{folder}");
        assert!(made.contains(&format!("\nm {user} moorline\n")), "{user} could not read /etc/moorline");
    }
    let made = fs::read_to_string(source("sysusers.d/moorline-agent.conf"))?;
    assert!(made.contains("\nm moorline-agent dialout\n"), "the agent could not open its modem");
    Ok(())
}

/// systemd makes it as well, but not on a root file system that cannot be written, where it would start no agent.
#[test]
fn state_folder_of_the_agent_is_in_the_image() -> Result<(), Failure> {
    let unit = Unit::read("moorline-agent.service")?;
    let (name, mode) = (unit.all("StateDirectory").concat(), unit.all("StateDirectoryMode").concat());
    let user = unit.all("User").concat();
    let folders = fs::read_to_string(source("tmpfiles.d/moorline-agent.conf"))?;
    assert!(folders.contains(&format!("\nd /var/lib/{name} {mode} {user} {user}\n")), "{folders}");
    Ok(())
}

#[test]
fn known_modems_are_named_by_vendor_product_and_interface() -> Result<(), Failure> {
    let rules = fs::read_to_string(source(MODEM_RULES))?;
    let tables = rules.lines().filter_map(|line| line.strip_prefix("ENV{.MOORLINE_PORT}==\""));
    let ports: Vec<_> =
        tables.filter_map(|table| table.split('"').next()).flat_map(|ports| ports.split('|')).collect();
    assert!(ports.len() >= 30, "{ports:?}");
    for port in &ports {
        let widths: Vec<_> = port.split(':').map(str::len).collect();
        assert_eq!(widths, [4, 4, 2], "{port}");
        let is_lower_hex = |sign: char| matches!(sign, '0'..='9' | 'a'..='f' | ':');
        assert!(port.chars().all(is_lower_hex), "{port}: sysfs writes lower case");
        assert_eq!(ports.iter().filter(|other| other == &port).count(), 1, "{port} is there twice");
    }
    Ok(())
}

#[test]
fn udev_verifies_the_modem_rules() -> Result<(), Failure> {
    let verified = Command::new("udevadm").arg("verify").arg(source(MODEM_RULES)).output();
    match verified {
        Err(_) => left_out("udevadm verify: udevadm is not installed (apt install udev)"),
        Ok(verified) if String::from_utf8_lossy(&verified.stderr).contains("Unknown command verb") => {
            left_out("udevadm verify: it needs systemd 254");
        }
        Ok(verified) => assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr)),
    }
    Ok(())
}

#[test]
fn drivers_of_usb_modems_are_loaded_before_they_are_allowed() -> Result<(), Failure> {
    let allowed = Unit::read("moorline-agent.service")?.all("DeviceAllow");
    let loaded = fs::read_to_string(source("modules-load.d/moorline-modem.conf"))?;
    let loaded: Vec<_> = loaded.lines().filter(|line| !line.starts_with('#')).collect();
    for (device, module) in [("char-ttyUSB rw", "usbserial"), ("char-ttyACM rw", "cdc-acm")] {
        assert!(allowed.iter().any(|line| line == device), "{device}");
        assert!(loaded.contains(&module), "{module}");
    }
    Ok(())
}

#[test]
fn server_takes_over_the_ports_that_systemd_holds() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let (devices, operators) = (free_address()?, free_address()?);
    let server = rig.server()?.set("listen.devices", devices).set("listen.operators", operators);
    let by_hand = server.command()?;
    let mut activation = Command::new("systemd-socket-activate");
    activation.arg(format!("--listen={operators}")).arg(format!("--listen={devices}"));
    activation.arg(by_hand.get_program()).args(by_hand.get_args());
    let mut systemd = Program::start(&mut activation)?;
    systemd.wait_for(&format!("Listening on {devices}"))?;

    let mut agent = rig.agent(devices, IMEI)?.start()?;
    systemd.wait_for(&format!("listening for devices on {devices}"))?;
    agent.wait_for("-> online")?;
    Ok(())
}

#[test]
fn socket_unit_agrees_with_the_servers_defaults() -> Result<(), Failure> {
    let unit = Unit::read(SOCKET)?;
    assert_eq!(unit.all("ListenStream"), ["[::]:9089", "127.0.0.1:9090"]);
    assert_eq!(unit.all("BindIPv6Only"), ["both"]);
    // It waits for the same file as the service, or each knock would be a start that is skipped.
    let service = Unit::read("moorline-server.service")?;
    assert_eq!(unit.all("ConditionPathExists"), service.all("ConditionPathExists"));
    assert_eq!(service.all("Wants"), [SOCKET]);
    Ok(())
}

/// The units in a folder of their own, where their programs are the ones built here.
struct Installed(TempDir);

impl Installed {
    fn new() -> Result<Self, Failure> {
        let folder = TempDir::new()?;
        for name in [SERVICES[0], SERVICES[1], SOCKET, LAST_WORDS[0], LAST_WORDS[1]] {
            let mut text = fs::read_to_string(source(name))?;
            for installed in ["moorline-agent", "moorline-server"] {
                let built = format!("ExecStart={} ", program(installed)?.display());
                text = text.replace(&format!("ExecStart=/usr/bin/{installed} "), &built);
            }
            assert!(!text.contains("/usr/bin/"), "{name} starts a program that is not built here");
            fs::write(folder.path().join(name), text)?;
        }
        Ok(Self(folder))
    }

    fn add_drop_in(&self, unit: &str, name: &str) -> Result<(), Failure> {
        let folder = self.0.path().join(format!("{unit}.d"));
        fs::create_dir(&folder)?;
        fs::copy(source(name), folder.join(name))?;
        Ok(())
    }

    /// What systemd complains of, a line each.
    fn verify(&self, units: &[&str]) -> Result<Vec<String>, Failure> {
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .args(units.iter().map(|unit| self.0.path().join(unit)))
            .output()
            .map_err(|error| Failure::new(format!("systemd-analyze: {error}; apt install systemd")))?;
        let mut complaints: Vec<_> =
            String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
        if complaints.is_empty() && !output.status.success() {
            complaints.push(output.status.to_string());
        }
        Ok(complaints)
    }
}

/// What `systemd-analyze security` finds; nothing when this systemd cannot judge a file.
fn analysis(name: &str) -> Result<Option<String>, Failure> {
    if systemd_version()? < 250 {
        left_out("the units' exposure: systemd-analyze security --offline needs systemd 250");
        return Ok(None);
    }
    let arguments = ["security", "--offline=true", "--no-pager"];
    let output = Command::new("systemd-analyze").args(arguments).arg(source(name)).output()?;
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// `1.2` in "moorline-agent.service: 1.2 OK", times ten.
fn exposure(text: &str) -> Option<u32> {
    let (whole, tenth) = text.split_whitespace().nth(1)?.split_once('.')?;
    Some(whole.parse::<u32>().ok()? * 10 + tenth.parse::<u32>().ok()?)
}

fn systemd_version() -> Result<u32, Failure> {
    let output = Command::new("systemd-analyze").arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().nth(1).ok_or_else(|| Failure::new(text.clone()))?;
    Ok(version.parse()?)
}

/// One unit file as it is in the repository.
struct Unit(Vec<(String, String)>);

impl Unit {
    fn read(name: &str) -> Result<Self, Failure> {
        let text = fs::read_to_string(source(name))?;
        let settings =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        Ok(Self(settings.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }

    /// The values of a key, in their order.
    fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect()
    }
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd").join(name)
}
