//! The modem after it has told its IMEI: read now and then, reported to the server, found again wherever it comes back, and
//! shared with other programs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use moorline_agent::modem::condition::{Condition, judge};
use moorline_agent::modem::watch::{Place, Reading, Watch};
use moorline_testbed::failure::Failure;
use moorline_testbed::left_out::left_out;
use moorline_testbed::modem::{Modem, Script};
use moorline_testbed::rig::{IMEI, Rig, free_address};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

const READ: [&str; 4] = ["AT+CGSN", "AT+CSQ", "AT+CEREG?", "AT+COPS?"];

/// An ordinary modem at home in 262-01 over LTE.
fn at_home() -> Script {
    Script::ordinary(IMEI)
        .answer("AT+CSQ", "\r\n+CSQ: 20,99\r\n\r\nOK\r\n")
        .answer("AT+CEREG?", "\r\n+CEREG: 0,1\r\n\r\nOK\r\n")
        .answer("AT+COPS?", "\r\n+COPS: 0,2,\"26201\",7\r\n\r\nOK\r\n")
}

/// What each recorded answer says, by the recording's name.
const RECORDED: [(&str, &str); 33] = [
    ("a7670e-cops-noservice", "registration not told"),
    ("air724-cops", "registration not told at 460-11 over LTE"),
    ("air724-csq", "registration not told, -59 dBm"),
    ("bg96-espidf-cops0", "registration not told"),
    ("dongle272-csq-crcr", "registration not told, -65 dBm"),
    ("e3372-csq-urc", "registration not told, -57 dBm"),
    ("eg25-desync-cops", "registration not told"),
    ("eg25-desync-creg", "registration not told"),
    ("eg800k-csq", "registration not told, -51 dBm"),
    ("gammu-creg-empty", "registration not told"),
    ("gammu-creg-emptylac", "registered"),
    ("gammu-creg-huawei", "registered"),
    ("gammu-creg-mismatched", "registered over LTE"),
    ("gammu-creg-none", "not registered and not searching"),
    ("gammu-creg-siemens", "registered"),
    ("gammu-creg-sierra312u", "registered, roaming over UMTS"),
    ("gammu-creg-singlequote", "registered"),
    ("gammu-creg-telit", "registered over UMTS"),
    ("gammu358-creg", "registered"),
    ("gammu385-creg", "registered"),
    ("n706-creg", "registered over LTE"),
    ("n706-csq", "registration not told, -81 dBm"),
    ("nrf9160-cereg-urc", "searching for a network"),
    ("rm500u-cops", "registration not told at 460-11 over 5G"),
    ("rm500u-csq", "registration not told, -77 dBm"),
    ("sara-g350-creg", "registered, roaming"),
    ("ublox-u260-cgreg", "registered, roaming over UMTS"),
    ("ublox-u260-cops", "registration not told at 310-410 over UMTS"),
    ("ublox-u260-creg", "registered, roaming over UMTS"),
    ("ublox-u260-csq", "registration not told, -83 dBm"),
    ("ec200a-compound", "registration not told"),
    ("eg25-desync-cmgf", "registration not told"),
    ("rm510q-cimi-urc", "registration not told"),
];

#[test]
fn recorded_answers_are_read_as_they_should_be() -> Result<(), Failure> {
    #[expect(clippy::disallowed_methods, reason = "where this program starts")]
    let folder = std::env::var("MOORLINE_MODEM_CORPUS")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/modem"), PathBuf::from);
    let Ok(text) = fs::read_to_string(folder.join("other.jsonl")) else {
        left_out(&format!("{}: not there; MOORLINE_MODEM_CORPUS names its folder", folder.display()));
        return Ok(());
    };
    let mut read = 0;
    for line in text.lines() {
        let value: Value = serde_json::from_str(line)?;
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        let (id, command, response) = (text("id"), text("command"), text("response"));
        let condition = judge(command, response.as_bytes());
        match RECORDED.iter().find(|(known, _)| *known == id) {
            Some((_, words)) => assert_eq!(condition.to_string(), *words, "{id}"),
            None => assert!(
                ["CSQ", "CREG", "COPS"].iter().all(|asks| !command.contains(asks)),
                "{id} is not judged"
            ),
        }
        read += usize::from(RECORDED.iter().any(|(known, _)| *known == id));
        // Whatever was asked, another command's answer is none.
        for (other, name) in [("AT+CSQ", "+CSQ"), ("AT+CEREG?", "+CEREG"), ("AT+COPS?", "+COPS")] {
            if !response.contains(name) {
                assert_eq!(judge(other, response.as_bytes()), Condition::default(), "{id} for {other}");
            }
        }
    }
    assert_eq!(read, RECORDED.len());
    Ok(())
}

