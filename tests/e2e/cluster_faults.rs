//! Several servers that share a fleet, each fault alone: what devices notice of it, and what operators see. Many faults, and many devices,
//! are the campaign's.

use std::time::Duration;

use jiff::Timestamp;
use moorline_testbed::failure::Failure;
use moorline_testbed::field::{Island, may_have_fields};
use moorline_testbed::http::Operators;
use moorline_testbed::left_out::left_out;
use moorline_testbed::load::{Crowd, Pool};
use moorline_testbed::nats::Nats;
use moorline_testbed::relay::Relay;
use moorline_testbed::rig::Rig;
use moorline_testbed::several::{
    NAMES, PATIENCE, Several, allowed, crowd, standing, told, wait_at, wait_online,
};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn devices_of_a_server_that_was_killed_are_marked_and_come_back() -> Result<(), Failure> {
    let Some(mut fleet) = Several::start(20)? else { return Ok(()) };
    let mut lost = fleet.crowd(0..10, 1)?;
    let mut other = fleet.crowd(10..20, 0)?;
    wait_online(fleet.operators(2), 20)?;
    fleet.servers[1].kill()?;
    lost.idle(Duration::from_millis(500))?;
    // Five of them go to another server before anybody missed their own.
    let mut moved = fleet.crowd(0..5, 2)?;
    wait_online(fleet.operators(2), 15)?;
    fleet.servers[1].start_again()?;
    let mut returned = fleet.crowd(5..10, 1)?;
    for operators in fleet.all() {
        wait_online(operators, 20)?;
    }
    for crowd in [&mut other, &mut moved, &mut returned] {
        assert_eq!(crowd.beat_once()?.lost, 0);
    }
    let told = told(fleet.operators(0), 20 + 5 + 5 + 5 + 5)?;
    let causes = told.iter().filter(|event| event["cause"] == "node_lost").count();
    assert_eq!(causes, 5, "those that had not moved");
    let standing = standing(&told);
    assert!(standing.len() == 20 && standing.values().all(|count| *count == 1), "{standing:?}");
    Ok(())
}

#[test]
fn sessions_go_on_while_nats_is_away() -> Result<(), Failure> {
    let Some(mut fleet) = Several::start(20)? else { return Ok(()) };
    let mut before = fleet.crowd(0..10, 0)?;
    wait_online(fleet.operators(2), 10)?;
    fleet.nats.kill()?;
    assert_eq!(before.beat_once()?.lost, 0, "heartbeats are answered");
    let mut meanwhile = fleet.crowd(10..20, 1)?;
    before.leave();
    wait_online(fleet.operators(0), 0)?;
    let ready = fleet.operators(1).wait_refused("/readyz", |problem| problem.contains("NATS"))?;
    assert!(ready.contains("sessions go on") || ready.contains("cannot be written"), "{ready}");
    fleet.nats.start_again(0)?;
    for operators in fleet.all() {
        wait_online(operators, 10)?;
        operators.wait_within(PATIENCE, "/readyz", "it is ready", |answer| {
            (answer["ready"] == true).then_some(())
        })?;
    }
    assert_eq!(meanwhile.beat_once()?.lost, 0);
    let told = told(fleet.operators(2), 10 + 10 + 10)?;
    let standing = standing(&told);
    assert_eq!(standing.values().filter(|count| **count == 1).count(), 10, "{standing:?}");
    Ok(())
}

#[test]
fn server_whose_line_to_nats_falls_silent_keeps_its_devices() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let (rig, nats) = (Rig::new()?, Nats::start()?);
    let line = Relay::start(nats.addresses()[0]);
    let server = rig.server()?.node("a", &[format!("nats://{}", line.address())]).start()?;
    let pool = Pool::new(rig.pki(), 10)?;
    let devices = crowd(&pool, 0..10, server.devices())?;
    keeps_its_devices(&rig, &nats, &pool, devices, server.operators(), |cut_off| {
        if !cut_off {
            // What was said into the dark is lost to both.
            line.cut();
        }
        line.set_dark(cut_off);
        Ok(())
    })
}

/// In a network namespace of its own; TCP on both sides goes on trying, and is heard again where it was.
#[test]
fn server_whose_packets_to_nats_are_dropped_keeps_its_devices() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    if !may_have_fields() {
        left_out("only root can put a server into a network namespace, with ip and nft");
        return Ok(());
    }
    let (rig, nats) = (Rig::new()?, Nats::start()?);
    let island = Island::new(&nats.addresses())?;
    let server = rig.server()?.within(&island.place).node("a", &island.urls()).start()?;
    let way = island.way_to(server.operators().0)?;
    let pool = Pool::new(rig.pki(), 10)?;
    let devices = island.place.within(|| crowd(&pool, 0..10, server.devices()))?;
    keeps_its_devices(&rig, &nats, &pool, devices, Operators(way.address()), |cut_off| {
        island.cut_off(cut_off)
    })
}

/// Node `a` is cut off from NATS, and is not: its ten devices notice nothing but the two that go to `b` meanwhile.
fn keeps_its_devices(
    rig: &Rig,
    nats: &Nats,
    pool: &Pool,
    mut devices: Crowd,
    operators: Operators,
    cut_off: impl Fn(bool) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let other = rig.server()?.node("b", &nats.urls()).start()?;
    wait_online(other.operators(), 10)?;
    cut_off(true)?;
    wait_online(other.operators(), 0)?;
    operators.wait_refused("/readyz", |problem| problem.contains("NATS"))?;
    // Two of them are quicker than the network.
    let mut moved = crowd(pool, 0..2, other.devices())?;
    assert_eq!(devices.beat_once()?.lost, 0, "nobody at the server that is cut off notices");
    cut_off(false)?;
    for operators in [operators, other.operators()] {
        wait_at(operators, &[("a", 8), ("b", 2)])?;
    }
    assert_eq!((devices.beat_once()?.lost, moved.beat_once()?.lost), (2, 0));
    // All began, all were lost, two moved, eight were back.
    let told = told(other.operators(), 10 + 10 + 2 + 8)?;
    assert_eq!(told.iter().filter(|event| event["cause"] == "node_back").count(), 8);
    drop(devices);
    wait_online(other.operators(), 2)
}

