//! Several servers that share a fleet in NATS: to devices and operators they are one.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use moorline_testbed::failure::Failure;
use moorline_testbed::http::Operators;
use moorline_testbed::left_out::left_out;
use moorline_testbed::load::{Crowd, Entry, Pool, Speech};
use moorline_testbed::nats::{self, Doors, Nats};
use moorline_testbed::process::Program;
use moorline_testbed::relay::Relay;
use moorline_testbed::rig::{IMEI, Rig, Server, ServerSetup, free_address};
use rustix::process::Signal;
use serde_json::Value;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn allowed() -> bool {
    let allowed = nats::is_installed();
    if !allowed {
        left_out("servers that share a fleet need nats-server (apt install nats-server)");
    }
    allowed
}

fn three(rig: &Rig, nats: &Nats) -> Result<Vec<Server>, Failure> {
    NAMES.into_iter().map(|name| rig.server()?.node(name, &nats.urls()).start()).collect()
}

fn crowd(pool: &Pool, members: std::ops::Range<usize>, server: SocketAddr) -> Result<Crowd, Failure> {
    let mut crowd = Crowd::new(pool, members, server, Speech::Native, false)?;
    crowd.arrive(Entry::in_turn())?;
    Ok(crowd)
}

fn wait_online(operators: Operators, count: usize) -> Result<(), Failure> {
    operators.wait_until("/api/devices?limit=1&online=true", &format!("{count} online"), |answer| {
        (answer["total"] == count).then_some(())
    })
}

/// All events that a node knows, in their order.
fn events(operators: Operators) -> Result<Vec<Value>, Failure> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let after = all.last().map_or(0, |event| event["id"].as_i64().unwrap_or(0));
        let page = operators.json(&format!("/api/events?after={after}&limit=1000"))?;
        let page = page["events"].as_array().cloned().unwrap_or_default();
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// The same, once there are so many.
fn told(operators: Operators, count: usize) -> Result<Vec<Value>, Failure> {
    operators.wait_within(LOST_WITHIN, "/api/events?limit=1000", &format!("{count} events"), |answer| {
        (answer["events"].as_array()?.len() >= count).then_some(())
    })?;
    let told = events(operators)?;
    assert_eq!(told.len(), count, "{told:#?}");
    Ok(told)
}

/// Every session began once and ended at most once, in this order; returns how many stand, of each device.
fn hold_against_each_other(events: &[Value]) -> BTreeMap<String, usize> {
    let mut standing: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in events {
        let (Some(imei), Some(session)) = (event["imei"].as_str(), event["session_id"].as_u64()) else {
            continue;
        };
        let sessions = standing.entry(imei.to_owned()).or_default();
        match event["kind"].as_str() {
            Some("online") => {
                assert!(!sessions.contains(&session), "it began twice: {event}");
                sessions.push(session);
            }
            Some("offline" | "replaced") => {
                let before = sessions.len();
                sessions.retain(|standing| *standing != session);
                assert_eq!(sessions.len() + 1, before, "it ended and did not stand: {event}");
            }
            _ => {}
        }
    }
    standing.into_iter().map(|(imei, sessions)| (imei, sessions.len())).collect()
}

#[test]
fn three_servers_are_one_fleet() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let (rig, nats) = (Rig::new()?, Nats::start()?);
    let servers = three(&rig, &nats)?;
    let pool = Pool::new(rig.pki(), 30)?;
    let mut crowds = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        crowds.push(crowd(&pool, number * 10..number * 10 + 10, server.devices())?);
    }
    for server in &servers {
        wait_online(server.operators(), 30)?;
        server.operators().wait_until("/api/events?limit=100", "30 events", |answer| {
            (answer["events"].as_array()?.len() == 30).then_some(())
        })?;
    }
    let [first, second, third] = [0, 1, 2].map(|number: usize| servers[number].operators());
    assert_eq!(events(first)?, events(second)?, "each node tells the same, under the same ids");
    assert_eq!(events(first)?, events(third)?);
    let nodes = first.wait_until("/api/nodes", "three nodes", |answer| {
        let nodes = answer["nodes"].as_array()?;
        (nodes.len() == 3 && nodes.iter().all(|node| node["heard"] == true)).then(|| answer.clone())
    })?;
    assert_eq!(nodes["nodes"][0]["answers"], true, "{nodes}");
    let imei = pool.imei(15).to_string();
    assert_eq!(first.json(&format!("/api/devices/{imei}"))?["node"], "b");
    Ok(())
}

