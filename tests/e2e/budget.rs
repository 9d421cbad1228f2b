//! The numbers that SPECIFICATION.md promises and that are exact: asserted.

use std::fs;

use moorline_testbed::failure::Failure;
use moorline_testbed::footprint::Footprint;
use moorline_testbed::measure::{Probe, agent_sizes};
use moorline_testbed::relay::Bytes;

#[test]
fn connects_cost_what_is_promised() -> Result<(), Failure> {
    let mut probe = Probe::new()?;
    let (full, resumed) = (probe.connect()?, probe.connect()?);
    assert!(!full.resumed && resumed.resumed, "{full:?}, then {resumed:?}");
    for (bytes, up, down) in
        [(full.registered, 980, 970), (resumed.handshake, 395, 335), (resumed.registered, 490, 410)]
    {
        assert!(bytes.up <= up && bytes.down <= down, "{bytes:?} is more than {up} and {down}");
    }
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
    let [_, (_, smallest)] = agent_sizes()?;
    let footprint = Footprint::of_an_agent(&smallest)?;
    assert!(footprint.anonymous_kib <= 400, "{footprint:?}");
    Ok(())
}
