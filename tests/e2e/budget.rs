//! The numbers that SPECIFICATION.md promises and that are exact: asserted.

use std::fs;

use moorline_testbed::failure::Failure;
use moorline_testbed::measure::{Footprint, Probe, agent_sizes};
use moorline_testbed::relay::Bytes;

/// An ECDSA signature takes 70 to 72 bytes as DER, and each side's certificate and handshake holds one.
const SIGNATURES_VARY: u64 = 8;

#[test]
fn connects_cost_what_is_promised() -> Result<(), Failure> {
    let mut probe = Probe::new()?;
    let full = probe.connect()?.registered;
    let resumed = probe.connect()?.registered;
    assert!(full.sum() <= 1950 + SIGNATURES_VARY, "{full:?}");
    assert!(resumed.sum() <= 900, "{resumed:?}");
    Ok(())
}

#[test]
fn heartbeat_costs_two_records_and_two_allocations() -> Result<(), Failure> {
    let mut probe = Probe::new()?;
    probe.connect()?;
    // The first one may grow a buffer that the others find grown.
    probe.heartbeat()?;
    for _ in 0..20 {
        let beat = probe.heartbeat()?;
        assert_eq!(beat.bytes, Bytes { up: 24, down: 24 });
        assert!(beat.allocations <= 2, "{beat:?}");
    }
    Ok(())
}

#[test]
fn agent_is_small() -> Result<(), Failure> {
    let [(_, release), (_, smallest)] = agent_sizes()?;
    let (release, smallest) = (fs::metadata(release)?.len(), fs::metadata(smallest)?.len());
    assert!(release <= 2_400_000, "{release}");
    assert!(smallest <= 1_600_000, "{smallest}");
    Ok(())
}

#[test]
fn agent_needs_little_memory() -> Result<(), Failure> {
    let footprint = Footprint::of_an_agent()?;
    assert!(footprint.anonymous_kib <= 400, "{footprint:?}");
    Ok(())
}
