//! `cargo run --release -p moorline-testbed --bin moorline-bench`: docs/benchmarks.md, measured on this machine.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use moorline_testbed::bench::{Kind, Machine, Report, come_back, grow, start_with_known, storm};
use moorline_testbed::failure::Failure;
use moorline_testbed::load::Pool;
use moorline_testbed::rig::Rig;

/// Tries the server beside others with thousands of devices, and writes what it finds.
#[derive(Parser)]
struct Arguments {
    /// Three minutes instead of twenty, and the page under target/bench
    #[arg(long)]
    quick: bool,
    /// Where the page goes, its pictures beside it
    #[arg(long)]
    page: Option<PathBuf>,
}

/// How much is tried.
struct Size {
    sessions: &'static [usize],
    /// Of the server with a thread for each device.
    threads: &'static [usize],
    beats: Duration,
    standing: usize,
    coming: usize,
    known: &'static [u32],
}

const FULL: Size = Size {
    sessions: &[1_000, 10_000, 19_000],
    threads: &[1_000],
    beats: Duration::from_secs(10),
    standing: 1_000,
    coming: 5_000,
    known: &[1_000, 100_000],
};

const QUICK: Size = Size {
    sessions: &[500, 2_000],
    threads: &[300],
    beats: Duration::from_secs(3),
    standing: 200,
    coming: 1_000,
    known: &[1_000, 20_000],
};

const TICKETS: Kind = Kind::Moorline { sessions: 20_000 };
const MOSQUITTO: Kind = Kind::Mosquitto { tickets: 1 };

fn main() -> ExitCode {
    let Arguments { quick, page } = Arguments::parse();
    let default = if quick { "../target/bench/benchmarks.md" } else { "../docs/benchmarks.md" };
    let page = page.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(default));
    match measure(if quick { &QUICK } else { &FULL }, &page) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("moorline-bench: {failure:?}");
            ExitCode::FAILURE
        }
    }
}

fn measure(size: &Size, page: &Path) -> Result<(), Failure> {
    // Mosquitto does not do it for itself, and is started with what this process has.
    let _ = moorline_server::listener::raise_descriptor_limit();
    let (machine, rig, mut report) = (Machine::here(), Rig::new()?, Report::default());
    let most = size.sessions.iter().max().copied().unwrap_or(0).max(size.standing + size.coming);
    eprintln!("making {most} certificates");
    let pool = Pool::new(rig.pki(), u32::try_from(most)? + 100)?;
    for (kind, sizes) in [
        (Kind::Moorline { sessions: 0 }, size.sessions),
        (TICKETS, size.sessions),
        (Kind::Classic, size.threads),
        (MOSQUITTO, size.sessions),
        (Kind::Python, size.threads),
    ] {
        eprintln!("{}: memory, handshakes, heartbeats", kind.name());
        report.growths.extend(grow(kind, &rig, &pool, sizes, size.beats)?);
    }
    for kind in [TICKETS, MOSQUITTO] {
        eprintln!("{}: a storm, and a return after a crash", kind.name());
        report.storms.extend(storm(kind, &rig, &pool, size.standing, size.coming)?);
        report.returns.extend(come_back(kind, &rig, &pool, size.standing + size.coming)?);
    }
    for known in size.known {
        eprintln!("a start with {known} devices known");
        report.starts.push(start_with_known(&rig, *known)?);
    }
    report.write(page, &machine)?;
    println!("{}\n{}", report.page(&machine), page.display());
    Ok(())
}
