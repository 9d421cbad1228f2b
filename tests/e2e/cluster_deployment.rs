//! The reference deployment of docs/cluster.md: its files are right, devices keep their node through its load balancer, and its
//! upgrade disturbs no device more than once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use moorline_testbed::deployment::{Deployment, NODES, Plan};
use moorline_testbed::failure::Failure;
use moorline_testbed::http::Operators;
use moorline_testbed::left_out::left_out;
use moorline_testbed::load::{Crowd, Entry, Pool, Speech, imei};
use moorline_testbed::programs::program;
use moorline_testbed::rig::Rig;
use moorline_testbed::several;
use serde_json::Value;

/// On a machine where others work too.
const PATIENCE: Duration = Duration::from_secs(60);
const ENTRY: Entry = Entry { parallel: 64, patience: PATIENCE };

fn allowed() -> bool {
    let haproxy = Command::new("haproxy").arg("-v").output().is_ok();
    if !haproxy {
        left_out("the reference deployment needs haproxy (apt install haproxy)");
    }
    haproxy && several::allowed()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn files_are_right_to_the_programs_that_read_them() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let rig = Rig::new()?;
    let plan = Plan::new(rig.pki())?;
    let accepts = |command: &mut Command, words: &str| -> Result<(), Failure> {
        let output = command.output()?;
        let said = said(&output);
        assert!(output.status.success() && said.contains(words), "{said}");
        assert!(!said.to_lowercase().contains("warning"), "{said}");
        Ok(())
    };
    for name in NODES {
        accepts(Command::new("nats-server").arg("-t").arg("-c").arg(plan.nats(name)), "is valid")?;
        let mut check = Command::new(program("moorline-server")?);
        accepts(check.arg("check").arg("-c").arg(plan.server(name)), &format!("this is node {name}"))?;
    }
    accepts(Command::new("haproxy").arg("-c").arg("-f").arg(plan.balancer()), "is valid")
}

/// Where each device is: its node, and the address that it comes from.
fn whereabouts(operators: Operators, online: usize) -> Result<BTreeMap<String, (String, IpAddr)>, Failure> {
    operators.wait_within(PATIENCE, "/api/devices?limit=1000", &format!("{online} online"), |answer| {
        let devices = answer["devices"].as_array()?.iter().filter(|device| device["online"] == true);
        let found: BTreeMap<_, _> = devices
            .filter_map(|device| {
                let address: SocketAddr = device["address"].as_str()?.parse().ok()?;
                let node = device["node"].as_str()?.to_owned();
                Some((device["imei"].as_str()?.to_owned(), (node, address.ip())))
            })
            .collect();
        (found.len() == online).then_some(found)
    })
}

