//! What happens at a server while NATS is away outlives that server, and is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use moorline_testbed::failure::Failure;
use moorline_testbed::load::{Crowd, Pool};
use moorline_testbed::nats::Nats;
use moorline_testbed::rig::{Rig, Server};
use moorline_testbed::several::{allowed, crowd, told, wait_online};
use rustix::process::Signal;
use serde_json::Value;

/// What is promised: what is older than this outlives a kill. With some time for a machine that has much to do.
const KEPT_AFTER: Duration = Duration::from_millis(2500);
/// A server looks within this whether a silence is one.
const LOOKED_AFTER: Duration = Duration::from_secs(8);

/// Two servers, their NATS, and twenty devices of which ten are at the first server and known to both.
struct Scene {
    before: Crowd,
    servers: [Server; 2],
    nats: Nats,
    pool: Pool,
    _rig: Rig,
}

impl Scene {
    fn set() -> Result<Option<Self>, Failure> {
        if !allowed() {
            return Ok(None);
        }
        let (rig, nats) = (Rig::new()?, Nats::start()?);
        let start = |name| rig.server()?.node(name, &nats.urls()).start();
        let servers = [start("a")?, start("b")?];
        let pool = Pool::new(rig.pki(), 20)?;
        let before = crowd(&pool, 0..10, servers[0].devices())?;
        wait_online(servers[1].operators(), 10)?;
        Ok(Some(Self { before, servers, nats, pool, _rig: rig }))
    }

    /// Ten come to the first server and the ten that were there leave, and no more happens.
    fn change(&mut self) -> Result<Crowd, Failure> {
        let mut meanwhile = crowd(&self.pool, 10..20, self.servers[0].devices())?;
        self.before.leave();
        meanwhile.idle(KEPT_AFTER)?;
        assert_eq!(meanwhile.up(), 10);
        Ok(meanwhile)
    }

    /// The events that both servers tell, once there are so many.
    fn told(&self, count: usize) -> Result<Vec<Value>, Failure> {
        let [first, second] = [0, 1].map(|number: usize| told(self.servers[number].operators(), count));
        let first = first?;
        assert_eq!(first, second?);
        Ok(first)
    }
}

/// Every session began, and then it ended, once each; returns by what cause those of these devices ended.
fn ends(events: &[Value], of: impl Fn(&str) -> bool) -> BTreeMap<String, usize> {
    let (mut began, mut ends) = (BTreeMap::new(), BTreeMap::new());
    for event in events {
        let session = event["session_id"].as_u64();
        if event["kind"] == "online" {
            assert_eq!(began.insert(session, false), None, "it began twice: {event}");
            continue;
        }
        assert_eq!(began.insert(session, true), Some(false), "it ended twice or never began: {event}");
        if event["imei"].as_str().is_some_and(&of) {
            *ends.entry(event["cause"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    ends
}

#[test]
fn what_waits_at_a_server_outlives_its_kill() -> Result<(), Failure> {
    let Some(mut scene) = Scene::set()? else { return Ok(()) };
    scene.nats.kill()?;
    let _lost = scene.change()?;
    scene.servers[0].kill()?;
    scene.nats.start_again(0)?;
    scene.servers[0].start_again()?;
    let told = scene.told(10 + 10 + 10 + 10)?;
    let first_new = scene.pool.imei(10).to_string();
    let of_new = ends(&told, |imei| *imei >= *first_new);
    assert_eq!(of_new, BTreeMap::from([("server_stopped".to_owned(), 10)]), "{told:#?}");
    for server in &scene.servers {
        wait_online(server.operators(), 0)?;
        assert_eq!(server.operators().json("/api/devices?limit=1")?["total"], 20);
    }
    Ok(())
}

#[test]
fn what_waits_at_a_server_outlives_its_stop_in_good_order() -> Result<(), Failure> {
    let Some(mut scene) = Scene::set()? else { return Ok(()) };
    scene.nats.kill()?;
    let _told_to_go = scene.change()?;
    scene.servers[0].stop()?;
    scene.nats.start_again(0)?;
    scene.servers[0].start_again()?;
    let told = scene.told(10 + 10 + 10 + 10)?;
    let first_new = scene.pool.imei(10).to_string();
    let of_new = ends(&told, |imei| *imei >= *first_new);
    assert_eq!(of_new, BTreeMap::from([("server_stopping".to_owned(), 10)]), "{told:#?}");
    Ok(())
}

#[test]
fn devices_that_move_before_their_server_returns_are_shown_where_they_are() -> Result<(), Failure> {
    let Some(mut scene) = Scene::set()? else { return Ok(()) };
    // What is on its way to it arrives later, beside what is sent again.
    let stopped: Vec<_> = scene.nats.ids();
    signal(&stopped, Signal::STOP)?;
    let _lost = scene.change()?;
    scene.servers[0].kill()?;
    signal(&stopped, Signal::CONT)?;
    let mut moved = crowd(&scene.pool, 10..15, scene.servers[1].devices())?;
    wait_online(scene.servers[1].operators(), 5)?;
    scene.servers[0].start_again()?;
    for server in &scene.servers {
        wait_online(server.operators(), 5)?;
    }
    let told = scene.told(10 + 10 + 10 + 10 + 5)?;
    assert_eq!(told.iter().filter(|event| event["kind"] == "online").count(), 25);
    for server in &scene.servers {
        wait_online(server.operators(), 5)?;
    }
    assert_eq!(moved.beat_once()?.lost, 0);
    Ok(())
}

fn signal(processes: &[u32], signal: Signal) -> Result<(), Failure> {
    for id in processes {
        let id = i32::try_from(*id).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(id.ok_or_else(|| Failure::new("no process"))?, signal)?;
    }
    Ok(())
}

#[test]
fn quiet_server_does_not_read_all_anew() -> Result<(), Failure> {
    let Some(mut scene) = Scene::set()? else { return Ok(()) };
    scene.told(10)?;
    // It hears of no row after those that it reads at its start.
    scene.servers[1].stop()?;
    scene.servers[1].start_again()?;
    // Its reader of rows is made anew with each time that it reads them all.
    let readers = |nats: &Nats| -> Result<BTreeSet<String>, Failure> {
        let names = nats.ask("$JS.API.CONSUMER.NAMES.KV_moorline_fleet", b"")?;
        let names = names["consumers"].as_array().cloned().unwrap_or_default();
        Ok(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
    };
    let before = readers(&scene.nats)?;
    scene.before.idle(LOOKED_AFTER)?;
    let after = readers(&scene.nats)?;
    assert!(after.len() >= 2 && after.is_subset(&before), "{before:?} {after:?}");
    Ok(())
}
