//! `moorline-agent imei` and modems on pseudo-terminals: every exchange that was recorded of a real one, and every way in
//! which a port can be of no use.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use moorline_agent::modem::answer::{Verdict, judge};
use moorline_testbed::failure::Failure;
use moorline_testbed::left_out::left_out;
use moorline_testbed::modem::{Modem, Script};
use moorline_testbed::programs::program;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::termios::ioctl_tiocexcl;
use serde_json::Value;

const IMEI: &str = "869731052403821";

/// What the agent sends to learn the IMEI, and to learn whether anybody is there.
const SENT: [&str; 5] = ["AT+CGSN", "AT+CGSN=1", "AT+GSN", "ATI", "AT"];

/// What is promised, whatever the ports do.
const PROMISE: Duration = Duration::from_secs(30);

/// Neither root nor anybody who owns a port.
const NOBODY: u32 = 65_534;

/// One ask of `moorline-agent imei`.
struct Asked {
    told: String,
    said: String,
    code: Option<i32>,
    took: Duration,
}

impl Asked {
    fn told_imei(&self, imei: &str) -> bool {
        self.code == Some(0) && self.told == format!("{imei}\n")
    }

    fn told_none(&self) -> bool {
        self.code == Some(1) && self.told.is_empty()
    }

    #[track_caller]
    fn must_tell(&self, imei: &str) {
        assert!(self.told_imei(imei), "{:?} {}\n{}", self.code, self.told, self.said);
    }

    #[track_caller]
    fn must_say(&self, words: &str) {
        assert!(self.told_none(), "{:?} {}\n{}", self.code, self.told, self.said);
        assert!(self.said.contains(words), "{words}\nis not in\n{}", self.said);
    }
}

fn ask(ports: &[&Path]) -> Result<Asked, Failure> {
    ask_by(&mut Command::new(agent()?), ports)
}

/// Its path; whether it is fresh is found out once.
fn agent() -> Result<&'static Path, Failure> {
    static AGENT: OnceLock<PathBuf> = OnceLock::new();
    if AGENT.get().is_none() {
        // Another test may have been quicker, with the same path.
        let _ = AGENT.set(program("moorline-agent")?);
    }
    AGENT.get().map(PathBuf::as_path).ok_or_else(|| Failure::new("the path was not kept"))
}

#[expect(clippy::disallowed_methods, reason = "the promise is one of real time")]
fn ask_by(command: &mut Command, ports: &[&Path]) -> Result<Asked, Failure> {
    command.arg("imei");
    for port in ports {
        command.arg("--port").arg(port);
    }
    let began = Instant::now();
    let Output { status, stdout, stderr } = command.output()?;
    let asked = Asked {
        told: String::from_utf8_lossy(&stdout).into_owned(),
        said: String::from_utf8_lossy(&stderr).into_owned(),
        code: status.code(),
        took: began.elapsed(),
    };
    assert!(asked.took < PROMISE, "{:?}\n{}", asked.took, asked.said);
    Ok(asked)
}

/// A recorded exchange.
struct Exchange {
    id: String,
    command: String,
    response: Vec<u8>,
    reads: Vec<Vec<u8>>,
    imei: Option<String>,
    expect: String,
}

