//! `cargo demo`: a modem, a device and its server on this machine, told in plain words.
//!
//! Every line that it tells was seen: in what the programs say, in what the service manager hears of the agent, or in
//! what the server shows its operators. What does not happen ends it with exit code 1.

#![forbid(unsafe_code)]

use std::fmt;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use clap::Parser;
use jiff::SignedDuration;
use moorline_testbed::failure::Failure;
use moorline_testbed::modem::{Modem, Script};
use moorline_testbed::process::PATIENCE;
use moorline_testbed::programs::program;
use moorline_testbed::rig::{Agent, IMEI, Rig, Server};
use moorline_testbed::service_manager::ServiceManager;
use moorline_testbed::stage::{Stage, Who};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// Shows a device and its server, end to end, on this machine.
#[derive(Parser)]
#[command(name = "cargo demo --")]
struct Arguments {
    /// Ends after this long, such as 20s, but not before everything was shown; without it, Ctrl-C ends it.
    #[arg(long = "for", value_name = "DURATION")]
    limit: Option<SignedDuration>,
}

/// What shells make of a program that SIGINT ended.
const INTERRUPTED: u8 = 130;
/// How often the server hears of the device.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How many heartbeats are told before the server is killed, and how many after it is back.
const HEARTBEATS_TOLD: u64 = 2;

fn main() -> ExitCode {
    let limit = Arguments::parse().limit.map(SignedDuration::unsigned_abs);
    let stage = Stage::begin();
    let (ear, heard) = mpsc::channel();
    let interrupted = Arc::new(AtomicBool::new(false));
    let listening = interrupts(ear.clone(), &interrupted);
    match listening.and_then(|()| Demo::play(&stage, &ear, heard, limit)) {
        Ok(tally) => {
            println!("\n{tally}");
            ExitCode::SUCCESS
        }
        // The terminal tells the programs too, and they end in the middle of the tale.
        Err(_) if interrupted.load(Ordering::Relaxed) => {
            println!("\nInterrupted before everything was shown.");
            ExitCode::from(INTERRUPTED)
        }
        Err(failure) => {
            eprintln!("\nNot everything happened: {failure:?}");
            ExitCode::FAILURE
        }
    }
}

/// What the teller hears from elsewhere than the programs' own lines.
enum Heard {
    /// The agent told the service manager how it is.
    Status(String),
    /// Ctrl-C, or a polite kill.
    Interrupt,
}

/// Takes Ctrl-C over from its default, so that the programs are ended in order.
fn interrupts(ear: Sender<Heard>, interrupted: &Arc<AtomicBool>) -> Result<(), Failure> {
    let (mut signals, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, Arc::clone(interrupted))?;
        pipe::register(signal, write.try_clone()?)?;
    }
    thread::spawn(
        move || {
            while signals.read_exact(&mut [0]).is_ok() && ear.send(Heard::Interrupt).is_ok() {}
        },
    );
    Ok(())
}

/// What was shown, for the last words.
#[derive(Default)]
struct Tally {
    /// Of the servers that are gone.
    heartbeats_before: u64,
    heartbeats: u64,
    round_trip: String,
    time: String,
    away: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heartbeats = self.heartbeats_before + self.heartbeats;
        writeln!(f, "All of it happened:")?;
        writeln!(f, "  the IMEI {IMEI} was read from the modem")?;
        writeln!(f, "  TLS 1.3 was up, each side having checked the other's certificate")?;
        writeln!(f, "  the device registered, and learned the time: {}", self.time)?;
        writeln!(f, "  {heartbeats} heartbeats were answered, round trip {}", self.round_trip)?;
        writeln!(f, "  the server was lost and regained after {:.1} s", self.away.as_secs_f64())?;
        write!(f, "  both programs stopped in order, with exit code 0")
    }
}

/// The programs at work.
struct Demo<'s> {
    stage: &'s Stage,
    heard: Receiver<Heard>,
    server: Server,
    agent: Agent,
    tally: Tally,
}

