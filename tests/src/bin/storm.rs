//! `moorline-storm`: how a fleet comes back when its server was away, as a table and as a picture.

#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use moorline_testbed::fleet::Outage;

/// Plays a fleet that loses its server at once, in virtual time: the devices wait as the agent does.
#[derive(Parser)]
struct Arguments {
    /// Devices online when the server dies
    #[arg(long, default_value_t = 100_000)]
    devices: u32,
    /// Handshakes that the server does in a second
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// For how many seconds it is dead; several are played one after another
    #[arg(long, default_values_t = [2, 60, 600, 3600])]
    dead: Vec<u64>,
    /// What chance begins with
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the last return as a picture (SVG)
    #[arg(long)]
    picture: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Arguments { devices, rate, dead, seed, picture } = Arguments::parse();
    println!("{devices} devices, {rate} handshakes a second, seed {seed}\n");
    println!("  dead for   busiest second   all back after   tries in vain");
    let mut last = None;
    for seconds in dead {
        let outage = Outage::new(devices, rate, Duration::from_secs(seconds), seed);
        let back = outage.play();
        let (busiest, all_back) = (back.busiest(), back.all_back().as_secs());
        println!("{seconds:>8} s {busiest:>16} {all_back:>14} s {:>15}", back.refused + back.abandoned);
        last = Some((seconds, back));
    }
    let Some((file, (seconds, back))) = picture.zip(last) else { return ExitCode::SUCCESS };
    let title = format!("{devices} devices after a server was dead for {seconds} s");
    if let Err(error) = fs::write(&file, back.picture(&title, rate)) {
        eprintln!("{}: cannot be written: {error}", file.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
