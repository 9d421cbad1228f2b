//! `cargo run --release -p moorline-testbed --bin moorline-agent-bench`: docs/benchmarks-agent.md, measured on this machine.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use moorline_testbed::agent_bench::{Kind, lacking, measure, watch_all, write};
use moorline_testbed::bench::{self, Machine, Subject};
use moorline_testbed::failure::Failure;
use moorline_testbed::programs::{distribution, program_with_in};
use moorline_testbed::rig::Rig;

/// Tries the agent beside mosquitto_sub, stunnel and a plain Python program, and writes what it finds.
#[derive(Parser)]
struct Arguments {
    /// Wake-ups of half a minute instead of two, and the page under target/bench
    #[arg(long)]
    quick: bool,
    /// Where the page goes, its picture beside it
    #[arg(long)]
    page: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Arguments { quick, page } = Arguments::parse();
    let default = if quick { "../target/bench/benchmarks-agent.md" } else { "../docs/benchmarks-agent.md" };
    let page = page.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(default));
    // mosquitto_sub takes no less than five seconds. The agent keeps its counters on disk when it is one minute old, two, four and eight:
    // between two of these there is nothing but heartbeats.
    let (every, before, beats) =
        if quick { (Duration::from_secs(10), 7, 3) } else { (Duration::from_secs(30), 9, 4) };
    match run(every, before, beats, &page) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("moorline-agent-bench: {failure:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(every: Duration, before: u64, beats: u64, page: &Path) -> Result<(), Failure> {
    let lacking = lacking();
    if !lacking.is_empty() {
        return Err(Failure::new(format!("missing: apt install {}", lacking.join(" "))));
    }
    let (machine, rig) = (Machine::here(), Rig::new()?);
    let moorline = rig.server()?.start()?;
    let Some(mosquitto) = Subject::start(bench::Kind::Mosquitto { tickets: 1 }, &rig)? else {
        return Err(Failure::new("missing: apt install mosquitto, or a package source that has it"));
    };
    let clients: Vec<_> = [
        Kind::Agent { name: "agent, smallest", program: smallest()? },
        Kind::Agent { name: "agent, standard", program: standard()? },
        Kind::MosquittoSub,
        Kind::Stunnel,
        Kind::Python,
    ]
    .into_iter()
    .map(|kind| {
        let server = if kind == Kind::MosquittoSub { mosquitto.address() } else { moorline.devices() };
        (kind, server)
    })
    .collect();
    let mut figures = Vec::new();
    for (kind, server) in &clients {
        eprintln!("{}: memory, system calls, allocations", kind.name());
        figures.push(measure(kind, &rig, *server)?);
    }
    eprintln!("all of them: wake-ups, {} s", every.as_secs() * (before + beats));
    let upkeeps = watch_all(&clients, &rig, every, before, beats)?;
    println!("{}\n{}", write(page, &machine, &figures, &upkeeps, every)?, page.display());
    Ok(())
}

/// As `packaging/build` ships it: a static file.
fn smallest() -> Result<PathBuf, Failure> {
    let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let built = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/build"))
        .args(["--flavour", "smallest", &triple])
        .status()?;
    if !built.success() {
        return Err(Failure::new(format!("packaging/build --flavour smallest {triple}: {built}")));
    }
    Ok(distribution().join(triple).join("smallest/moorline-agent"))
}

/// What the Debian package holds, as `packaging/build` makes it for the machine that it runs on.
fn standard() -> Result<PathBuf, Failure> {
    program_with_in("moorline-agent", &["tls12", "webpki-roots"], "smallest")
}
