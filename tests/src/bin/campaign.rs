//! `moorline-campaign`: faults upon three servers that share a fleet, and what devices and operators see of them.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use moorline_config::parse_duration;
use moorline_testbed::campaign::{Campaign, HEAD, costs, plan, row};
use moorline_testbed::failure::Failure;
use moorline_testbed::load::now;

/// Kills, halts and cuts off three servers and their NATS under load, and holds what the devices saw against what every server says.
#[derive(Parser)]
struct Arguments {
    /// Which faults come, and when; the same seed repeats them
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// No fault begins after this
    #[arg(long = "for", default_value = "10m", value_parser = parse_duration)]
    lasts: Duration,
    /// How many devices
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(30..))]
    devices: u32,
    /// How many NATS servers: 1 or 3
    #[arg(long, default_value_t = 3, value_parser = one_or_three)]
    nats: usize,
    /// Only the rounds in whose name this is, as in "NATS leader"
    #[arg(long)]
    only: Option<String>,
    /// No faults: what a session and an event cost with one, two and three servers, and without NATS
    #[arg(long)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(exit) => exit,
        Err(failure) => {
            eprintln!("moorline-campaign: {failure:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { seed, lasts, devices, nats, only, bench } = arguments;
    let only = only.unwrap_or_default();
    // Thousands of devices in one process, and as many sessions in each server.
    let _ = moorline_server::listener::raise_descriptor_limit();
    if bench {
        println!("{}", costs(devices)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("seed {seed}, {devices} devices, {nats} NATS\n\n{HEAD}");
    let began = now();
    let rounds = plan(seed, nats).filter(|round| round.to_string().contains(&only));
    let rounds = rounds.take_while(|_| now() - began < lasts);
    let outcomes = Campaign { seed, devices, nats }.run(rounds, |outcome| println!("{}", row(outcome)))?;
    let wrong: usize = outcomes.iter().map(|outcome| outcome.wrong.len()).sum();
    if wrong > 0 {
        println!("\nseed {seed}: {wrong} things are wrong, see above");
        return Ok(ExitCode::FAILURE);
    }
    println!("\nnothing is wrong after {} faults", outcomes.len() - 1);
    Ok(ExitCode::SUCCESS)
}

fn one_or_three(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("one or three".to_owned()),
    }
}