#[test]
fn condition_is_read_once_and_reaches_the_operators() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let modem = Modem::start(at_home())?;
    let mut agent = rig.agent(server.devices(), IMEI)?.modem(modem.path()).start()?;
    agent.wait_for("registered")?;
    let path = format!("/api/devices/{IMEI}");
    let shown = server.operators().wait_until(&path, "the report", |device| {
        let status = device["status"].clone();
        status.is_object().then_some(status)
    })?;
    assert_eq!((&shown["signal_dbm"], &shown["registration"]), (&(-73).into(), &1.into()), "{shown}");
    assert_eq!(shown["operator"], "262-01", "{shown}");
    assert!(shown["uptime_s"].is_u64() && shown["memory_kb"].is_u64(), "{shown}");
    let asked = modem.asked();
    assert_eq!(asked[asked.len() - READ.len()..], READ);
    // The port is another program's now.
    let port = fs::File::options().read(true).write(true).open(modem.path())?;
    flock(&port, FlockOperation::NonBlockingLockExclusive)?;
    let status = fs::read_to_string(agent.folder().join("status"))?;
    assert!(status.contains("modem    registered at 262-01 over LTE, -73 dBm\n"), "{status}");
    agent.stop()
}

#[test]
fn modem_is_looked_at_when_the_way_is_gone_and_not_reset_unasked() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let script = Script::ordinary(IMEI)
        .answer("AT+CSQ", "\r\n+CSQ: 99,99\r\n\r\nOK\r\n")
        .answer("AT+CEREG?", "\r\n+CEREG: 0,2\r\n\r\nOK\r\n")
        .answer("AT+CREG?", "\r\n+CREG: 0,0\r\n\r\nOK\r\n")
        .answer("AT+COPS?", "\r\n+COPS: 0\r\n\r\nOK\r\n");
    let modem = Modem::start(script)?;
    let mut agent = rig
        .agent(free_address()?, IMEI)?
        .set("server.address", "nowhere.invalid:9089")
        .set("server.name", "localhost")
        .set("modem.reset", "last-resort")
        .modem(modem.path())
        .start()?;
    let line = agent.wait_for("; modem: searching for a network")?;
    assert!(line.contains("diagnosis: name resolution fails since "), "{line}");
    assert!(!modem.asked().iter().any(|command| command.contains("CFUN")), "{:?}", modem.asked());
    agent.stop()
}

#[test]
fn fault_of_the_server_leaves_the_modem_alone() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let modem = Modem::start(at_home())?;
    let mut agent =
        rig.agent(free_address()?, IMEI)?.set("modem.watch", "never").modem(modem.path()).start()?;
    let line = agent.wait_for("diagnosis: TCP fails since ")?;
    assert!(line.ends_with("; the way to the server's host stands"), "{line}");
    agent.wait_for("next try in")?;
    assert!(!modem.asked().iter().any(|command| command == "AT+CSQ"), "{:?}", modem.asked());
    agent.stop()
}

#[test]
fn busy_port_names_modem_manager_where_it_runs() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let modem = Modem::start(at_home())?;
    let held = fs::File::options().read(true).write(true).open(modem.path())?;
    flock(&held, FlockOperation::NonBlockingLockExclusive)?;
    // Its name is all that is looked at.
    let manager = rig.folder().join("ModemManager");
    symlink("/bin/cat", &manager)?;
    let mut manager = Command::new(manager).stdin(Stdio::piped()).spawn()?;
    let mut agent = rig.agent(free_address()?, IMEI)?.modem(modem.path()).start()?;
    let told = agent.wait_for("ID_MM_PORT_IGNORE=1, or the whole modem with ID_MM_DEVICE_IGNORE=1");
    manager.kill()?;
    manager.wait()?;
    told?;
    agent.stop()
}

/// A watch whose time a test moves on, over real ports.
struct Watched {
    watch: Watch,
    now: Instant,
}

impl Watched {
    #[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
    fn new(pattern: &Path) -> Result<Self, Failure> {
        let place = Place {
            patterns: vec![pattern.to_str().unwrap_or_default().to_owned()],
            baud: 115_200,
            imei: Some(IMEI.parse()?),
            modem: "Quectel EC25".try_into().unwrap_or_default(),
            port: None,
        };
        let now = Instant::now();
        Ok(Self { watch: Watch::new(place, QUARTER, now), now })
    }