impl<'s> Demo<'s> {
    /// The whole tale.
    fn play(
        stage: &'s Stage,
        ear: &Sender<Heard>,
        heard: Receiver<Heard>,
        limit: Option<Duration>,
    ) -> Result<Tally, Failure> {
        stage.tell(
            Who::Demo,
            "builds moorline-agent and moorline-server; the first time takes a minute or two",
        );
        for name in ["moorline-agent", "moorline-server"] {
            program(name)?;
        }
        let rig = Rig::new()?;
        stage.tell(
            Who::Demo,
            format_args!("makes a CA and certificates for the server and for device {IMEI}"),
        );
        let server = rig.server()?.set("listen.operators", "127.0.0.1:0").start()?;
        stage.tell(Who::Server, format_args!("listens for devices on {}", server.devices()));
        stage.tell(Who::Server, format_args!("shows operators {}", server.operators().url("/api/devices")));
        let modem = Modem::start(ec25())?;
        stage.tell(Who::Modem, format_args!("a Quectel EC25, simulated, on {}", modem.path().display()));

        let ear = ear.clone();
        let manager = ServiceManager::listen(&rig.folder().join("notify"), HEARTBEAT, move |assignment| {
            if let Some(status) = assignment.strip_prefix("STATUS=") {
                // The teller may have gone.
                let _ = ear.send(Heard::Status(status.to_owned()));
            }
        })?;
        let agent = rig
            .agent(server.devices(), IMEI)?
            .modem(modem.path())
            .set("heartbeat.interval", format_args!("{}s", HEARTBEAT.as_secs()))
            .set("reconnect.first", "1s")
            .set("reconnect.max", "2s")
            .under(&manager)
            .start()?;
        let mut demo = Self { stage, heard, server, agent, tally: Tally::default() };
        demo.arrive()?;
        demo.beat(HEARTBEATS_TOLD)?;
        demo.lose_and_regain()?;
        demo.beat(HEARTBEATS_TOLD)?;
        let interrupted = demo.stand(limit)?;
        demo.leave(interrupted)?;
        Ok(demo.tally)
    }

    /// From the modem to a registered device.
    fn arrive(&mut self) -> Result<(), Failure> {
        let source = self.agent.find("its IMEI", PATIENCE, |line| {
            line.split_once(&format!("IMEI {IMEI} from ")).map(|(_, source)| source.to_owned())
        })?;
        self.stage.tell(Who::Device, format_args!("reads its IMEI {IMEI} from {source}"));
        self.connect()?;
        let line = self.agent.wait_for("the server's time is ")?;
        words(&line).clone_into(&mut self.tally.time);
        self.stage.tell(Who::Device, format_args!("asked for the time: {}", self.tally.time));
        Ok(())
    }

    /// TLS, the registration, and the operators' view of it.
    fn connect(&mut self) -> Result<(), Failure> {
        let terms = self.agent.find("registering over TLS 1.3", PATIENCE, |line| {
            line.split_once("-> registering: ").map(|(_, terms)| terms.to_owned())
        })?;
        if !terms.contains("TLS 1.3") {
            return Err(self.agent.failure(&format!("speaks {terms} and not TLS 1.3")));
        }
        self.stage
            .tell(Who::Device, format_args!("both certificates are good, the line is secured: {terms}"));
        let session = self.agent.find("online", PATIENCE, |line| {
            line.split_once("-> online: ").map(|(_, session)| session.to_owned())
        })?;
        self.stage.tell(Who::Device, session);
        let shown = self.server.operators().wait_online(IMEI, true)?;
        let protocol = shown["protocol"].as_str().unwrap_or("nothing");
        self.stage.tell(Who::Server, format_args!("shows {IMEI} online, speaking {protocol}"));
        Ok(())
    }

    /// Tells `count` heartbeats.
    fn beat(&mut self, count: u64) -> Result<(), Failure> {
        let wanted = self.tally.heartbeats + count;
        while self.tally.heartbeats < wanted {
            match self.heard.recv_timeout(PATIENCE) {
                Ok(Heard::Status(status)) => self.notice(&status, true)?,
                Ok(Heard::Interrupt) => return Err(Failure::new("interrupted")),
                Err(_) => return Err(self.agent.failure("sends no heartbeats")),
            }
        }
        Ok(())
    }

