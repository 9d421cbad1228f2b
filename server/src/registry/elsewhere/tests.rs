//! What a node makes of what others tell, without NATS.

use std::time::Duration;

use super::super::tests::{Rig, at, imei, order_of};
use super::super::{Cause, Kind, node_of};
use crate::config::Register;
use crate::store::{Device, Ended, Fleet};

const NODE: u8 = 3;
const OTHER: u8 = 5;

fn node() -> Rig {
    let rig = Rig::with(Fleet { node: Some(NODE), ..Fleet::default() }, Register::Open);
    rig.registry.name_node(OTHER, "b");
    rig
}

/// A row of device 1, of a session of the other node that its clock gives.
fn row(clock: u64, ended: bool) -> Device {
    let rig = Rig::new();
    rig.come(1, 4000, 1);
    let mut device = rig.registry.get(imei(1)).unwrap().device.unwrap();
    device.session.id = clock << 8 | u64::from(OTHER);
    device.session.ended = ended.then(|| Ended { at_ms: 7, cause: "idle".into() });
    device
}

fn shown(rig: &Rig) -> (bool, Option<String>, usize) {
    let shown = rig.registry.get(imei(1)).unwrap();
    (shown.online, shown.node.map(|node| node.to_string()), rig.registry.counts().online)
}

fn kinds(rig: &Rig) -> Vec<(Kind, Option<String>)> {
    let events = rig.stored().events.into_iter();
    events.map(|event| (event.kind, event.cause.map(|cause| cause.to_string()))).collect()
}

#[test]
fn ids_of_sessions_name_their_node_and_are_higher_than_all_that_it_knew() {
    let rig = node();
    let first = rig.come(0, 4000, 1).0.session_id;
    rig.registry.learn(row(900, false), at(2));
    let second = rig.come(1, 4000, 3).0.session_id;
    assert_eq!((node_of(first), node_of(second)), (NODE, NODE));
    assert!(second > 900 << 8 | 255 && second > first);
}

#[test]
fn device_of_another_node_is_shown_there() {
    let rig = node();
    rig.registry.learn(row(7, false), at(1));
    assert_eq!(shown(&rig), (true, Some("b".into()), 1));
    assert_eq!((rig.registry.online(), rig.registry.holder(imei(1))), (0, Some(OTHER)));
    rig.registry.learn(row(7, true), at(2));
    assert_eq!(shown(&rig), (false, None, 0));
    assert_eq!(kinds(&rig), [], "its own node tells");
}

#[test]
fn session_ends_when_the_device_is_at_another_node_and_not_when_it_was() {
    let rig = node();
    rig.registry.learn(row(7, false), at(1));
    let (presence, exit) = rig.come(1, 4001, 2);
    assert_eq!(kinds(&rig), [(Kind::Replaced, Some("replaced".into())), (Kind::Online, None)]);
    // Late, and late again.
    rig.registry.learn(row(7, false), at(3));
    rig.registry.learn(row(7, true), at(3));
    assert!(shown(&rig).0 && order_of(&exit).is_none());
    rig.registry.learn(row((presence.session_id >> 8) + 1, false), at(4));
    assert_eq!(order_of(&exit), Some(Cause::Replaced));
    assert_eq!(shown(&rig), (true, Some("b".into()), 1));
    assert_eq!(kinds(&rig), [(Kind::Replaced, Some("replaced".into()))]);
    // Its connection is over only now: nobody is shown offline by that.
    rig.registry.leave(&presence, Cause::Replaced, at(5));
    assert_eq!(shown(&rig), (true, Some("b".into()), 1));
    assert_eq!(kinds(&rig), []);
}

#[test]
fn own_row_changes_nothing_but_that_it_was_taken_for_lost() {
    let rig = node();
    rig.come(1, 4000, 1);
    rig.stored();
    let own = rig.registry.get(imei(1)).unwrap().device.unwrap();
    rig.registry.learn(own.clone(), at(2));
    assert!(rig.stored().is_empty());
    let mut lost = own.clone();
    lost.session.ended = Some(Ended { at_ms: 5, cause: "node_lost".into() });
    rig.registry.learn(lost.clone(), at(3));
    let told = rig.stored();
    assert_eq!(told.devices, [own], "told anew");
    assert_eq!(told.events[0].cause.as_deref(), Some("node_back"));
    assert!(shown(&rig).0);
    // Once the session is over, no row of it brings it back.
    let (presence, _) = rig.come(1, 4001, 4);
    let again = rig.registry.get(imei(1)).unwrap().device.unwrap();
    rig.registry.leave(&presence, Cause::Idle, at(5));
    rig.registry.learn(again, at(6));
    assert_eq!(shown(&rig), (false, None, 0));
}

#[test]
fn lost_node_takes_its_sessions_along() {
    let rig = node();
    rig.registry.learn(row(7, false), at(1));
    rig.come(0, 4000, 1);
    rig.stored();
    assert_eq!(rig.registry.lose_node(OTHER, at(9)), 1);
    assert_eq!(rig.registry.lose_node(OTHER, at(10)), 0);
    let told = rig.stored();
    assert_eq!((told.devices.len(), told.events.len()), (1, 1));
    assert_eq!((told.events[0].kind, told.events[0].cause.as_deref()), (Kind::Offline, Some("node_lost")));
    assert_eq!(shown(&rig), (false, None, 1));
    // It is heard again.
    rig.registry.learn(row(7, false), at(11));
    assert_eq!(shown(&rig), (true, Some("b".into()), 2));
}

#[test]
fn ghosts_are_only_what_this_node_left_behind() {
    let mut own = row(7, false);
    own.imei = imei(2);
    own.session.id = 6 << 8 | u64::from(NODE);
    let fleet = Fleet { node: Some(NODE), devices: vec![row(7, false), own], ..Fleet::default() };
    let rig = Rig::with(fleet, Register::Open);
    assert_eq!(kinds(&rig), [(Kind::Offline, Some("server_stopped".into()))]);
    assert!(shown(&rig).0 && !rig.registry.get(imei(2)).unwrap().online);
}

#[test]
fn what_changed_lately_here_is_told_again() {
    let rig = node();
    rig.registry.learn(row(7, false), at(100));
    rig.come(0, 4000, 1);
    let (presence, _) = rig.come(2, 4000, 2);
    rig.stored();
    let told = |seconds| {
        rig.registry.tell_again(Duration::from_secs(10), at(seconds));
        rig.stored().devices.into_iter().map(|device| device.imei).collect::<Vec<_>>()
    };
    assert_eq!(told(5), [imei(0), imei(2)], "not what another node holds");
    assert_eq!(told(12), [imei(2)]);
    assert_eq!(told(13), []);
    rig.registry.leave(&presence, Cause::Idle, at(20));
    rig.stored();
    assert_eq!(told(21), [imei(2)]);
}