impl Exchange {
    fn from_json(line: &str) -> Result<Self, Failure> {
        let value: Value = serde_json::from_str(line)?;
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let reads = value["reads"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(Self {
            id: text("id"),
            command: text("command"),
            response: latin1(value["response"].as_str().unwrap_or_default()),
            reads: reads.map(latin1).collect(),
            imei: value["imei"].as_str().map(str::to_owned),
            expect: text("expect"),
        })
    }

    /// A modem that answers this one command as recorded; nothing but noise when that is what was recorded for `AT`.
    fn script(&self) -> Script {
        if self.command == "AT" {
            return Script::silent().otherwise(self.response.clone());
        }
        let pieces: &[Vec<u8>] =
            if self.reads.is_empty() { std::slice::from_ref(&self.response) } else { &self.reads };
        Script::obliging().answer_in_pieces(&self.command, pieces)
    }

    /// What is wrong with the answer of the pure parser.
    fn judged_wrongly(&self) -> Option<String> {
        let verdict = judge(&self.command, &self.response);
        let right = match &verdict {
            Verdict::Imei(imei) => {
                self.expect == "imei" && self.imei.as_deref() == Some(imei.to_string().as_str())
            }
            Verdict::Refused(_) => self.expect == "refuse",
            Verdict::Error(_) => self.expect == "error",
            Verdict::NoAnswer => self.expect == "no-answer",
            Verdict::SimOrBusy(_) => self.expect == "sim-or-busy",
        };
        (!right).then(|| format!("{}: expected {}, judged {verdict:?}", self.id, self.expect))
    }

    /// What is wrong with what the program told of it.
    fn told_wrongly(&self) -> Result<Option<String>, Failure> {
        let modem = Modem::start(self.script())?;
        let asked = ask(&[modem.path()])?;
        let imei = self.imei.as_deref().unwrap_or_default();
        let right = match self.expect.as_str() {
            "imei" => {
                asked.told_imei(imei)
                    && asked.said.contains(&format!("answered {imei} to {}\n", self.command))
            }
            "refuse" => {
                asked.told_none() && asked.said.contains(&format!("answered {imei} to {}: ", self.command))
            }
            _ => asked.told_none(),
        };
        let Asked { told, said, code, .. } = asked;
        Ok((!right).then(|| format!("{}: {code:?}, told {told:?}, said {said}", self.id)))
    }
}

/// The recordings' bytes are the characters of Latin-1.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect()
}

/// The recorded exchanges in `name`; none, with a word, when they are not there.
fn recorded(name: &str) -> Result<Vec<Exchange>, Failure> {
    #[expect(clippy::disallowed_methods, reason = "where this program starts")]
    let folder = std::env::var("MOORLINE_MODEM_CORPUS")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/modem"), PathBuf::from);
    let file = folder.join(name);
    match fs::read_to_string(&file) {
        Ok(text) => text.lines().map(Exchange::from_json).collect(),
        Err(error) => {
            left_out(&format!("{}: {error}; MOORLINE_MODEM_CORPUS names its folder", file.display()));
            Ok(Vec::new())
        }
    }
}

#[test]
fn recorded_exchanges_are_judged_as_they_should_be() -> Result<(), Failure> {
    let wrong: Vec<_> = recorded("imei.jsonl")?.iter().filter_map(Exchange::judged_wrongly).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn recorded_answers_to_other_commands_hold_no_imei() -> Result<(), Failure> {
    for exchange in recorded("other.jsonl")? {
        for command in [exchange.command.as_str(), "AT+CSQ", "AT+CPIN?", ""] {
            let verdict = judge(command, &exchange.response);
            assert!(
                !matches!(verdict, Verdict::Imei(_) | Verdict::Refused(_)),
                "{}: {verdict:?}",
                exchange.id
            );
        }
    }
    Ok(())
}

#[test]
fn recorded_modems_are_asked_as_they_should_be() -> Result<(), Failure> {
    let exchanges = recorded("imei.jsonl")?;
    let sent: Vec<_> =
        exchanges.iter().filter(|exchange| SENT.contains(&exchange.command.as_str())).collect();
    // Most of them wait, not compute.
    let next = AtomicUsize::new(0);
    let ask_next = || sent.get(next.fetch_add(1, Ordering::Relaxed)).map(|exchange| exchange.told_wrongly());
    let workers = 16;
    let wrong = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| scope.spawn(|| std::iter::from_fn(ask_next).collect::<Result<Vec<_>, Failure>>()))
            .collect();
        let mut wrong = Vec::new();
        for thread in threads {
            wrong.extend(thread.join().expect("a worker does not panic")?.into_iter().flatten());
        }
        Ok::<_, Failure>(wrong)
    })?;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn ordinary_modem_tells_its_imei_at_once() -> Result<(), Failure> {
    let modem = Modem::start(Script::ordinary(IMEI).echoing())?;
    let asked = ask(&[modem.path()])?;
    asked.must_tell(IMEI);
    assert_eq!(asked.said, format!("{}, Quectel EC25: answered {IMEI} to AT+CGSN\n", modem.path().display()));
    assert_eq!(modem.asked(), ["AT", "ATE0", "AT+CGSN", "AT+CGMI", "AT+CGMM"]);
    Ok(())
}