    /// Looks whether the server has answered more heartbeats, and tells of them.
    fn notice(&mut self, status: &str, tell: bool) -> Result<(), Failure> {
        let Some(round_trip) = round_trip(status) else { return Ok(()) };
        let answered = heartbeats(&self.server)?;
        if answered > self.tally.heartbeats {
            self.tally.heartbeats = answered;
            round_trip.clone_into(&mut self.tally.round_trip);
            if tell {
                self.stage.tell(
                    Who::Device,
                    format_args!("heartbeat {answered} was answered, round trip {round_trip}"),
                );
            }
        }
        Ok(())
    }

    fn lose_and_regain(&mut self) -> Result<(), Failure> {
        self.stage.tell(Who::Demo, "kills the server, as a power cut does");
        let lost_at = self.stage.elapsed();
        self.server.kill()?;
        self.tally.heartbeats_before += self.tally.heartbeats;
        self.tally.heartbeats = 0;
        let mut reason = String::new();
        let next = self.agent.find("the loss", PATIENCE, |line| match line.split_once("-> offline: ") {
            Some((_, next)) => Some(next.to_owned()),
            None => {
                words(line).clone_into(&mut reason);
                None
            }
        })?;
        self.stage.tell(Who::Device, format_args!("has lost the server: {reason}; {next}"));
        let line = self.agent.wait_for("no connection: ")?;
        self.stage.tell(Who::Device, words(&line));
        self.stage.tell(Who::Demo, "starts the server again");
        self.server.start_again()?;
        self.connect()?;
        self.tally.away = self.stage.elapsed() - lost_at;
        Ok(())
    }

    /// Until the limit, or until Ctrl-C, which it returns.
    fn stand(&mut self, limit: Option<Duration>) -> Result<bool, Failure> {
        let until = if limit.is_some() { "for the rest of its time" } else { "until Ctrl-C" };
        let operators = self.server.operators();
        self.stage.tell(Who::Demo, format_args!("lets them go on {until}; meanwhile, look at"));
        for page in ["/api/devices", "/api/events", "/metrics"] {
            self.stage.tell(Who::Demo, format_args!("    {}", operators.url(page)));
        }
        loop {
            let left = limit.map_or(PATIENCE, |limit| limit.saturating_sub(self.stage.elapsed()));
            match self.heard.recv_timeout(left) {
                Ok(Heard::Status(status)) => self.notice(&status, false)?,
                Ok(Heard::Interrupt) => return Ok(true),
                Err(RecvTimeoutError::Timeout) if limit.is_some() => return Ok(false),
                Err(_) => return Err(self.agent.failure("gives no sign of life")),
            }
        }
    }

    /// Everybody goes in order. After Ctrl-C the server is going already, and cannot be asked what it saw of it.
    fn leave(&mut self, interrupted: bool) -> Result<(), Failure> {
        self.agent.stop()?;
        self.stage.tell(Who::Device, "was asked to stop and ended with exit code 0");
        if !interrupted {
            self.server.operators().wait_online(IMEI, false)?;
            self.stage.tell(Who::Server, format_args!("shows {IMEI} offline"));
        }
        self.server.stop()?;
        self.stage.tell(Who::Server, "was asked to stop and ended with exit code 0");
        Ok(())
    }
}

/// What a Quectel EC25 answers, echo on as it leaves the factory.
fn ec25() -> Script {
    Script::ordinary(IMEI)
        .answer("ATI", "\r\nQuectel\r\nEC25\r\nRevision: EC25EFAR06A03M4G\r\n\r\nOK\r\n")
        .echoing()
}

/// A log line without its time.
fn words(line: &str) -> &str {
    line.split_once("Z ").map_or(line, |(_, words)| words.trim_start_matches("warning: "))
}

/// The round trip in the agent's own words, while it is online.
fn round_trip(status: &str) -> Option<&str> {
    let (_, rest) = status.strip_prefix("online ")?.split_once(", round trip ")?;
    rest.split([',', ';']).next()
}

/// How many heartbeats the server has answered since it started.
fn heartbeats(server: &Server) -> Result<u64, Failure> {
    let metrics = server.operators().text("/metrics")?;
    let count = metrics.lines().find_map(|line| line.strip_prefix("moorline_heartbeats_total "));
    Ok(count.ok_or_else(|| server.failure("does not count heartbeats"))?.parse()?)
}
