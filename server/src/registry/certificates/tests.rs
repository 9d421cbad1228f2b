//! What the registry promises of certificates that lose their worth.

use std::sync::Arc;

use super::super::tests::{Rig, address, at, imei, order_of, peer, registration};
use super::*;
use crate::config::Register;
use crate::exit::Exit;
use crate::store::Fleet;

/// Comes with a certificate that expires then.
fn come_until(rig: &Rig, n: usize, not_after_ms: i64) -> Arc<Exit> {
    let exit = Arc::new(Exit::default());
    let mut peer = peer(n, 1000);
    peer.certificate.not_after_ms = not_after_ms;
    rig.registry.register(registration(n), peer, Arc::clone(&exit), None, at(0)).unwrap();
    exit
}

#[test]
fn expired_ones_go_and_the_next_are_found() {
    let rig = Rig::new();
    let ends = [at(10).utc_ms, at(20).utc_ms, at(30).utc_ms];
    let exits: Vec<_> = (0..3).map(|n| come_until(&rig, n, ends[n])).collect();
    let told = || exits.iter().map(|exit| order_of(exit)).collect::<Vec<_>>();
    let expired = Some(Cause::Expired);
    assert_eq!(rig.registry.end_expired(at(10)), 0);
    assert_eq!(told(), [None; 3]);
    assert_eq!(rig.registry.end_expired(at(11)), 1);
    assert_eq!(told(), [expired, None, None]);
    // One that is on its way out is not asked again.
    assert_eq!(rig.registry.end_expired(at(12)), 0);
    assert_eq!(rig.registry.end_expired(at(31)), 3);
    assert_eq!(told(), [expired; 3]);
}

#[test]
fn one_that_comes_later_and_ends_sooner_is_not_missed() {
    let rig = Rig::new();
    come_until(&rig, 0, at(100).utc_ms);
    rig.registry.end_expired(at(1));
    let exit = come_until(&rig, 1, at(5).utc_ms);
    assert_eq!(rig.registry.end_expired(at(6)), 1);
    assert_eq!(order_of(&exit), Some(Cause::Expired));
}

#[test]
fn revoked_ones_go_alone() {
    let rig = Rig::new();
    let exits: Vec<_> = (0..3).map(|n| rig.come(n, 1000, 0).1).collect();
    assert_eq!(rig.registry.end_revoked(|certificate| *certificate.serial == *"0a1"), 1);
    let told: Vec<_> = exits.iter().map(|exit| order_of(exit)).collect();
    assert_eq!(told, [None, Some(Cause::Revoked), None]);
}

#[test]
fn end_over_a_certificate_names_it() {
    let rig = Rig::new();
    for (cause, serial) in [(Cause::Revoked, Some("0a1")), (Cause::Expired, Some("0a1")), (Cause::Idle, None)]
    {
        let (presence, _) = rig.come(1, 1000, 0);
        rig.registry.leave(&presence, cause, at(1));
        let events = rig.stored().events;
        let gone = events.last().unwrap();
        assert_eq!((gone.cause.as_deref(), gone.certificate.as_deref()), (Some(cause.as_str()), serial));
        assert_eq!(gone.address, Some(address(1000)));
        assert_eq!(gone.imei, Some(imei(1)));
    }
}

const DAY: i64 = 24 * 60 * 60;

/// What was told of certificates that are about to expire: of whom, and how near.
fn told(rig: &Rig) -> Vec<(Imei, String)> {
    let events = rig.stored().events.into_iter().filter(|event| event.kind == Kind::CertificateExpiring);
    events.map(|event| (event.imei.unwrap(), event.cause.unwrap().to_string())).collect()
}

#[test]
fn end_is_told_twice_and_each_time_once() {
    let rig = Rig::new();
    come_until(&rig, 1, at(40 * DAY).utc_ms);
    let mut heard = Vec::new();
    for hour in 0..41 * 24 {
        rig.registry.look_at_expiry(10, at(hour * 3600));
        heard.extend(told(&rig).into_iter().map(|(_, cause)| (hour / 24, cause)));
    }
    assert_eq!(heard, [(10, "30d".to_owned()), (33, "7d".to_owned())]);
}

#[test]
fn certificate_that_comes_late_is_told_at_once_and_a_new_one_anew() {
    let rig = Rig::new();
    come_until(&rig, 1, at(20 * DAY).utc_ms);
    assert_eq!(told(&rig), [(imei(1), "30d".to_owned())]);
    // The same again, in another session.
    come_until(&rig, 1, at(20 * DAY).utc_ms);
    assert_eq!(told(&rig), []);
    let mut peer = peer(1, 1000);
    peer.certificate.serial = "0b".to_owned();
    peer.certificate.not_after_ms = at(5 * DAY).utc_ms;
    rig.registry.register(registration(1), peer, Arc::default(), None, at(0)).unwrap();
    let event =
        rig.stored().events.into_iter().find(|event| event.kind == Kind::CertificateExpiring).unwrap();
    assert_eq!((event.cause.as_deref(), event.certificate.as_deref()), (Some("7d"), Some("0b")));
    let text = event.text.unwrap();
    assert!(
        text.starts_with("its certificate ends on 20") && text.ends_with("in 5 days: issue a new one"),
        "{text}"
    );
}

#[test]
fn restart_tells_nothing_again() {
    let rig = Rig::new();
    come_until(&rig, 1, at(20 * DAY).utc_ms);
    let fleet = Fleet { devices: rig.stored().devices, next_session_id: 5, ..Fleet::default() };
    let next = Rig::with(fleet, Register::Open);
    next.registry.look_at_expiry(10, at(1));
    assert_eq!(told(&next), []);
    next.registry.look_at_expiry(10, at(14 * DAY));
    assert_eq!(told(&next), [(imei(1), "7d".to_owned())]);
}

#[test]
fn many_ends_at_once_are_told_a_few_at_a_time() {
    let rig = Rig::new();
    (0..3).for_each(|n| drop(come_until(&rig, n, at(31 * DAY).utc_ms)));
    let looks: Vec<_> = (0..3)
        .map(|_| {
            rig.registry.look_at_expiry(2, at(2 * DAY));
            told(&rig).len()
        })
        .collect();
    assert_eq!(looks, [2, 1, 0]);
}

#[test]
fn devices_are_counted_and_found_by_what_is_left() {
    use crate::expiry::{past, soon};
    use crate::registry::Filter;
    let rig = Rig::new();
    for (n, days) in [(0, 400), (1, 20), (2, 3)] {
        come_until(&rig, n, at(days * DAY).utc_ms);
    }
    let counts = |days| rig.registry.look_at_expiry(10, at(days * DAY)).map(|(_, count)| count);
    assert_eq!(counts(0), [1, 1, 1, 0]);
    assert_eq!(counts(4), [1, 1, 0, 1]);
    let found = |certificate_ends| {
        let filter = Filter { certificate_ends: Some(certificate_ends), ..Filter::default() };
        let devices = rig.registry.list(&filter, None, 10).devices;
        devices.into_iter().map(|shown| shown.imei).collect::<Vec<_>>()
    };
    assert_eq!(found(soon(at(4 * DAY).utc_ms)), [imei(1)]);
    assert_eq!(found(past(at(4 * DAY).utc_ms)), [imei(2)]);
    assert_eq!(found(soon(at(0).utc_ms)), [imei(1), imei(2)]);
}