#[test]
fn server_that_hangs_and_wakes_disturbs_nobody() -> Result<(), Failure> {
    let Some(fleet) = Several::start(10)? else { return Ok(()) };
    let mut at_first = fleet.crowd(0..5, 0)?;
    let mut at_second = fleet.crowd(5..10, 1)?;
    wait_online(fleet.operators(2), 10)?;
    // The one that takes others for lost.
    fleet.servers[0].signal(Signal::STOP)?;
    wait_online(fleet.operators(2), 5)?;
    fleet.servers[0].signal(Signal::CONT)?;
    for operators in fleet.all() {
        wait_online(operators, 10)?;
    }
    assert_eq!((at_first.beat_once()?.lost, at_second.beat_once()?.lost), (0, 0));
    let told = told(fleet.operators(2), 10 + 5 + 5)?;
    assert!(told.iter().all(|event| event["cause"] != "node_lost"
        || event["imei"].as_str() < Some(&*fleet.pool.imei(5).to_string())));
    Ok(())
}

/// Of one node, the one that takes others for lost: it jumps while devices are there, and back.
#[test]
fn clock_that_is_wrong_by_an_hour_decides_nothing() -> Result<(), Failure> {
    let Some(mut fleet) = Several::start(10)? else { return Ok(()) };
    let mut devices = vec![fleet.crowd(0..10, 0)?];
    for operators in fleet.all() {
        wait_at(operators, &[(NAMES[0], 10)])?;
    }
    let at = |event: &Value| -> Result<Timestamp, Failure> {
        Ok(event["at"].as_str().unwrap_or_default().parse()?)
    };
    let begun = at(&told(fleet.operators(1), 10)?[0])?;
    let mut moves = 1;
    for hours in [1, -1, 0] {
        fleet.clocks[0].set_ahead(hours * 60 * 60)?;
        let before = fleet.operators(1).json("/api/events?limit=1")?["newest"].as_i64().unwrap_or(0);
        // From the wrong clock to a right one, and back; nobody ends the session before.
        for number in [1, 0, 2, 0] {
            devices.push(fleet.crowd(0..10, number)?);
            moves += 1;
            for operators in fleet.all() {
                wait_at(operators, &[(NAMES[number], 10)])?;
            }
            let newest = devices.last_mut().ok_or_else(|| Failure::new("no crowd"))?;
            assert_eq!(newest.beat_once()?.lost, 0, "the newest session holds");
            if number == 2 {
                // Nobody is there then: it begins with the wrong clock, too.
                fleet.servers[0].stop()?;
                fleet.servers[0].start_again()?;
            }
        }
        let events = told(fleet.operators(2), 10 * (2 * moves - 1))?;
        let ahead = |event: &Value| -> Result<i64, Failure> {
            Ok((at(event)?.duration_since(begun).as_secs_f64() / 3600.0).round() as i64)
        };
        let since = events.iter().filter(|event| event["id"].as_i64() > Some(before));
        let ahead = since.map(ahead).collect::<Result<Vec<i64>, Failure>>()?;
        // Each says when it was by the clock of its node; their order is by their ids.
        let wrong = ahead.iter().filter(|ahead| **ahead == hours).count();
        assert!(wrong >= 20 && ahead.iter().all(|ahead| [0, hours].contains(ahead)), "{events:#?}");
    }
    for operators in fleet.all() {
        assert_eq!(
            standing(&told(operators, 10 * (2 * moves - 1))?).values().sum::<usize>(),
            10,
            "nobody is taken for lost"
        );
    }
    // By the clock that is wrong again.
    fleet.clocks[0].set_ahead(-60 * 60)?;
    devices.push(fleet.crowd(0..10, 2)?);
    wait_at(fleet.operators(0), &[("c", 10)])?;
    fleet.servers[2].kill()?;
    wait_online(fleet.operators(1), 0)?;
    let events = told(fleet.operators(1), 10 * (2 * moves + 1 + 1))?;
    assert_eq!(events.iter().filter(|event| event["cause"] == "node_lost").count(), 10);
    Ok(())
}

#[test]
fn loss_of_one_of_three_nats_servers_is_not_noticed() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let (rig, mut nats) = (Rig::new()?, Nats::three()?);
    let setup =
        |name| Ok::<_, Failure>(rig.server()?.node(name, &nats.urls()).set_number("cluster.replicas", 3));
    let servers = [setup("a")?.start()?, setup("b")?.start()?];
    let pool = Pool::new(rig.pki(), 60)?;
    let mut crowds = Vec::new();
    for round in 0..3 {
        crowds.push(crowd(&pool, round * 20..round * 20 + 10, servers[0].devices())?);
        // Whichever of them leads by now.
        nats.kill_one(round)?;
        crowds.push(crowd(&pool, round * 20 + 10..round * 20 + 20, servers[1].devices())?);
        for server in &servers {
            wait_online(server.operators(), (round + 1) * 20)?;
        }
        nats.start_again(round)?;
        nats.wait_whole()?;
    }
    for crowd in &mut crowds {
        assert_eq!(crowd.beat_once()?.lost, 0);
    }
    let told = told(servers[1].operators(), 60)?;
    assert!(standing(&told).values().all(|count| *count == 1));
    Ok(())
}
