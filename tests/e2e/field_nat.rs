//! The learned silence on the real programs behind the three kinds of carriers' NATs, in network namespaces. Each NAT is
//! proven first by a plain TCP pair.
//!
//! The shortest silence that can be learned is 20 s, so that a tale takes four minutes, nearly all of it waiting: the three
//! of them are told at the same time.
//!
//! | silence | what comes of it |
//! | ---: | --- |
//! | 20 s | the server asks: it can be learned from |
//! | 27 s, the longest allowed | coverage is lost meanwhile, which proves nothing |
//! | 27 s, twice | the mapping is gone both times: too long |
//! | 20 s, 23 s | good; the next step is known to be too long |

use std::fs;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use moorline_testbed::failure::Failure;
use moorline_testbed::field::{Field, Forgetting, Nat, Pair, Quality, may_have_fields};
use moorline_testbed::left_out::left_out;
use moorline_testbed::process::Program;
use moorline_testbed::rig::{AGENT_STOP, AgentSetup, IMEI, Rig, SERVER_NAME, Server};
use moorline_testbed::service_manager::ServiceManager;

/// What the NATs bear.
const BEARS: Duration = Duration::from_secs(26);

/// The longest silence allowed, and what is held in the end: under what the NAT bears, and at least four fifths of it.
const LONGEST: Duration = Duration::from_secs(27);
const HELD: Duration = Duration::from_secs(23);

/// How long the agent waits for a question that is due.
const GRACE: Duration = Duration::from_secs(10);

/// A silence, its question that does not come, two answers that do not come either, and a try that times out.
const LONG: Duration = Duration::from_secs(120);

#[test]
fn silence_is_learned_behind_every_kind_of_nat() {
    if !may_have_fields() {
        return left_out("fields need root, ip, nft and /dev/net/tun");
    }
    thread::scope(|scope| {
        let kinds = [Forgetting::Silent, Forgetting::Remapping, Forgetting::Healing];
        let tales = kinds.map(|kind| (kind, scope.spawn(move || learn(kind))));
        // Each to its end, whatever becomes of another.
        let ends = tales.map(|(kind, tale)| (kind, tale.join().unwrap_or_else(|panic| resume_unwind(panic))));
        let failures: Vec<_> = ends.into_iter().filter(|(_, end)| end.is_err()).collect();
        assert!(failures.is_empty(), "{failures:#?}");
    });
}

fn learn(forgetting: Forgetting) -> Result<(), Failure> {
    let nat = Nat { forgetting, after: BEARS };
    let field = Field::behind(nat)?;
    field.server.within(|| {
        let rig = Rig::new()?;
        let at = SocketAddr::new(field.server_address(), 0);
        let server = rig.server()?.set("listen.devices", at).set("session.spread", "1h");
        let mut server = server.start()?;
        let mut systemd = ServiceManager::listen(&rig.folder().join("notify"), LONG, |_| ())?;
        let setup = rig.agent(server.devices(), IMEI)?.under(&systemd);
        let setup = setup.set("heartbeat.interval", "adaptive").set("heartbeat.min", "20s");
        let state = rig.folder().join("state");
        fs::create_dir(&state)?;
        let setup = setup.set("heartbeat.max", "27s").set("state.dir", state.display());
        let proof = Pair::over(&field)?;
        let mut agent = start(&field, &setup)?;
        agent.wait_for("registered")?;
        // While the agent is busy with the first 20 s.
        proof.prove(nat)?;

        systemd.wait_for_within("silent for up to 27 s, learning", LONG)?;
        field.line.set(Quality::DARK);
        agent.wait_for_within("no answer for", LONG)?;
        agent.wait_for_within("no connection", LONG)?;
        field.line.set(Quality::CABLE);
        agent.wait_for_within("registered", LONG)?;

        let back = now();
        systemd.wait_for_within("silent for up to 20 s, learning", 2 * LONG)?;
        let took = now() - back;
        assert!(took > 2 * (LONGEST + GRACE) - GRACE / 2, "{forgetting:?}: one was enough: {took:?}");
        systemd.wait_for_within("silent for up to 23 s, learned", LONG)?;
        agent.wait_for("the line may be silent for 23 s")?;
        assert!(HELD < BEARS && HELD * 5 >= BEARS * 4);
        assert_eq!(
            silences(&systemd.heard()),
            [
                "20 s, to see whether the server asks",
                "27 s, learning",
                "20 s, learning",
                "23 s, learning",
                "23 s, learned"
            ],
            "{forgetting:?}"
        );
        sessions_are_resumed_at_once(&server, &agent, forgetting)?;
        is_known_after_a_restart(&field, &setup, &state.join("keepalive"), &mut agent)?;
        server_that_dies_is_another_matter(&mut server, &mut agent)
    })
}

