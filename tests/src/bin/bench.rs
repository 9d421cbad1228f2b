//! `cargo run --release -p moorline-testbed --bin moorline-bench`: docs/benchmarks.md, measured on this machine.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use moorline_testbed::bench::{
    Kind, Machine, Report, besiege, come_back, floor, grow, in_turns, soak, start_with_known, storm,
};
use moorline_testbed::failure::Failure;
use moorline_testbed::load::{Hostile, Pool};
use moorline_testbed::rig::Rig;

/// Tries the server beside others with thousands of devices, and writes what it finds.
#[derive(Parser)]
struct Arguments {
    /// Five minutes instead of twenty, and the page under target/bench
    #[arg(long)]
    quick: bool,
    /// This part alone, shown and not written
    #[arg(long)]
    only: Option<Part>,
    /// How long the soak goes on, in seconds
    #[arg(long, default_value_t = 600)]
    soak: u64,
    /// Where the page goes, its pictures beside it
    #[arg(long)]
    page: Option<PathBuf>,
}

/// What is tried.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Memory, handshakes, heartbeats, of all servers
    Growth,
    /// The same, of this one without tickets
    Own,
    /// Heartbeats of this one and of Mosquitto in turns
    Turns,
    /// Sessions that stand while others come
    Storm,
    /// A fleet's return to a server that was killed
    Return,
    /// Honest sessions beside hostile peers
    Siege,
    /// A fleet that comes and goes
    Soak,
    /// Starts with known devices
    Start,
}

/// How much is tried.
struct Size {
    sessions: &'static [usize],
    /// Of the server with a thread for each device.
    threads: &'static [usize],
    beats: Duration,
    /// Sessions of each of two servers at once, and how many turns each has.
    in_turns: (usize, u32),
    standing: usize,
    coming: usize,
    returning: usize,
    honest: usize,
    hostile: Hostile,
    siege: Duration,
    /// Devices and events.
    known: &'static [(u32, u32)],
}

const FULL: Size = Size {
    sessions: &[1_000, 10_000, 19_000],
    threads: &[1_000],
    beats: Duration::from_secs(10),
    in_turns: (9_000, 6),
    standing: 1_000,
    coming: 5_000,
    returning: 10_000,
    honest: 5_000,
    hostile: Hostile { stalled: 400, dribbling: 400, renewing: 200 },
    siege: Duration::from_secs(60),
    known: &[(1_000, 0), (100_000, 0), (100_000, 400_000)],
};

const QUICK: Size = Size {
    sessions: &[500, 2_000],
    threads: &[300],
    beats: Duration::from_secs(3),
    in_turns: (1_000, 2),
    standing: 200,
    coming: 1_000,
    returning: 1_500,
    honest: 500,
    hostile: Hostile { stalled: 50, dribbling: 50, renewing: 20 },
    siege: Duration::from_secs(15),
    known: &[(1_000, 0), (20_000, 40_000)],
};

const TICKETS: Kind = Kind::Moorline { sessions: 20_000 };
const MOSQUITTO: Kind = Kind::Mosquitto { tickets: 1 };

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("moorline-bench: {failure:?}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    // Mosquitto does not do it for itself, and is started with what this process has.
    let _ = moorline_server::listener::raise_descriptor_limit();
    let size = if arguments.quick { &QUICK } else { &FULL };
    let (machine, rig, mut report) = (Machine::here(), Rig::new()?, Report::default());
    let most = size.sessions.iter().max().copied().unwrap_or(0).max(size.standing + size.coming);
    eprintln!("making {most} certificates");
    let pool = Pool::new(rig.pki(), u32::try_from(most)? + 100)?;
    let wanted = |part| arguments.only.is_none_or(|only| only == part);
    if wanted(Part::Growth) || wanted(Part::Own) {
        eprintln!("TLS alone");
        report.floor = Some(floor(rig.pki(), &pool)?);
    }
    for (kind, sizes) in [
        (Kind::Moorline { sessions: 0 }, size.sessions),
        (TICKETS, size.sessions),
        (Kind::Classic, size.threads),
        (MOSQUITTO, size.sessions),
        (Kind::Python, size.threads),
    ] {
        let own = arguments.only == Some(Part::Own) && kind == Kind::Moorline { sessions: 0 };
        if wanted(Part::Growth) || own {
            eprintln!("{}: memory, handshakes, heartbeats", kind.name());
            report.growths.extend(grow(kind, &rig, &pool, sizes, size.beats)?);
        }
    }
    if wanted(Part::Turns) {
        let (sessions, rounds) = size.in_turns;
        eprintln!("heartbeats in turns");
        report.turns = in_turns([TICKETS, MOSQUITTO], &rig, &pool, sessions, rounds, size.beats / 2)?;
    }
    for kind in [TICKETS, MOSQUITTO] {
        if wanted(Part::Storm) {
            eprintln!("{}: a storm", kind.name());
            report.storms.extend(storm(kind, &rig, &pool, size.standing, size.coming)?);
        }
        if wanted(Part::Return) {
            eprintln!("{}: a return after a crash", kind.name());
            report.returns.extend(come_back(kind, &rig, &pool, size.returning)?);
        }
    }
    if wanted(Part::Siege) {
        eprintln!("honest sessions beside hostile peers");
        report.sieges.push(besiege(&rig, &pool, size.honest, size.hostile, size.siege)?);
    }
    if wanted(Part::Soak) {
        let time = if arguments.quick { size.siege } else { Duration::from_secs(arguments.soak) };
        eprintln!("over {} s", time.as_secs());
        report.soaks.push(soak(&rig, &pool, size.standing, size.standing / 2, time)?);
    }
    if wanted(Part::Start) {
        for (known, events) in size.known {
            eprintln!("a start with {known} devices known and {events} events");
            report.starts.push(start_with_known(&rig, *known, *events)?);
        }
    }
    println!("{}", report.page(&machine));
    if arguments.only.is_none() {
        let default = if arguments.quick { "../target/bench/benchmarks.md" } else { "../docs/benchmarks.md" };
        let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join(default);
        let page = arguments.page.clone().unwrap_or_else(default);
        report.write(&page, &machine)?;
        println!("{}", page.display());
    }
    Ok(())
}