    /// Moves on to the next reading and through it; deadlines pass as soon as the port has nothing more to say.
    fn read(&mut self) -> Result<Reading, Failure> {
        self.now = self.now.max(self.watch.deadline());
        loop {
            let interest = self.watch.interest();
            let mut fds: Vec<_> =
                interest.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
            let patience = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            poll(&mut fds, Some(&patience))?;
            let ready = fds.first().map_or(PollFlags::empty(), PollFd::revents);
            if ready.is_empty() {
                self.now = self.now.max(self.watch.deadline());
            }
            if let Some(reading) = self.watch.turn(ready, self.now) {
                return Ok(reading);
            }
        }
    }

    fn told(&mut self) -> Result<String, Failure> {
        match self.read()? {
            Reading::Told(condition) => Ok(condition.to_string()),
            other => Err(Failure::new(format!("{other:?}"))),
        }
    }

    /// How long until the next reading.
    fn rests(&self) -> Duration {
        self.watch.deadline().saturating_duration_since(self.now)
    }
}

const QUARTER: Duration = Duration::from_secs(900);

#[test]
fn modem_is_found_wherever_it_comes_back() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let mut watched = Watched::new(&folder.path().join("usb-*"))?;
    let modem = Modem::start(at_home())?;
    symlink(modem.path(), folder.path().join("usb-1"))?;
    assert_eq!(watched.told()?, "registered at 262-01 over LTE, -73 dBm");
    assert_eq!((watched.rests(), watched.watch.interest().is_none()), (QUARTER, true), "the port is closed");
    drop(modem);
    fs::remove_file(folder.path().join("usb-1"))?;
    let Reading::Unreachable(why) = watched.read()? else { return Err(Failure::new("who answered?")) };
    assert!(why[0].contains("no port matches"), "{why:?}");
    assert_eq!(watched.rests(), QUARTER, "a port that is gone is looked for as often as before");
    let (other, modem) = (Modem::start(Script::ordinary("869731052403821"))?, Modem::start(at_home())?);
    symlink(other.path(), folder.path().join("usb-2"))?;
    symlink(modem.path(), folder.path().join("usb-3"))?;
    assert_eq!(watched.told()?, "registered at 262-01 over LTE, -73 dBm");
    assert_eq!(other.asked(), ["AT+CGSN"], "another modem is asked nothing more");
    Ok(())
}

#[test]
fn unplugging_in_the_middle_ends_the_reading_at_once() -> Result<(), Failure> {
    for beginning in ["", "\r\n+CSQ: 2"] {
        let modem = Modem::start(Script::ordinary(IMEI).unplugged_after("AT+CSQ", beginning))?;
        let mut watched = Watched::new(modem.path())?;
        let begun = watched.now;
        let Reading::Unreachable(why) = watched.read()? else { return Err(Failure::new("who answered?")) };
        assert!(why[0].contains("unplugged") && watched.watch.interest().is_none(), "{why:?}");
        assert!(watched.now - begun < Duration::from_secs(3), "{:?}", watched.now - begun);
    }
    Ok(())
}

#[test]
fn shared_port_is_asked_ever_more_rarely() -> Result<(), Failure> {
    let foreign = "\r\n+CSQ: 20,99\r\n\r\nOK\r\n";
    let script =
        at_home().answer("AT+CEREG?", format!("at+cclk?\r\r\n+CCLK: \"24/01/18\"\r\nOK\r\n{foreign}"));
    let modem = Modem::start(script)?;
    let mut watched = Watched::new(modem.path())?;
    // The first answer is alone on the port, the others are not.
    let mut rests = Vec::new();
    for _ in 0..6 {
        watched.read()?;
        rests.push(watched.rests().as_secs() / QUARTER.as_secs());
    }
    assert_eq!(rests, [1, 2, 4, 8, 8, 8]);
    Ok(())
}

#[test]
fn modem_is_started_anew_once_and_read_later() -> Result<(), Failure> {
    let modem = Modem::start(at_home().answer("AT+CFUN=1,1", "\r\nOK\r\n"))?;
    let mut watched = Watched::new(modem.path())?;
    watched.told()?;
    watched.watch.reset(watched.now);
    assert_eq!(watched.read()?, Reading::Reset);
    assert_eq!(watched.rests(), Duration::from_secs(60));
    watched.told()?;
    assert_eq!(modem.asked().iter().filter(|command| *command == "AT+CFUN=1,1").count(), 1);
    // However often it is asked for, a reading comes at most every two minutes.
    watched.watch.look(watched.now);
    assert!(watched.rests() > Duration::from_secs(115), "{:?}", watched.rests());
    Ok(())
}
