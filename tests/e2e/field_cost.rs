//! What a device costs on its SIM: packets on the line, with the headers of IP and TCP, in network namespaces.

use std::time::Duration;

use moorline_agent::budget::RECONNECT;
use moorline_agent::keepalive::{Interval, Learned, Settings};
use moorline_testbed::failure::Failure;
use moorline_testbed::field::{Field, Version, may_have_fields};
use moorline_testbed::left_out::left_out;
use moorline_testbed::life::Life;
use moorline_testbed::measure::Probe;
use moorline_testbed::network::{Nat, NatKind, Network};

/// A kernel keeps an acknowledgement back for 200 ms at most.
const QUIET: Duration = Duration::from_millis(400);

/// The longest silence that is learned, and what a month is.
const LONGEST: Duration = Duration::from_secs(29 * 60);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// Bytes on the line.
#[derive(Debug)]
struct Costs {
    full: u64,
    resumed: u64,
    heartbeat: u64,
    /// The device tells its longest silence.
    told: u64,
    /// The server's question at its end, left to TCP to acknowledge.
    echo: u64,
    /// The same with the device's answer.
    echo_answered: u64,
    time: u64,
    /// What is used of the budget, beside a heartbeat that it goes along with.
    usage: u64,
}

impl Costs {
    /// A month of one session that stands: what both programs' sessions say in it, in virtual time, each at its price.
    fn month(&self, interval: Interval) -> u64 {
        let settings = Settings {
            interval,
            min: Duration::from_secs(5 * 60),
            max: LONGEST,
            timeout: Duration::from_secs(10),
        };
        let network = Network::new(Nat { kind: NatKind::Healing, timeout: None }, 1);
        let mut life = Life::new(network, settings, 1);
        life.keepalive.move_to(Learned { good: 29 * 60, dead: 0 });
        life.run_for(MONTH);
        let tally = &life.tally;
        assert_eq!(tally.sessions, 1, "{tally:?}");
        let answered = tally.echoes_answered as u64;
        self.full
            + self.told
            + answered * self.echo_answered
            + (tally.echoes as u64 - answered) * self.echo
            + tally.heartbeats as u64 * self.heartbeat
            // The first is in what a reconnect costs.
            + (tally.times as u64 - 1) * self.time
            + tally.usages.len() as u64 * self.usage
    }

    fn learned(&self) -> u64 {
        self.month(Interval::Adaptive)
    }

    fn fixed(&self) -> u64 {
        self.month(Interval::Fixed(LONGEST))
    }
}

#[test]
fn ipv4_costs_what_is_promised() -> Result<(), Failure> {
    let Some(costs) = measure(Version::V4)? else { return Ok(()) };
    assert_eq!((costs.heartbeat, costs.echo, costs.echo_answered), (204, 129, 206));
    assert!(costs.usage <= 90, "{costs:?}");
    assert!(costs.full <= 3100, "{costs:?}");
    assert!(costs.resumed <= 1950, "{costs:?}");
    assert!(costs.learned() <= 260_000, "{} {costs:?}", costs.learned());
    assert!(costs.fixed() <= 310_000, "{} {costs:?}", costs.fixed());
    Ok(())
}

#[test]
fn ipv6_costs_what_is_promised() -> Result<(), Failure> {
    let Some(costs) = measure(Version::V6)? else { return Ok(()) };
    assert_eq!((costs.heartbeat, costs.echo, costs.echo_answered), (264, 169, 266));
    assert!(costs.usage <= 90, "{costs:?}");
    assert!(costs.full <= 3500, "{costs:?}");
    assert!(costs.resumed <= 2350, "{costs:?}");
    assert!(costs.learned() <= 336_000, "{} {costs:?}", costs.learned());
    assert!(costs.fixed() <= 402_000, "{} {costs:?}", costs.fixed());
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
    let mut probe = Probe::across_hastily(&field)?;
    let full = few(|| {
        // Takes the ticket, if there is one.
        probe.race()?;
        connect(&field, &mut probe)
    })?;
    let resumed = few(|| connect(&field, &mut probe))?;
    probe.connect()?;
    let heartbeat = few(|| passing(&field, &mut probe, |probe| probe.heartbeat().map(drop)))?;
    let time = few(|| passing(&field, &mut probe, Probe::ask_time))?;
    let with_usage = few(|| passing(&field, &mut probe, |probe| probe.heartbeat_with_usage().map(drop)))?;
    let told = passing(&field, &mut probe, |probe| probe.tell(LONGEST))?.passed;
    let (mut echo, mut echo_answered) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        // Of two questions the device answers the second.
        echo.push(passing(&field, &mut probe, |probe| probe.be_silent(LONGEST))?);
        echo_answered.push(passing(&field, &mut probe, |probe| probe.be_silent(LONGEST))?);
    }
    let heartbeat = least(heartbeat)?;
    let costs = Costs {
        full: least(full)?,
        resumed: least(resumed)?,
        heartbeat,
        told,
        echo: least(echo)?,
        echo_answered: least(echo_answered)?,
        time: least(time)?,
        usage: least(with_usage)? - heartbeat,
    };
    println!("{version:?}: {costs:?}, a month learned {}, fixed {}", costs.learned(), costs.fixed());
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

fn few(mut one: impl FnMut() -> Result<Measured, Failure>) -> Result<Vec<Measured>, Failure> {
    (0..5).map(|_| one()).collect()
}

/// The least of a few: a busy machine's kernel sends acknowledgements by themselves that else go with data, and the least is
/// the device's own.
fn least(few: Vec<Measured>) -> Result<u64, Failure> {
    let least = few.into_iter().min_by_key(|one| one.passed).ok_or_else(|| Failure::new("none"))?;
    let Measured { passed, counted } = least;
    assert!(counted.abs_diff(passed) <= passed / 10, "the agent's estimate is not honest: {least:?}");
    assert!(passed <= RECONNECT, "more than the budget takes an attempt for: {least:?}");
    Ok(passed)
}

fn connect(field: &Field, probe: &mut Probe<'_>) -> Result<Measured, Failure> {
    probe.end();
    let before = field.line.settled(QUIET);
    let welcomed = probe.connect()?.counted.sum().sum();
    probe.end();
    let passed = field.line.settled(QUIET).since(before).bytes();
    Ok(Measured { passed, counted: welcomed + probe.counted().sum().sum() })
}

/// What passes while a session that stands does something.
fn passing<'f>(
    field: &Field,
    probe: &mut Probe<'f>,
    what: impl FnOnce(&mut Probe<'f>) -> Result<(), Failure>,
) -> Result<Measured, Failure> {
    let before = field.line.settled(QUIET);
    let _ = probe.counted();
    what(probe)?;
    let passed = field.line.settled(QUIET).since(before).bytes();
    Ok(Measured { passed, counted: probe.counted().sum().sum() })
}