#[test]
fn device_that_moves_is_online_once() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let (rig, nats) = (Rig::new()?, Nats::start()?);
    let servers = three(&rig, &nats)?;
    let pool = Pool::new(rig.pki(), 10)?;
    let mut crowds = Vec::new();
    for round in 0..9 {
        // The sessions before are not ended by the devices.
        crowds.push(crowd(&pool, 0..10, servers[round % 3].devices())?);
        if round % 2 == 1 {
            // Seen by all, or not yet.
            wait_online(servers[(round + 1) % 3].operators(), 10)?;
        }
    }
    let mut newest = crowds.pop().ok_or_else(|| Failure::new("no crowd"))?;
    let last = servers[2].operators();
    for server in &servers {
        server.operators().wait_until("/api/devices?limit=100", "all at c", |answer| {
            let devices = answer["devices"].as_array()?;
            devices.iter().all(|device| device["node"] == "c" && device["online"] == true).then_some(())
        })?;
    }
    assert_eq!(newest.beat_once()?.lost, 0, "the newest session holds");
    let standing = hold_against_each_other(&told(last, 90 + 80)?);
    assert!(standing.len() == 10 && standing.values().all(|count| *count == 1), "{standing:?}");
    Ok(())
}

/// Long enough for the others to have taken a node for lost.
const LOST_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn what_operators_decide_takes_effect_at_whichever_server_the_device_is() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let (rig, nats) = (Rig::new()?, Nats::start()?);
    let servers = three(&rig, &nats)?;
    let pool = Pool::new(rig.pki(), 2)?;
    let mut crowd = crowd(&pool, 0..2, servers[1].devices())?;
    let (near, far) = (servers[1].operators(), servers[0].operators());
    wait_online(far, 2)?;
    let [dropped, blocked] = [0, 1].map(|number| pool.imei(number).to_string());
    let answer = far.send("POST", &format!("/api/devices/{dropped}/drop"), None)?;
    assert_eq!(answer["dropped"], true, "{answer}");
    let answer =
        far.send("PUT", &format!("/api/devices/{blocked}/state"), Some(r#"{"state": "blocked"}"#))?;
    assert_eq!(answer["state"], "blocked", "{answer}");
    // It was answered when it was in force.
    assert_eq!(near.json(&format!("/api/devices/{blocked}"))?["state"], "blocked");
    for operators in [near, far] {
        wait_online(operators, 0)?;
    }
    crowd.idle(Duration::from_millis(200))?;
    assert_eq!(crowd.up(), 0);
    let named = far.send("PUT", &format!("/api/devices/{dropped}/label"), Some(r#"{"label": "Crane"}"#))?;
    assert_eq!(named["label"], "Crane", "{named}");
    for server in &servers {
        server.operators().wait_until(&format!("/api/devices/{dropped}"), "the label", |device| {
            (device["label"] == "Crane").then_some(())
        })?;
    }
    Ok(())
}

#[test]
fn devices_of_a_server_that_was_killed_are_marked_and_come_back() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let (rig, nats) = (Rig::new()?, Nats::start()?);
    let mut servers = three(&rig, &nats)?;
    let pool = Pool::new(rig.pki(), 20)?;
    let mut lost = crowd(&pool, 0..10, servers[1].devices())?;
    let mut other = crowd(&pool, 10..20, servers[0].devices())?;
    wait_online(servers[2].operators(), 20)?;
    servers[1].kill()?;
    lost.idle(Duration::from_millis(500))?;
    // Five of them go to another server before anybody missed their own.
    let mut moved = crowd(&pool, 0..5, servers[2].devices())?;
    servers[2].operators().wait_within(
        LOST_WITHIN,
        "/api/devices?limit=1&online=true",
        "15 online",
        |answer| (answer["total"] == 15).then_some(()),
    )?;
    servers[1].start_again()?;
    let mut returned = crowd(&pool, 5..10, servers[1].devices())?;
    for server in &servers {
        wait_online(server.operators(), 20)?;
    }
    for crowd in [&mut other, &mut moved, &mut returned] {
        assert_eq!(crowd.beat_once()?.lost, 0);
    }
    let told = told(servers[0].operators(), 20 + 5 + 5 + 5 + 5)?;
    let causes = told.iter().filter(|event| event["cause"] == "node_lost").count();
    assert_eq!(causes, 5, "those that had not moved");
    let standing = hold_against_each_other(&told);
    assert!(standing.len() == 20 && standing.values().all(|count| *count == 1), "{standing:?}");
    Ok(())
}

#[test]
fn sessions_go_on_while_nats_is_away() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let (rig, mut nats) = (Rig::new()?, Nats::start()?);
    let servers = three(&rig, &nats)?;
    let pool = Pool::new(rig.pki(), 20)?;
    let mut before = crowd(&pool, 0..10, servers[0].devices())?;
    wait_online(servers[2].operators(), 10)?;
    nats.kill()?;
    assert_eq!(before.beat_once()?.lost, 0, "heartbeats are answered");
    let mut meanwhile = crowd(&pool, 10..20, servers[1].devices())?;
    before.leave();
    servers[0].operators().wait_within(
        LOST_WITHIN,
        "/api/devices?limit=1&online=true",
        "0 online",
        |answer| (answer["total"] == 0).then_some(()),
    )?;
    let ready = servers[1].operators().wait_refused("/readyz", |problem| problem.contains("NATS"))?;
    assert!(ready.contains("sessions go on") || ready.contains("cannot be written"), "{ready}");
    nats.start_again(0)?;
    for server in &servers {
        server.operators().wait_within(
            LOST_WITHIN,
            "/api/devices?limit=1&online=true",
            "10 online",
            |answer| (answer["total"] == 10).then_some(()),
        )?;
        server.operators().wait_within(LOST_WITHIN, "/readyz", "it is ready", |answer| {
            (answer["ready"] == true).then_some(())
        })?;
    }
    assert_eq!(meanwhile.beat_once()?.lost, 0);
    let told = told(servers[2].operators(), 10 + 10 + 10)?;
    let standing = hold_against_each_other(&told);
    assert_eq!(standing.values().filter(|count| **count == 1).count(), 10, "{standing:?}");
    Ok(())
}

#[test]
fn server_that_is_cut_off_from_nats_keeps_its_devices() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let (rig, nats) = (Rig::new()?, Nats::start()?);
    let line = Relay::start(nats.addresses()[0]);
    let cut_off = rig.server()?.node("a", &[format!("nats://{}", line.address())]).start()?;
    let other = rig.server()?.node("b", &nats.urls()).start()?;
    let pool = Pool::new(rig.pki(), 10)?;
    let mut crowd_of_a = crowd(&pool, 0..10, cut_off.devices())?;
    wait_online(other.operators(), 10)?;
    line.set_dark(true);
    other.operators().wait_within(LOST_WITHIN, "/api/devices?limit=1&online=true", "none", |answer| {
        (answer["total"] == 0).then_some(())
    })?;
    // Two of them are quicker than the network.
    let mut moved = crowd(&pool, 0..2, other.devices())?;
    assert_eq!(crowd_of_a.beat_once()?.lost, 0, "nobody at the server that is cut off notices");
    line.cut();
    line.set_dark(false);
    for operators in [cut_off.operators(), other.operators()] {
        operators.wait_within(LOST_WITHIN * 4, "/api/devices?limit=100", "8 at a and 2 at b", |answer| {
            let devices = answer["devices"].as_array()?;
            let at = |node| {
                devices.iter().filter(|device| device["node"] == node && device["online"] == true).count()
            };
            ((at("a"), at("b")) == (8, 2)).then_some(())
        })?;
    }
    assert_eq!((crowd_of_a.beat_once()?.lost, moved.beat_once()?.lost), (2, 0));
    // All began, all were lost, two moved, eight were back.
    let told = told(other.operators(), 10 + 10 + 2 + 8)?;
    assert_eq!(told.iter().filter(|event| event["cause"] == "node_back").count(), 8);
    drop(crowd_of_a);
    wait_online(other.operators(), 2)?;
    Ok(())
}

