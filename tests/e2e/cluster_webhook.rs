//! Several servers with the same webhook: each event is posted once, in order, and another goes on when the one that posts is killed.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use moorline_testbed::failure::Failure;
use moorline_testbed::load::Pool;
use moorline_testbed::nats::Nats;
use moorline_testbed::receiver::{Answer, Receiver, Request};
use moorline_testbed::rig::{Rig, Server};
use moorline_testbed::several::{NAMES, PATIENCE, allowed, crowd, told};

const POSTS: &str = "it is this node that posts events from now on";

/// The ids of all events, as they came; what came again, and was there before, is left out.
fn new_ids(requests: &[Request]) -> Vec<i64> {
    let mut seen = BTreeSet::new();
    ids(requests).into_iter().filter(|id| seen.insert(*id)).collect()
}

/// The ids of all events, as they came.
fn ids(requests: &[Request]) -> Vec<i64> {
    let events = requests.iter().flat_map(Request::events);
    events.filter_map(|event| event["id"].as_str()?.parse().ok()).collect()
}

#[test]
fn one_of_several_servers_posts_and_another_goes_on() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let (rig, nats) = (Rig::new()?, Nats::start()?);
    let receiver = Receiver::start(None, |_, _| Answer::Status(204))?;
    let secret = rig.folder().join("webhook.secret");
    fs::write(&secret, format!("whsec_{}\n", BASE64_STANDARD.encode([7; 32])))?;
    fs::set_permissions(&secret, Permissions::from_mode(0o600))?;
    let start = |name: &str| -> Result<Server, Failure> {
        let setup = rig.server()?.node(name, &nats.urls());
        let url = format!("http://{}/hook", receiver.address());
        setup.set("webhook.url", url).set("webhook.secret_file", secret.display()).start()
    };
    let mut servers = Vec::new();
    for name in NAMES {
        servers.push(start(name)?);
    }
    // It may have said so before it listened.
    if !servers[0].said(POSTS) {
        servers[0].wait_for_within(POSTS, PATIENCE)?;
    }
    let pool = Pool::new(rig.pki(), 20)?;
    let mut first = crowd(&pool, 0..10, servers[1].devices())?;
    receiver.wait_until("ten devices", PATIENCE, |requests| ids(requests).len() >= 10)?;
    first.leave();
    let before = receiver.wait_until("that they left", PATIENCE, |requests| ids(requests).len() >= 20)?;
    assert_eq!(ids(&before), (1..=20).collect::<Vec<_>>(), "each once, and in order");
    servers[0].kill()?;
    let _second = crowd(&pool, 10..20, servers[1].devices())?;
    let events = told(servers[1].operators(), 30)?;
    let wanted: Vec<i64> = events.iter().filter_map(|event| event["id"].as_i64()).collect();
    let requests = receiver.wait_until("ten others", PATIENCE, |requests| new_ids(requests).len() >= 30)?;
    assert_eq!(new_ids(&requests), wanted);
    // Who was killed may not have said yet that its last request was taken.
    let last = before.last().map(Request::events).unwrap_or_default().len();
    let again = ids(&requests).len() - wanted.len();
    assert!(again == 0 || again == last, "{again} came again");
    Ok(())
}
