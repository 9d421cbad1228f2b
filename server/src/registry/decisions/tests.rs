//! What the registry promises of what is decided of devices.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::super::tests::{Rig, at, imei, order_of, peer, registration};
use super::super::{Counts, Filter};
use super::*;
use crate::config::Register;
use crate::exit::Exit;
use crate::store::Fleet;

fn decide(rig: &Rig, n: usize, edit: impl FnOnce(&mut Settings), seconds: i64) {
    let mut settings = rig.registry.settings(imei(n)).unwrap();
    settings.revision += 1;
    edit(&mut settings);
    rig.registry.decide(imei(n), settings, at(seconds)).unwrap();
}

fn up_to(max_s: u32) -> Bounds {
    Bounds { min_s: None, max_s: NonZeroU32::new(max_s) }
}

fn blocked(reason: &str) -> Option<Hold> {
    Some(Hold { kind: HoldKind::Blocked, since_ms: 5, reason: reason.into() })
}

#[test]
fn bounds_end_a_native_session_and_hold_for_the_next() {
    let rig = Rig::new();
    let (_, standing) = rig.come(1, 4000, 1);
    rig.stored();
    decide(&rig, 1, |settings| settings.bounds = up_to(30), 2);
    assert_eq!(order_of(&standing), Some(Cause::Dropped));
    let told = rig.stored().events;
    assert_eq!(told[0].kind, Kind::HeartbeatSet);
    assert_eq!(told[0].text.as_deref(), Some("its longest silence is granted up to 30 s"));
    let (_, next) = rig.come(1, 4001, 3);
    let shown = rig.registry.get(imei(1)).unwrap();
    assert_eq!((shown.settings.bounds, shown.device.unwrap().session.heartbeat_s), (up_to(30), Some(30)));
    decide(&rig, 1, |settings| settings.bounds = Bounds::NONE, 4);
    assert_eq!(order_of(&next), Some(Cause::Dropped));
    rig.come(1, 4002, 5);
    assert_eq!(rig.registry.get(imei(1)).unwrap().device.unwrap().session.heartbeat_s, Some(60));
}

#[test]
fn bounds_leave_classic_sessions_alone() {
    let rig = Rig::new();
    let (_, standing) = rig.come(0, 4000, 1);
    decide(&rig, 0, |settings| settings.bounds = up_to(30), 2);
    assert_eq!(order_of(&standing), None);
}

#[test]
fn blocked_device_is_sent_away_and_kept_out_until_it_is_released() {
    for n in 0..2 {
        let rig = Rig::new();
        let (_, standing) = rig.come(n, 4000, 1);
        rig.stored();
        decide(&rig, n, |settings| settings.hold = blocked("stolen"), 2);
        assert_eq!(order_of(&standing), Some(Cause::Held));
        assert_eq!(rig.come_or_not(n, 4001, 3).err(), Some(Rejection::Blocked));
        decide(&rig, n, |settings| settings.label = Some("crane".into()), 4);
        assert_eq!(rig.come_or_not(n, 4002, 5).err(), Some(Rejection::Blocked));
        decide(&rig, n, |settings| settings.hold = None, 6);
        rig.come(n, 4003, 7);
        let told: Vec<_> = rig.stored().events.into_iter().map(|event| (event.kind, event.text)).collect();
        assert_eq!(told[0], (Kind::Blocked, Some("an operator blocked it: stolen".into())));
        let kinds: Vec<_> = told.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Kind::Blocked, Kind::Labelled, Kind::Released, Kind::Replaced, Kind::Online]);
    }
}

/// Two operators, or an operator and the registry itself.
#[test]
fn decision_that_does_not_know_of_the_last_one_is_none() {
    let rig = Rig::new();
    rig.come(1, 4000, 1);
    let next = Settings { revision: 1, hold: blocked(""), ..Settings::default() };
    assert_eq!(rig.registry.decide(imei(1), next.clone(), at(2)), Ok(()));
    let other = Settings { hold: None, ..next.clone() };
    assert_eq!(rig.registry.decide(imei(1), other, at(3)), Err(Outdated));
    assert_eq!(rig.registry.get(imei(1)).unwrap().settings, next);
}

#[test]
fn what_was_decided_outlives_the_server() {
    let settings = [(imei(1), Settings { revision: 3, hold: blocked("stolen"), ..Settings::default() })];
    let rig = Rig::with(Fleet { settings: settings.into(), ..Fleet::default() }, Register::Open);
    assert_eq!(rig.come_or_not(1, 4000, 1).err(), Some(Rejection::Blocked));
    rig.come(2, 4001, 2);
    let counts = Counts { known: 2, online: 1, blocked: 1, quarantined: 0, never_seen: 1 };
    assert_eq!(rig.registry.counts(), counts);
}

#[test]
fn added_devices_are_known_before_they_come() {
    let rig = Rig::with(Fleet::default(), Register::Known);
    assert_eq!(rig.come_or_not(1, 4000, 1).err(), Some(Rejection::UnknownDevice));
    let added = Settings { revision: 1, added_ms: Some(9), ..Settings::default() };
    rig.registry.add(vec![(imei(0), added.clone()), (imei(1), added)], at(2));
    assert_eq!(rig.stored().events.last().unwrap().text.as_deref(), Some("an operator added 2 devices"));
    let never = Filter { seen: Some(false), ..Filter::default() };
    assert_eq!(rig.registry.list(&never, None, 9).total, 2);
    rig.come(1, 4001, 3);
    rig.come(1, 4002, 4);
    assert_eq!((rig.registry.counts().known, rig.registry.counts().never_seen), (2, 1));
    let all = rig.registry.list(&Filter::default(), None, 9);
    let seen: Vec<_> = all.devices.iter().map(|shown| (shown.imei, shown.device.is_some())).collect();
    assert_eq!((seen, all.total), (vec![(imei(0), false), (imei(1), true)], 2));
    assert_eq!(rig.registry.list(&never, None, 9).total, 1);
}

#[test]
fn copied_key_keeps_both_out() {
    let rig = Rig::new();
    let come = |boot: u8, port, seconds| {
        let registration = Registration { boot_id: Some([boot; 16]), ..registration(1) };
        let exit = Arc::new(Exit::default());
        let came = rig.registry.register(registration, peer(1, port), Arc::clone(&exit), None, at(seconds));
        (came, exit)
    };
    come(1, 4000, 1).0.unwrap();
    let (second, standing) = come(2, 4001, 2);
    second.unwrap();
    rig.stored();
    assert_eq!(come(1, 4002, 3).0.err(), Some(Rejection::Quarantined));
    assert_eq!(order_of(&standing), Some(Cause::Held));
    assert_eq!(come(2, 4003, 4).0.err(), Some(Rejection::Quarantined));
    let stored = rig.stored();
    assert_eq!(stored.events[0].kind, Kind::Quarantined);
    let text = stored.events[0].text.as_deref().unwrap();
    assert!(text.contains("a key was copied") && text.contains(":4002") && text.contains(":4001"), "{text}");
    assert_eq!(stored.settings[0].1.hold.as_ref().map(|hold| hold.kind), Some(HoldKind::Quarantined));
    assert_eq!(rig.registry.counts().quarantined, 1);
    // An operator who lets it in again believes what comes next.
    decide(&rig, 1, |settings| settings.hold = None, 5);
    come(1, 4004, 6).0.unwrap();
    assert_eq!(rig.registry.counts().quarantined, 0);
}