#[test]
fn control_characters_of_a_modem_reach_no_terminal() -> Result<(), Failure> {
    let named = Script::obliging()
        .answer("AT+CGSN", format!("\r\n{IMEI}\r\n\r\nOK\r\n"))
        .answer("AT+CGMM", "\r\nEC\u{1b}[2J25\r\n\r\nOK\r\n");
    let named = Modem::start(named)?;
    let mad = Modem::start(Script::obliging().answer("AT+CGSN", "\r\n+CME ERROR: \u{1b}[2J\r\n"))?;
    let asked = ask(&[mad.path(), named.path()])?;
    asked.must_tell(IMEI);
    assert!(!asked.said.contains('\u{1b}'), "{:?}", asked.said);
    Ok(())
}

#[test]
fn silent_and_spewing_ports_are_passed_over() -> Result<(), Failure> {
    let silent = Modem::start(Script::silent())?;
    let echo = Modem::start(Script::silent().echoing())?;
    let diagnostics = Modem::start(Script::spewing(b"\xff\xff\xff\xff\xff\xff\xff\xfe"))?;
    let nulls = Modem::start(Script::spewing(&[0; 32]))?;
    let position = Modem::start(Script::spewing(b"$GPGGA,092750.000,5321.6802,N,00630.3372,W,1,8,1.03\r\n"))?;
    let good = Modem::start(Script::ordinary(IMEI))?;
    let ports = [&silent, &echo, &diagnostics, &nulls, &position, &good].map(Modem::path);
    let asked = ask(&ports)?;
    asked.must_tell(IMEI);
    for (port, words) in [
        (&silent, "nobody answers AT"),
        (&echo, "it sends text and does not answer AT"),
        (&diagnostics, "it sends data that is no answer to AT"),
        (&nulls, "it sends data that is no answer to AT"),
        (&position, "it sends data that is no answer to AT"),
    ] {
        let line = format!("{}: {words}", port.path().display());
        assert!(asked.said.contains(&line), "{line}\nis not in\n{}", asked.said);
    }
    Ok(())
}

#[test]
fn many_silent_ports_end_in_time() -> Result<(), Failure> {
    let modems = (0..12).map(|_| Modem::start(Script::silent())).collect::<Result<Vec<_>, _>>()?;
    let ports: Vec<_> = modems.iter().map(Modem::path).collect();
    let asked = ask(&ports)?;
    asked.must_say("not asked: the time is up");
    Ok(())
}

#[test]
fn modem_unplugged_while_it_answers_tells_nothing() -> Result<(), Failure> {
    for beginning in ["\r\n869731", "\r\n869731052403821", ""] {
        let modem = Modem::start(Script::obliging().unplugged_after("AT+CGSN", beginning))?;
        ask(&[modem.path()])?.must_say("unplugged");
    }
    Ok(())
}

#[test]
fn busy_sim_is_asked_again() -> Result<(), Failure> {
    let script = Script::obliging()
        .answer("AT+CGSN", "\r\n+CME ERROR: SIM busy\r\n")
        .answer("AT+CGSN", format!("\r\n{IMEI}\r\n\r\nOK\r\n"));
    let modem = Modem::start(script)?;
    ask(&[modem.path()])?.must_tell(IMEI);
    Ok(())
}

