//! NATS has no room left: servers say which limit it is, keep what happens, and go on by themselves once there is room.

use moorline_testbed::failure::Failure;
use moorline_testbed::load::Pool;
use moorline_testbed::nats::{Doors, Nats};
use moorline_testbed::process::Program;
use moorline_testbed::rig::{Rig, Server};
use moorline_testbed::several::{PATIENCE, allowed, crowd, told};
use serde_json::{Value, json};

/// Some room beside what the servers need for themselves.
const ROOM: u64 = 2 * 1024 * 1024;

fn start(room: Option<u64>) -> Result<Option<(Rig, Nats, Server)>, Failure> {
    if !allowed() {
        return Ok(None);
    }
    let (rig, nats) = (Rig::new()?, Nats::with(Doors { room, ..Doors::default() })?);
    let server = rig.server()?.node("a", &nats.urls()).start()?;
    Ok(Some((rig, nats, server)))
}

/// Until somebody has made room, and then all is well and told.
fn tale(
    nats: &Nats,
    server: &mut Server,
    pool: &Pool,
    limit: &str,
    make_room: impl FnOnce(&Nats) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let operators = server.operators();
    let mut crowd = crowd(pool, 5..10, server.devices())?;
    let reasons = operators.wait_refused("/readyz", |reasons| reasons.contains(limit))?;
    assert!(reasons.contains("it is full"), "{reasons}");
    let line = server.wait_for("what happens waits on this node's disk and is told later")?;
    assert!(line.contains(limit), "{line}");
    assert!(operators.text("/")?.contains(limit), "the page says so");
    let metrics = operators.text("/metrics")?;
    for shown in ["moorline_ready 0", "moorline_cluster_nats_reached 0"] {
        assert!(metrics.contains(shown), "{metrics}");
    }
    assert_eq!(crowd.beat_once()?.lost, 0, "sessions go on");
    make_room(nats)?;
    told(operators, 10)?;
    operators.wait_within(PATIENCE, "/readyz", "it is ready", |answer| {
        (answer["ready"] == true && answer["queued"] == 0).then_some(())
    })?;
    assert_eq!(crowd.beat_once()?.lost, 0);
    Ok(())
}

#[test]
fn full_store_is_told_and_what_happens_waits() -> Result<(), Failure> {
    let Some((rig, nats, mut server)) = start(Some(ROOM))? else { return Ok(()) };
    let pool = Pool::new(rig.pki(), 10)?;
    let _before = crowd(&pool, 0..5, server.devices())?;
    told(server.operators(), 5)?;
    let ballast = json!({ "name": "BALLAST", "subjects": ["ballast"], "storage": "file", "retention": "limits", "num_replicas": 1 });
    let answer = nats.ask("$JS.API.STREAM.CREATE.BALLAST", ballast.to_string().as_bytes())?;
    assert_eq!(answer["error"], Value::Null, "{answer}");
    for size in [64 * 1024, 64] {
        while nats.ask("ballast", &vec![b'x'; size])?["error"].is_null() {}
    }
    tale(&nats, &mut server, &pool, "raise max_file_store", |nats| {
        // One that starts now says so, and ends.
        let mut late = Program::start(&mut rig.server()?.node("b", &nats.urls()).command()?)?;
        late.wait_for_within("it is full: raise max_file_store", PATIENCE)?;
        assert!(!late.wait_exit(PATIENCE)?.success());
        let answer = nats.ask("$JS.API.STREAM.DELETE.BALLAST", b"")?;
        assert_eq!(answer["success"], true, "{answer}");
        Ok(())
    })
}

#[test]
fn full_stream_is_told_and_what_happens_waits() -> Result<(), Failure> {
    let Some((rig, nats, mut server)) = start(None)? else { return Ok(()) };
    let pool = Pool::new(rig.pki(), 10)?;
    let _before = crowd(&pool, 0..5, server.devices())?;
    told(server.operators(), 5)?;
    let info = nats.ask("$JS.API.STREAM.INFO.MOORLINE_EVENTS", b"")?;
    let limited = |max_bytes: &Value| -> Result<(), Failure> {
        let mut config = info["config"].clone();
        config["max_bytes"] = max_bytes.clone();
        config["discard"] = "new".into();
        let answer = nats.ask("$JS.API.STREAM.UPDATE.MOORLINE_EVENTS", config.to_string().as_bytes())?;
        assert_eq!(answer["error"], Value::Null, "{answer}");
        Ok(())
    };
    limited(&info["state"]["bytes"])?;
    let limit = "MOORLINE_EVENTS is at a limit of its own";
    tale(&nats, &mut server, &pool, limit, |_| limited(&Value::from(-1)))
}