fn start(field: &Field, setup: &AgentSetup) -> Result<Program, Failure> {
    Program::start(&mut field.device.command(&setup.command()?))
}

/// The silences that were in force, one after the other.
fn silences(told: &[String]) -> Vec<String> {
    let told = told.iter().filter_map(|line| line.split_once("silent for up to "));
    let mut silences: Vec<_> =
        told.map(|(_, rest)| rest.split(", ").take(2).collect::<Vec<_>>().join(", ")).collect();
    silences.dedup();
    silences
}

/// Coverage took one session, and each of the two dead silences another, where the device's own packet does not heal the
/// flow. None of that is taken for a lost server, which would have the device wait for up to an hour.
fn sessions_are_resumed_at_once(
    server: &Server,
    agent: &Program,
    forgetting: Forgetting,
) -> Result<(), Failure> {
    let resumed = if forgetting == Forgetting::Healing { 1 } else { 3 };
    let metrics = server.operators().text("/metrics")?;
    for (kind, count) in [("full", 1), ("resumed", resumed)] {
        let line =
            format!("moorline_handshakes_total{{result=\"ok\",reason=\"none\",kind=\"{kind}\"}} {count}\n");
        assert!(metrics.contains(&line), "{forgetting:?}: no {line} in\n{metrics}");
    }
    let is_reset = |line: &&String| line.contains("the connection broke: Connection reset");
    let resets = agent.lines().iter().filter(is_reset).filter(|line| !line.contains("diagnosis: ")).count();
    assert_eq!(resets, if forgetting == Forgetting::Remapping { 2 } else { 0 }, "{:#?}", agent.lines());
    for line in agent.lines().iter().filter(|line| line.contains("next try in")) {
        assert!(is_at_once(line), "{line}");
    }
    Ok(())
}

fn is_known_after_a_restart(
    field: &Field,
    setup: &AgentSetup,
    kept: &Path,
    agent: &mut Program,
) -> Result<(), Failure> {
    let expected = format!("moorline keepalive 1\n- {SERVER_NAME} 23 27\nend\n");
    assert_eq!(fs::read_to_string(kept)?, expected);
    agent.stop(AGENT_STOP)?;
    *agent = start(field, setup)?;
    agent.wait_for("the line may be silent for 23 s")?;
    assert_eq!(fs::read_to_string(kept)?, expected);
    Ok(())
}

/// All its devices lose it in the same second, and return spread over the hour that it wanted; one in 3,600 of them, if it
/// is this one, within the first second.
fn server_that_dies_is_another_matter(server: &mut Server, agent: &mut Program) -> Result<(), Failure> {
    server.kill()?;
    let line = agent.wait_for("next try in")?;
    assert!(!is_at_once(&line), "{line}\n{:#?}", agent.lines());
    agent.stop(AGENT_STOP)
}

/// The first delay is at most 100 ms, told in whole seconds.
fn is_at_once(line: &str) -> bool {
    line.ends_with("next try in 1 s") || line.ends_with("next try in 0 s")
}

#[expect(clippy::disallowed_methods, reason = "how long a silence is taken is measured")]
fn now() -> Instant {
    Instant::now()
}
