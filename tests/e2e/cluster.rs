//! Several servers that share a fleet in NATS: to devices and operators they are one.

use std::time::Duration;

use moorline_testbed::failure::Failure;
use moorline_testbed::load::Pool;
use moorline_testbed::nats::{Doors, Nats};
use moorline_testbed::rig::{IMEI, Rig, ServerSetup};
use moorline_testbed::several::{NAMES, Several, allowed, crowd, standing, told, wait_at, wait_online};

#[test]
fn three_servers_are_one_fleet() -> Result<(), Failure> {
    let Some(fleet) = Several::start(30)? else { return Ok(()) };
    let mut crowds = Vec::new();
    for number in 0..3 {
        crowds.push(fleet.crowd(number * 10..number * 10 + 10, number)?);
    }
    for operators in fleet.all() {
        wait_online(operators, 30)?;
    }
    let first = fleet.operators(0);
    for operators in fleet.all() {
        assert_eq!(told(operators, 30)?, told(first, 30)?, "each node tells the same, under the same ids");
    }
    let nodes = first.wait_until("/api/nodes", "three nodes", |answer| {
        let nodes = answer["nodes"].as_array()?;
        (nodes.len() == 3 && nodes.iter().all(|node| node["heard"] == true)).then(|| answer.clone())
    })?;
    assert_eq!(nodes["nodes"][0]["answers"], true, "{nodes}");
    let imei = fleet.pool.imei(15).to_string();
    assert_eq!(first.json(&format!("/api/devices/{imei}"))?["node"], "b");
    Ok(())
}

#[test]
fn device_that_moves_is_online_once() -> Result<(), Failure> {
    let Some(fleet) = Several::start(10)? else { return Ok(()) };
    let mut crowds = Vec::new();
    for round in 0..9 {
        // The sessions before are not ended by the devices.
        crowds.push(fleet.crowd(0..10, round % 3)?);
        if round % 2 == 1 {
            // Seen where they go next, or not yet.
            wait_at(fleet.operators((round + 1) % 3), &[(NAMES[round % 3], 10)])?;
        }
    }
    let mut newest = crowds.pop().ok_or_else(|| Failure::new("no crowd"))?;
    for operators in fleet.all() {
        wait_at(operators, &[("c", 10)])?;
    }
    assert_eq!(newest.beat_once()?.lost, 0, "the newest session holds");
    let standing = standing(&told(fleet.operators(2), 90 + 80)?);
    assert!(standing.len() == 10 && standing.values().all(|count| *count == 1), "{standing:?}");
    Ok(())
}

#[test]
fn what_operators_decide_takes_effect_at_whichever_server_the_device_is() -> Result<(), Failure> {
    let Some(fleet) = Several::start(2)? else { return Ok(()) };
    let mut crowd = fleet.crowd(0..2, 1)?;
    let (near, far) = (fleet.operators(1), fleet.operators(0));
    wait_online(far, 2)?;
    let [dropped, blocked] = [0, 1].map(|number| fleet.pool.imei(number).to_string());
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
    for operators in fleet.all() {
        operators.wait_until(&format!("/api/devices/{dropped}"), "the label", |device| {
            (device["label"] == "Crane").then_some(())
        })?;
    }
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
    told(alone, 26)?;
    Ok(())
}

/// All that the server's program says when it is called so.
fn run(setup: &ServerSetup, command: &str) -> Result<String, Failure> {
    let output = setup.command()?.arg(command).output()?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