/// How many sessions each device had, once so many began; all of them ended once but one of each device.
fn sessions(operators: Operators, begun: usize) -> Result<BTreeMap<String, usize>, Failure> {
    let is_begin = |event: &&Value| event["kind"] == "online";
    let path = "/api/events?after=0&limit=1000";
    operators.wait_within(PATIENCE, path, &format!("{begun} sessions"), |answer| {
        (answer["events"].as_array()?.iter().filter(is_begin).count() >= begun).then_some(())
    })?;
    let events = operators.events_after(0)?;
    let standing = several::standing(&events);
    assert!(standing.values().all(|count| *count == 1), "{standing:?}: {events:#?}");
    let mut sessions = BTreeMap::new();
    for event in events.iter().filter(is_begin) {
        *sessions.entry(event["imei"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    assert_eq!(sessions.values().sum::<usize>(), begun, "{events:#?}");
    Ok(sessions)
}

#[test]
fn devices_keep_their_node_and_leave_one_that_is_lost() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let rig = Rig::new()?;
    let mut deployment = Plan::new(rig.pki())?.start()?;
    let pool = Pool::new(rig.pki(), 30)?;
    let mut crowd = Crowd::new(&pool, 0..30, deployment.devices(), Speech::Native, true)?;
    crowd.arrive(ENTRY)?;
    let first = whereabouts(deployment.operators("a"), 30)?;
    let addresses: std::collections::BTreeSet<_> = first.values().map(|(_, address)| address).collect();
    assert_eq!(addresses.len(), 30, "each at its own address, and not the balancer's: {first:?}");
    let at = |node: &str| first.values().filter(|(at, _)| at == node).count();
    assert!(NODES.iter().all(|node| at(node) > 0), "{first:?}");

    crowd.leave();
    whereabouts(deployment.operators("b"), 0)?;
    let arrival = crowd.arrive(ENTRY)?;
    assert_eq!(arrival.resumed, 30, "each found the node that knows its TLS session");
    assert_eq!(whereabouts(deployment.operators("c"), 30)?, first);

    deployment.node("b").kill()?;
    let mut lost = 0;
    while lost < at("b") {
        lost += crowd.idle(Duration::from_millis(50))?;
    }
    crowd.arrive(ENTRY)?;
    let last =
        deployment.operators("c").wait_within(PATIENCE, "/api/devices?limit=1", "none at b", |_| {
            let now = whereabouts(deployment.operators("c"), 30).ok()?;
            now.values().all(|(node, _)| node != "b").then_some(now)
        })?;
    let moved = last.iter().filter(|(imei, place)| first[*imei] != **place).count();
    assert_eq!((lost, moved), (at("b"), at("b")), "nobody else is disturbed");
    assert_eq!(crowd.beat_once()?.lost, 0);
    let sessions = sessions(deployment.operators("a"), 30 + 30 + lost)?;
    for (imei, count) in sessions {
        assert_eq!(count, if first[&imei].0 == "b" { 3 } else { 2 }, "{imei}");
    }
    Ok(())
}

/// So many rows that NATS sends them at the pace of whoever reads them.
const KNOWN: u32 = 40_000;

fn add_known(operators: Operators) -> Result<(), Failure> {
    let lines: Vec<String> = (500_000..500_000 + KNOWN)
        .map(|number| Ok(format!("{},Crane\n", imei(number)?)))
        .collect::<Result<_, Failure>>()?;
    ureq::post(operators.url("/api/devices")).content_type("text/csv").send(lines.concat())?;
    Ok(())
}

fn set_state(deployment: &Deployment, node: &str, state: &str) -> Result<(), Failure> {
    let answer = deployment.tell_balancer(&format!("set server nodes/{node} state {state}"))?;
    assert_eq!(answer.trim(), "");
    Ok(())
}

#[test]
fn upgrade_of_all_nodes_disturbs_each_device_once() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let rig = Rig::new()?;
    let mut deployment = Plan::new(rig.pki())?.start()?;
    let pool = Pool::new(rig.pki(), 60)?;
    let mut crowd = Crowd::new(&pool, 0..60, deployment.devices(), Speech::Native, true)?;
    crowd.arrive(ENTRY)?;
    whereabouts(deployment.operators("c"), 60)?;
    add_known(deployment.operators("a"))?;
    let over = AtomicBool::new(false);
    let crowd = thread::scope(|scope| {
        let devices = scope.spawn(|| -> Result<Crowd, Failure> {
            while !over.load(Ordering::SeqCst) {
                crowd.idle(Duration::from_millis(20))?;
                crowd.arrive(ENTRY)?;
            }
            Ok(crowd)
        });
        let upgraded = upgrade(&mut deployment);
        over.store(true, Ordering::SeqCst);
        let crowd = devices.join().map_err(|_| Failure::new("the crowd panicked"))?;
        upgraded.and(crowd)
    });
    assert_eq!(deployment.refused_by_nats(), Vec::<String>::new());
    assert_eq!(crowd?.beat_once()?.lost, 0);
    let sessions = sessions(deployment.operators("c"), 120)?;
    assert!(sessions.len() == 60 && sessions.values().all(|count| *count == 2), "{sessions:?}");
    Ok(())
}

/// As the guide has it, but that nothing holds a node's port while it restarts: its devices are refused meanwhile, and try again.
fn upgrade(deployment: &mut Deployment) -> Result<(), Failure> {
    set_state(deployment, "b", "drain")?;
    set_state(deployment, "c", "drain")?;
    for name in NODES {
        deployment.node(name).stop()?;
        deployment.node(name).start_again()?;
        set_state(deployment, name, "ready")?;
        for operators in NODES.map(|node| deployment.operators(node)) {
            operators.wait_within(PATIENCE, "/readyz", "it is ready", |answer| {
                (answer["ready"] == true).then_some(())
            })?;
            whereabouts(operators, 60)?;
        }
    }
    Ok(())
}