#[test]
fn server_that_hangs_and_wakes_disturbs_nobody() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let (rig, nats) = (Rig::new()?, Nats::start()?);
    let servers = three(&rig, &nats)?;
    let pool = Pool::new(rig.pki(), 10)?;
    let mut at_first = crowd(&pool, 0..5, servers[0].devices())?;
    let mut at_second = crowd(&pool, 5..10, servers[1].devices())?;
    wait_online(servers[2].operators(), 10)?;
    // The one that takes others for lost.
    servers[0].signal(Signal::STOP)?;
    servers[2].operators().wait_within(
        LOST_WITHIN,
        "/api/devices?limit=1&online=true",
        "5 online",
        |answer| (answer["total"] == 5).then_some(()),
    )?;
    servers[0].signal(Signal::CONT)?;
    for server in &servers {
        server.operators().wait_within(
            LOST_WITHIN,
            "/api/devices?limit=1&online=true",
            "10 online",
            |answer| (answer["total"] == 10).then_some(()),
        )?;
    }
    assert_eq!((at_first.beat_once()?.lost, at_second.beat_once()?.lost), (0, 0));
    let told = told(servers[2].operators(), 10 + 5 + 5)?;
    assert!(
        told.iter().all(|event| event["cause"] != "node_lost"
            || event["imei"].as_str() < Some(&*pool.imei(5).to_string()))
    );
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
            server.operators().wait_within(
                LOST_WITHIN * 4,
                "/api/devices?limit=1&online=true",
                "all",
                |answer| (answer["total"] == (round + 1) * 20).then_some(()),
            )?;
        }
        nats.start_again(round)?;
        nats.wait_whole()?;
    }
    for crowd in &mut crowds {
        assert_eq!(crowd.beat_once()?.lost, 0);
    }
    let told = told(servers[1].operators(), 60)?;
    assert!(hold_against_each_other(&told).values().all(|count| *count == 1));
    Ok(())
}

