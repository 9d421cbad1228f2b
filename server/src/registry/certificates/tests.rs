//! What the registry promises of certificates that lose their worth.

use std::sync::Arc;

use super::super::tests::{Rig, address, at, imei, order_of, peer, registration};
use super::*;
use crate::exit::Exit;

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