#[test]
fn ports_that_are_none_are_told_in_words() -> Result<(), Failure> {
    let missing = ask(&[Path::new("/dev/ttyNOWHERE0"), Path::new("/dev/ttyNOWHERE*")])?;
    missing.must_say("/dev/ttyNOWHERE0: there is no such port");
    missing.must_say("/dev/ttyNOWHERE*: no port matches");
    ask(&[Path::new("/dev/null")])?.must_say("/dev/null: it is not a serial port");
    let file = tempfile::NamedTempFile::new()?;
    ask(&[file.path()])?.must_say("it is not a serial port");
    Ok(())
}

#[test]
fn pattern_finds_the_port() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let (silent, good) = (Modem::start(Script::silent())?, Modem::start(Script::ordinary(IMEI))?);
    std::os::unix::fs::symlink(silent.path(), folder.path().join("usb-Test-if00-port0"))?;
    std::os::unix::fs::symlink(good.path(), folder.path().join("usb-Test-if02-port0"))?;
    let asked = ask(&[&folder.path().join("usb-*")])?;
    asked.must_tell(IMEI);
    assert!(asked.said.contains("usb-Test-if02-port0, Quectel EC25: answered"), "{}", asked.said);
    Ok(())
}

#[test]
fn port_that_another_holds_is_busy() -> Result<(), Failure> {
    let modem = Modem::start(Script::ordinary(IMEI))?;
    let held = hold(modem.path())?;
    flock(&held, FlockOperation::NonBlockingLockExclusive)?;
    ask(&[modem.path()])?.must_say("another program has it open, often ModemManager");
    assert!(modem.asked().is_empty());
    Ok(())
}

/// Root passes by TIOCEXCL and permissions; so as nobody when this is root.
#[test]
fn exclusive_and_forbidden_ports_are_told_in_words() -> Result<(), Failure> {
    let modem = Modem::start(Script::ordinary(IMEI))?;
    let Some(mut agent) = unprivileged(modem.path())? else {
        left_out("an ordinary user cannot run a copy of the program");
        return Ok(());
    };
    let held = hold(modem.path())?;
    ioctl_tiocexcl(&held)?;
    ask_by(&mut agent()?, &[modem.path()])?.must_say("another program has it open");
    rustix::termios::ioctl_tiocnxcl(&held)?;
    ask_by(&mut agent()?, &[modem.path()])?.must_tell(IMEI);
    fs::set_permissions(modem.path(), Permissions::from_mode(0o000))?;
    let asked = ask_by(&mut agent()?, &[modem.path()])?;
    asked.must_say("permission denied");
    assert!(asked.took > Duration::from_secs(2), "a port that is root's for a moment is tried again");
    Ok(())
}

/// A maker of agents that run as an ordinary user who owns `port`.
fn unprivileged(port: &Path) -> Result<Option<impl FnMut() -> Result<Command, Failure>>, Failure> {
    let is_root = rustix::process::geteuid().is_root();
    // The build may lie in a folder that is root's alone; a copy beside the ports does not.
    let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir()?;
    let copy = folder.path().join("moorline-agent");
    fs::copy(agent()?, &copy)?;
    if is_root {
        std::os::unix::fs::chown(port, Some(NOBODY), None)?;
    }
    let make = move || {
        let _ = &folder;
        let mut command = Command::new(&copy);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        Ok(command)
    };
    let runs = make()?.arg("--version").output().is_ok_and(|output| output.status.success());
    Ok(runs.then_some(make))
}

fn hold(port: &Path) -> Result<File, Failure> {
    let flags = i32::try_from((OFlags::NOCTTY | OFlags::NONBLOCK).bits())?;
    Ok(File::options().read(true).write(true).custom_flags(flags).open(port)?)
}