#[test]
fn what_is_wrong_with_nats_is_said_at_the_start() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let rig = Rig::new()?;
    let fails = |setup: ServerSetup, why: &str| -> Result<(), Failure> {
        let mut program = Program::start(&mut setup.command()?)?;
        program.wait_for_within(why, LOST_WITHIN)?;
        assert!(!program.wait_exit(LOST_WITHIN)?.success());
        Ok(())
    };
    let nowhere = format!("nats://{}", free_address()?);
    fails(rig.server()?.node("a", &[nowhere]), "it is not reached")?;
    let locked = Nats::with(Doors { user: Some(("moorline", "right")), ..Doors::default() })?;
    fails(rig.server()?.node("a", &locked.urls()), "it refuses this node: look at cluster.credentials")?;
    let password = rig.folder().join("password");
    fs::write(&password, "wrong\n")?;
    let with_password = || {
        Ok::<_, Failure>(
            rig.server()?
                .node("a", &locked.urls())
                .set("cluster.user", "moorline")
                .set("cluster.password_file", password.display()),
        )
    };
    fails(with_password()?, "it refuses this node")?;
    fs::write(&password, "right\n")?;
    let server = with_password()?.start()?;
    fails(with_password()?, "there is a node \"a\" already")?;
    drop(server);
    let bare = Nats::with(Doors { without_jetstream: true, ..Doors::default() })?;
    fails(rig.server()?.node("a", &bare.urls()), "it has no JetStream: switch it on")?;
    let single = Nats::start()?;
    let wanted = rig.server()?.node("a", &single.urls()).set_number("cluster.replicas", 3);
    fails(wanted, "cluster.replicas is 3: so many NATS servers there must be")?;
    Ok(())
}

