//! What a device costs on its SIM: packets on the line, with the headers of IP and TCP, in network namespaces.

use std::time::Duration;

use moorline_agent::budget::RECONNECT;
use moorline_testbed::failure::Failure;
use moorline_testbed::field::{Field, Version, may_have_fields};
use moorline_testbed::left_out::left_out;
use moorline_testbed::measure::Probe;

/// A kernel keeps an acknowledgement back for 200 ms at most.
const QUIET: Duration = Duration::from_millis(400);

/// The interval that a month is reckoned with, and what a month then has.
const INTERVAL: Duration = Duration::from_secs(29 * 60);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// Bytes on the line.
#[derive(Debug)]
struct Costs {
    full: u64,
    resumed: u64,
    heartbeat: u64,
}

impl Costs {
    /// A month of one session that stands: its beginning, its heartbeats, and a time question a day, which takes a few bytes
    /// more than the heartbeat that it stands for.
    fn month(&self) -> u64 {
        const TIME_MORE: u64 = 60;
        self.full + MONTH.as_secs().div_ceil(INTERVAL.as_secs()) * self.heartbeat + 30 * TIME_MORE
    }
}

#[test]
fn ipv4_costs_what_is_promised() -> Result<(), Failure> {
    let Some(costs) = measure(Version::V4)? else { return Ok(()) };
    assert_eq!(costs.heartbeat, 204);
    assert!(costs.full <= 3100, "{costs:?}");
    assert!(costs.resumed <= 1950, "{costs:?}");
    assert!(costs.month() <= 310_000, "{} {costs:?}", costs.month());
    Ok(())
}

#[test]
fn ipv6_costs_what_is_promised() -> Result<(), Failure> {
    let Some(costs) = measure(Version::V6)? else { return Ok(()) };
    assert_eq!(costs.heartbeat, 264);
    assert!(costs.full <= 3500, "{costs:?}");
    assert!(costs.resumed <= 2350, "{costs:?}");
    assert!(costs.month() <= 400_000, "{} {costs:?}", costs.month());
    Ok(())
}

/// What a month is reckoned by: nobody, TCP neither, says anything of its own between two heartbeats. A minute is how often
/// servers and carriers' boxes like to ask.
#[test]
fn session_that_stands_is_silent_between_heartbeats() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let field = Field::new(Version::V4)?;
    // The kernels' search for IPv6 routers is none of the session's.
    for kernel in [&field.device, &field.carrier] {
        kernel.allow("net.ipv6.conf.all.disable_ipv6", "1")?;
    }
    let mut probe = Probe::across(&field)?;
    probe.connect()?;
    let _ = field.line.settled(QUIET);
    assert!(field.line.is_silent_for(Duration::from_secs(75)), "something passed on the line");
    Ok(())
}

/// From SYN to the last acknowledgement of FIN, with the time question that each session begins with.
fn measure(version: Version) -> Result<Option<Costs>, Failure> {
    if !allowed() {
        return Ok(None);
    }
    let field = Field::new(version)?;
    let mut probe = Probe::across(&field)?;
    // A busy machine's kernel sends acknowledgements by themselves that else go with data: the least is the device's own.
    let full = least(|| {
        // Takes the ticket, if there is one.
        probe.race()?;
        connect(&field, &mut probe)
    })?;
    let resumed = least(|| connect(&field, &mut probe))?;
    probe.connect()?;
    let heartbeat = least(|| heartbeat(&field, &mut probe))?;
    let costs = Costs { full: full.passed, resumed: resumed.passed, heartbeat: heartbeat.passed };
    println!("{version:?}: {costs:?}, a month {}", costs.month());
    Ok(Some(costs))
}

fn allowed() -> bool {
    let allowed = may_have_fields();
    if !allowed {
        left_out("fields need root, ip, nft and /dev/net/tun");
    }
    allowed
}

/// What passed on the line, and what the agent counted.
#[derive(Debug)]
struct Measured {
    passed: u64,
    counted: u64,
}

/// The least of a few.
fn least(mut one: impl FnMut() -> Result<Measured, Failure>) -> Result<Measured, Failure> {
    let few = (0..5).map(|_| one()).collect::<Result<Vec<_>, _>>()?;
    let least = few.into_iter().min_by_key(|one| one.passed).ok_or_else(|| Failure::new("none"))?;
    let Measured { passed, counted } = least;
    assert!(counted.abs_diff(passed) <= passed / 10, "the agent's estimate is not honest: {least:?}");
    assert!(passed <= RECONNECT, "more than the budget takes an attempt for: {least:?}");
    Ok(least)
}

fn connect(field: &Field, probe: &mut Probe<'_>) -> Result<Measured, Failure> {
    probe.end();
    let before = field.line.settled(QUIET);
    let welcomed = probe.connect()?.counted.sum().sum();
    probe.end();
    let passed = field.line.settled(QUIET).since(before).bytes();
    Ok(Measured { passed, counted: welcomed + probe.counted().sum().sum() })
}

fn heartbeat(field: &Field, probe: &mut Probe<'_>) -> Result<Measured, Failure> {
    let before = field.line.settled(QUIET);
    let _ = probe.counted();
    probe.heartbeat()?;
    let passed = field.line.settled(QUIET).since(before).bytes();
    Ok(Measured { passed, counted: probe.counted().sum().sum() })
}
