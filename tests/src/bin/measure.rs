//! `cargo run -p moorline-testbed --bin moorline-measure`: the figures of SPECIFICATION.md, measured on this machine.

#![forbid(unsafe_code)]

use std::fs;
use std::process::ExitCode;

use moorline_testbed::failure::Failure;
use moorline_testbed::footprint::Footprint;
use moorline_testbed::measure::{Probe, agent_sizes};

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("moorline-measure: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), Failure> {
    let mut probe = Probe::new()?;
    println!("Bytes of TCP payload              up   down    sum");
    let full = probe.connect()?;
    let resumed = probe.connect()?;
    for (what, bytes) in [
        ("full handshake, with its ticket", full.handshake),
        ("full, up to Welcome", full.registered),
        ("resumed handshake, with its ticket", resumed.handshake),
        ("resumed, up to Welcome", resumed.registered),
    ] {
        println!("{what:<34} {:>4} {:>6} {:>6}", bytes.up, bytes.down, bytes.sum());
    }
    let beats = (0..10).map(|_| probe.heartbeat()).collect::<Result<Vec<_>, _>>()?;
    if let Some(beat) = beats.last() {
        println!(
            "{:<34} {:>4} {:>6} {:>6}",
            "heartbeat and answer",
            beat.bytes.up,
            beat.bytes.down,
            beat.bytes.sum()
        );
        println!("\nHeap allocations per heartbeat: {}", beat.allocations);
    }
    println!("\nThe agent's program, bytes");
    let sizes = agent_sizes()?;
    for (flavour, path) in &sizes {
        println!("{flavour:<34} {:>9}", fs::metadata(path)?.len());
    }
    let [_, (_, smallest)] = sizes;
    let footprint = Footprint::of_an_agent(&smallest)?;
    println!("\nThe agent's memory, registered and after three heartbeats, KiB");
    println!(
        "{:<34} {:>9}\n{:<34} {:>9}",
        "Pss", footprint.pss_kib, "of it private and written", footprint.anonymous_kib
    );
    Ok(())
}