#[test]
fn fleet_of_another_version_is_left_alone() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let (rig, nats) = (Rig::new()?, Nats::start()?);
    drop(rig.server()?.node("a", &nats.urls()).start()?);
    nats.publish("$KV.moorline_fleet.meta", br#"{"version":2,"id":"00000000"}"#)?;
    let mut program = Program::start(&mut rig.server()?.node("b", &nats.urls()).command()?)?;
    program.wait_for("the fleet there is of version 2, and this moorline-server knows 1")?;
    assert!(!program.wait_exit(LOST_WITHIN)?.success());
    Ok(())
}

#[test]
fn nodes_reach_nats_over_tls_with_certificates() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let rig = Rig::new()?;
    let (of_nats, of_node) = (rig.pki().server()?, rig.pki().device(IMEI.parse()?)?);
    let nats = Nats::with(Doors { tls: Some((rig.pki(), &of_nats)), ..Doors::default() })?;
    let urls = [format!("tls://127.0.0.1:{}", nats.addresses()[0].port())];
    let server = rig
        .server()?
        .node("a", &urls)
        .set("cluster.ca", rig.pki().ca().display())
        .set("cluster.certificate", of_node.certificate.display())
        .set("cluster.key", of_node.key.display())
        .start()?;
    let pool = Pool::new(rig.pki(), 1)?;
    let _device = crowd(&pool, 0..1, server.devices())?;
    wait_online(server.operators(), 1)
}

#[test]
fn fleet_goes_from_one_server_to_several_and_back() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let (rig, nats) = (Rig::new()?, Nats::start()?);
    let pool = Pool::new(rig.pki(), 12)?;
    let mut alone = rig.server()?.start()?;
    let mut before = crowd(&pool, 0..10, alone.devices())?;
    wait_online(alone.operators(), 10)?;
    let [labelled, blocked] = [3, 4].map(|number| pool.imei(number).to_string());
    let named = alone.operators().send(
        "PUT",
        &format!("/api/devices/{labelled}/label"),
        Some(r#"{"label": "Crane"}"#),
    )?;
    assert_eq!(named["label"], "Crane");
    alone.operators().send(
        "PUT",
        &format!("/api/devices/{blocked}/state"),
        Some(r#"{"state": "blocked"}"#),
    )?;
    wait_online(alone.operators(), 9)?;

    let database = alone.folder().join("fleet.db");
    let shared =
        |name| Ok::<_, Failure>(rig.server()?.node(name, &nats.urls()).set("store.path", database.display()));
    let refused = run(&shared("a")?, "share")?;
    assert!(refused.contains("a server has it open: stop it first"), "{refused}");
    alone.stop()?;
    before.idle(Duration::from_millis(200))?;
    let moved = run(&shared("a")?, "share")?;
    assert!(moved.contains("10 devices and 22 events"), "{moved}");
    let again = run(&shared("a")?, "share")?;
    assert!(again.contains("there is a fleet of 10 devices in NATS already"), "{again}");

    let mut node = shared("a")?.start()?;
    let other = rig.server()?.node("b", &nats.urls()).start()?;
    assert_eq!(other.operators().json(&format!("/api/devices/{labelled}"))?["label"], "Crane");
    assert_eq!(other.operators().json(&format!("/api/devices/{blocked}"))?["state"], "blocked");
    let _new = crowd(&pool, 10..12, other.devices())?;
    told(node.operators(), 22 + 2)?;
    let back = run(&shared("a")?, "unshare")?;
    assert!(back.contains("2 devices are online: stop all nodes first"), "{back}");
    node.stop()?;
    drop(other);
    // Killed: its sessions are ended by whoever is started as it again, and stopped.
    let mut other = rig.server()?.node("b", &nats.urls()).start()?;
    other.stop()?;
    let back = run(&shared("a")?, "unshare")?;
    assert!(
        back.contains("12 devices and 26 events") && back.contains("what was there before is in"),
        "{back}"
    );
    alone.start_again()?;
    let alone = alone.operators();
    assert_eq!(alone.json("/api/devices?limit=1")?["total"], 12);
    assert_eq!(alone.json(&format!("/api/devices/{labelled}"))?["label"], "Crane");
    assert_eq!(events(alone)?.len(), 26);
    Ok(())
}

/// All that the server's program says when it is called so.
fn run(setup: &ServerSetup, command: &str) -> Result<String, Failure> {
    let output = setup.command()?.arg(command).output()?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
