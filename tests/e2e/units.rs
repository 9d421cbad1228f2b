//! The systemd units: systemd itself finds nothing to complain of, and they keep what they promise.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use moorline_testbed::failure::Failure;
use moorline_testbed::process::Program;
use moorline_testbed::programs::program;
use moorline_testbed::rig::{IMEI, Rig, free_address};
use tempfile::TempDir;

const SERVICES: [&str; 2] = ["moorline-agent.service", "moorline-server.service"];
const SOCKET: &str = "moorline-server.socket";

#[test]
fn systemd_verifies_the_units() -> Result<(), Failure> {
    let installed = Installed::new()?;
    let complaints = installed.verify(&[SERVICES[0], SERVICES[1], SOCKET])?;
    assert!(complaints.is_empty(), "{complaints:#?}");
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

#[test]
fn services_come_back_whatever_happens() -> Result<(), Failure> {
    for name in SERVICES {
        let unit = Unit::read(name)?;
        assert_eq!(unit.all("Restart"), ["always"], "{name}");
        assert_eq!(unit.all("StartLimitIntervalSec"), ["0"], "{name}: systemd must never give up");
        assert_eq!(unit.all("RestartPreventExitStatus"), [""; 0], "{name}");
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
fn server_takes_over_the_port_that_systemd_holds() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let port = free_address()?;
    let name = Unit::read(SOCKET)?.all("FileDescriptorName").concat();
    let by_hand = rig.server()?.command()?;
    let mut activation = Command::new("systemd-socket-activate");
    activation.arg(format!("--listen={port}")).arg(format!("--fdname={name}"));
    activation.arg(by_hand.get_program()).args(by_hand.get_args());
    let mut systemd = Program::start(&mut activation)?;
    systemd.wait_for("Listening on ")?;

    let mut agent = rig.agent(port, IMEI)?.start()?;
    systemd.wait_for(&format!("listening for devices on {port}"))?;
    agent.wait_for("-> online")?;
    Ok(())
}

/// The units in a folder of their own, where their programs are the ones built here.
struct Installed(TempDir);

impl Installed {
    fn new() -> Result<Self, Failure> {
        let folder = TempDir::new()?;
        for name in [SERVICES[0], SERVICES[1], SOCKET] {
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
