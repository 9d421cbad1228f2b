//! What the registry promises, seen through its methods and through what it has the store told.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use moorline_protocol::Status;

use super::*;
use crate::clock;
use crate::session::Wish;
use crate::store::{Batch, Fleet, SLOT_MS};

const IMEIS: [&str; 3] = ["004999010640000", "015184008301272", "869731052403821"];

pub(super) fn imei(n: usize) -> Imei {
    IMEIS[n].parse().unwrap()
}

pub(super) fn at(seconds: i64) -> Now {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(|| clock::now().instant);
    Now { instant: *START + Duration::from_secs(seconds as u64), utc_ms: 1_764_000_000_000 + seconds * 1000 }
}

pub(super) fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub(super) fn registration(n: usize) -> Registration {
    Registration {
        imei: imei(n),
        app_id: Some([7; 16]),
        agent_version: "0.1.0".try_into().unwrap(),
        modem: "Quectel EC25".try_into().unwrap(),
        boot_id: Some([1; 16]),
        heartbeat: Some(Wish {
            wanted: Duration::from_secs(60),
            min: Duration::from_secs(10),
            max: Duration::from_secs(1800),
        }),
    }
}

pub(super) fn peer(n: usize, port: u16) -> Peer {
    Peer {
        address: address(port),
        dialect: if n == 0 { Dialect::Classic } else { Dialect::Native },
        tls: "1.3",
        certificate: Certificate {
            serial: format!("0a{n}"),
            issuer: "CN=Fleet CA".into(),
            subject: String::new(),
            not_before_ms: 0,
            not_after_ms: 2_000_000_000_000,
            imei: Ok(imei(n)),
        },
    }
}

fn report(signal_dbm: i16) -> Status {
    Status { signal_dbm: Some(signal_dbm), ..Status::default() }
}

#[test]
fn last_report_is_shown_also_after_the_session() {
    let rig = Rig::new();
    let (presence, _) = rig.come(1, 4000, 1);
    let shown = || rig.registry.get(imei(1)).unwrap().report.map(|report| (report.status, report.at_ms));
    assert_eq!(shown(), None);
    rig.registry.report(&presence, report(-80), at(2));
    rig.registry.report(&presence, report(-70), at(3));
    assert_eq!(shown(), Some((report(-70), at(3).utc_ms)));
    rig.registry.leave(&presence, Cause::Idle, at(4));
    rig.come(1, 4001, 5);
    assert_eq!(shown(), Some((report(-70), at(3).utc_ms)));
}

#[test]
fn reports_are_stored_once_a_minute_and_outlive_the_server() {
    let rig = Rig::new();
    let (presence, _) = rig.come(1, 4000, 1);
    let stored = || rig.stored().reports;
    rig.registry.report(&presence, report(-80), at(100));
    assert_eq!(stored(), [(imei(1), Report { status: report(-80), at_ms: at(100).utc_ms })]);
    for second in 101..160 {
        rig.registry.report(&presence, report(-70), at(second));
    }
    assert_eq!(stored(), []);
    rig.registry.report(&presence, report(-60), at(160));
    let last = stored();
    assert_eq!(last.len(), 1);
    let devices = vec![rig.registry.get(imei(1)).unwrap().device.unwrap()];
    let fleet = Fleet { devices, reports: last.clone().into_iter().collect(), ..Fleet::default() };
    let next = Rig::with(fleet, Register::Open);
    assert_eq!(next.registry.get(imei(1)).unwrap().report, Some(last[0].1.clone()));
}

#[test]
fn what_happens_is_counted_in_slots() {
    let rig = Rig::new();
    let (presence, _) = rig.come(1, 4000, 1);
    rig.come(2, 4000, 1);
    rig.registry.leave(&presence, Cause::Idle, at(2));
    rig.stored();
    rig.registry.save_slot(at(3));
    let begun = at(3).utc_ms - at(3).utc_ms % SLOT_MS;
    assert_eq!(rig.stored().slots, [Slot { at_ms: begun, online: 1, came: 2, went: 1, refused: 0 }]);
    // What was told is told once; what comes of the same five minutes while the store is slow is one.
    rig.registry.save_slot(at(4));
    rig.come(1, 4001, 5);
    rig.registry.save_slot(at(6));
    rig.registry.save_slot(at(300));
    let slots = rig.stored().slots;
    assert_eq!(slots[0], Slot { at_ms: begun, online: 2, came: 1, went: 0, refused: 0 });
    assert_eq!(slots[1], Slot { at_ms: begun + SLOT_MS, online: 2, ..Slot::default() });
}

pub(super) struct Rig {
    pub(super) registry: Registry,
    queue: Arc<Queue>,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(Fleet::default(), Register::Open)
    }

    pub(super) fn with(fleet: Fleet, register: Register) -> Self {
        let queue = Arc::new(Queue::new());
        let registry = Registry::new(fleet, register, Arc::clone(&queue), Arc::new(Metrics::new()), at(0));
        Self { registry, queue }
    }

    pub(super) fn come(&self, n: usize, port: u16, seconds: i64) -> (Arc<Presence>, Arc<Exit>) {
        self.come_or_not(n, port, seconds).unwrap()
    }

    pub(super) fn come_or_not(
        &self,
        n: usize,
        port: u16,
        seconds: i64,
    ) -> Result<(Arc<Presence>, Arc<Exit>), Rejection> {
        let exit = Arc::new(Exit::default());
        let came =
            self.registry.register(registration(n), peer(n, port), Arc::clone(&exit), None, at(seconds));
        came.map(|presence| (presence, exit))
    }

    pub(super) fn stored(&self) -> Batch {
        self.queue.take()
    }

    fn kinds(&self) -> Vec<Kind> {
        self.stored().events.iter().map(|event| event.kind).collect()
    }
}

pub(super) fn order_of(exit: &Exit) -> Option<Cause> {
    use std::task::{Context, Poll, Waker};
    let mut ordered = std::pin::pin!(exit.ordered());
    match ordered.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(order) => Some(order.cause),
        Poll::Pending => None,
    }
}

#[test]
fn newest_session_wins_at_once() {
    let rig = Rig::new();
    let (older, older_exit) = rig.come(1, 1000, 0);
    let (newer, newer_exit) = rig.come(1, 2000, 5);
    assert!(newer.session_id > older.session_id);
    assert_eq!(order_of(&older_exit), Some(Cause::Replaced));
    assert_eq!(order_of(&newer_exit), None);
    assert_eq!(rig.registry.online(), 1);
    assert_eq!(rig.registry.get(imei(1)).unwrap().device.unwrap().session.address, address(2000));
    assert_eq!(rig.kinds(), [Kind::Online, Kind::Replaced, Kind::Online]);
}

#[test]
fn replaced_session_that_leaves_takes_nobody_off() {
    let rig = Rig::new();
    let (older, _) = rig.come(1, 1000, 0);
    let (newer, _) = rig.come(1, 2000, 5);
    rig.stored();
    rig.registry.leave(&older, Cause::Replaced, at(6));
    assert!(rig.registry.get(imei(1)).unwrap().online);
    assert!(rig.kinds().is_empty());
    rig.registry.leave(&newer, Cause::Idle, at(7));
    assert!(!rig.registry.get(imei(1)).unwrap().online);
    assert_eq!(rig.registry.online(), 0);
    assert_eq!(rig.kinds(), [Kind::Offline]);
}

#[test]
fn leaving_twice_counts_once() {
    let rig = Rig::new();
    let (presence, _) = rig.come(1, 1000, 0);
    rig.registry.leave(&presence, Cause::Closed, at(1));
    rig.registry.leave(&presence, Cause::Closed, at(2));
    assert_eq!(rig.registry.online(), 0);
    assert_eq!(rig.kinds(), [Kind::Online, Kind::Offline]);
}

#[test]
fn offline_event_says_when_and_why() {
    let rig = Rig::new();
    let (presence, _) = rig.come(1, 1000, 0);
    presence.heard(at(40));
    rig.registry.leave(&presence, Cause::Idle, at(190));
    let stored = rig.stored();
    let event = stored.events.last().unwrap();
    assert_eq!((event.at_ms, event.session_id), (at(190).utc_ms, Some(presence.session_id)));
    assert_eq!(event.cause.as_deref(), Some("idle"));
    assert_eq!(event.text.as_deref(), Some("it was silent for too long"));
    let device = stored.devices.first().unwrap();
    assert_eq!(device.last_seen_ms, at(40).utc_ms);
    assert_eq!(device.session.ended, Some(Ended { at_ms: at(190).utc_ms, cause: "idle".into() }));
}

#[test]
fn classic_device_that_registers_later_keeps_its_session() {
    let rig = Rig::new();
    let exit = Arc::new(Exit::default());
    let unregistered = Registration { app_id: None, heartbeat: None, boot_id: None, ..registration(0) };
    let first = rig.registry.register(unregistered, peer(0, 1000), Arc::clone(&exit), None, at(0)).unwrap();
    let second = rig
        .registry
        .register(registration(0), peer(0, 1000), Arc::clone(&exit), Some(Arc::clone(&first)), at(1))
        .unwrap();
    assert_eq!(first.session_id, second.session_id);
    assert_eq!(order_of(&exit), None);
    assert_eq!(rig.registry.get(imei(0)).unwrap().device.unwrap().app_id, Some([7; 16]));
    assert_eq!(rig.kinds(), [Kind::Online]);
}

#[test]
fn connection_that_registers_as_another_gives_the_former_up() {
    let rig = Rig::new();
    let (former, exit) = rig.come(0, 1000, 0);
    let presence = rig
        .registry
        .register(registration(1), peer(1, 1000), Arc::clone(&exit), Some(former), at(1))
        .unwrap();
    assert_eq!((presence.imei, rig.registry.online()), (imei(1), 1));
    assert_eq!(order_of(&exit), None);
    assert_eq!(rig.kinds(), [Kind::Online, Kind::Offline, Kind::Online]);
}

#[test]
fn app_id_outlives_a_session_that_does_not_say_it() {
    let rig = Rig::new();
    let (presence, _) = rig.come(0, 1000, 0);
    rig.registry.leave(&presence, Cause::Lost, at(1));
    let silent = Registration { app_id: None, ..registration(0) };
    rig.registry.register(silent, peer(0, 1001), Arc::default(), None, at(2)).unwrap();
    let shown = rig.registry.get(imei(0)).unwrap().device.unwrap();
    assert_eq!((shown.app_id, shown.first_seen_ms), (Some([7; 16]), at(0).utc_ms));
}

#[test]
fn known_policy_refuses_strangers() {
    let teacher = Rig::new();
    teacher.come(1, 1000, 0);
    let fleet = Fleet { devices: teacher.stored().devices, next_session_id: 5, ..Fleet::default() };
    let rig = Rig::with(fleet, Register::Known);
    let strange = rig.registry.register(registration(2), peer(2, 1000), Arc::default(), None, at(1));
    assert_eq!(strange.unwrap_err(), Rejection::UnknownDevice);
    assert_eq!(rig.registry.counts().known, 1);
    rig.come(1, 1000, 2);
    assert_eq!(rig.registry.online(), 1);
}

#[test]
fn nobody_stays_online_as_a_ghost() {
    let died = Rig::new();
    died.come(1, 1000, 0);
    let fleet = Fleet { devices: died.stored().devices, next_session_id: 2, ..Fleet::default() };
    let rig = Rig::with(fleet, Register::Open);
    let shown = rig.registry.get(imei(1)).unwrap();
    assert!(!shown.online);
    let stored = rig.stored();
    let event = stored.events.first().unwrap();
    assert_eq!((event.kind, event.cause.as_deref()), (Kind::Offline, Some("server_stopped")));
    assert!(stored.devices.first().unwrap().session.ended.is_some());
}

#[test]
fn fleet_that_the_last_server_left_is_expected_back() {
    let died = Rig::new();
    let stays: Vec<_> = (0..3).map(|n| died.come(n, 1000, 0)).collect();
    // One went by itself, long before the end.
    died.registry.leave(&stays[0].0, Cause::Idle, at(5));
    died.registry.leave(&stays[1].0, Cause::Stopping, at(6));
    assert_eq!((died.registry.online(), died.registry.most_online()), (1, 3));
    let rig = Rig::with(
        Fleet { devices: died.stored().devices, next_session_id: 4, ..Fleet::default() },
        Register::Open,
    );
    assert_eq!((rig.registry.online(), rig.registry.most_online()), (0, 2));
    rig.come(1, 1000, 10);
    assert_eq!(rig.registry.most_online(), 2);
}

#[test]
fn session_ids_begin_after_those_of_the_store() {
    let rig =
        Rig::with(Fleet { devices: Vec::new(), next_session_id: 4_711, ..Fleet::default() }, Register::Open);
    assert_eq!(rig.stored().next_session_id, Some(4_711 + RESERVED_IDS));
    assert_eq!(rig.come(1, 1000, 0).0.session_id, 4_711);
    assert_eq!(rig.stored().next_session_id, None);
}

#[test]
fn unused_ids_are_given_back_at_the_end() {
    let rig = Rig::new();
    rig.come(1, 1000, 0);
    rig.registry.release_ids();
    assert_eq!(rig.stored().next_session_id, Some(2));
    rig.come(1, 1001, 1);
    assert_eq!(rig.stored().next_session_id, Some(3 + RESERVED_IDS));
}

#[test]
fn reservation_stays_ahead_of_the_ids_in_use() {
    let rig = Rig::new();
    let mut reserved = rig.stored().next_session_id.unwrap();
    for seconds in 0..(RESERVED_IDS as i64 * 6 / 5) {
        let (presence, _) = rig.come(1, 1000, seconds);
        reserved = rig.stored().next_session_id.unwrap_or(reserved);
        assert!(presence.session_id < reserved);
    }
}

#[test]
fn refusals_become_events() {
    let rig = Rig::new();
    rig.stored();
    let certificate = peer(1, 1).certificate;
    for reason in ["expired", "identity_mismatch"] {
        let refused =
            Refused { address: address(9), imei: None, certificate: Some(&certificate), reason, text: "why" };
        rig.registry.refused(refused, at(1));
    }
    let stored = rig.stored();
    let told: Vec<_> =
        stored.events.iter().map(|event| (event.kind, event.cause.as_deref().unwrap())).collect();
    assert_eq!(told, [(Kind::Refused, "expired"), (Kind::IdentityMismatch, "identity_mismatch")]);
    assert_eq!(stored.events[0].certificate.as_deref(), Some("0a1"));
}

#[test]
fn long_sessions_have_last_seen_saved_now_and_then() {
    let rig = Rig::new();
    let (presence, _) = rig.come(1, 1000, 0);
    rig.stored();
    presence.heard(at(599));
    rig.registry.save_last_seen(at(599));
    assert!(rig.stored().is_empty());
    presence.heard(at(600));
    rig.registry.save_last_seen(at(601));
    rig.registry.save_last_seen(at(602));
    let stored = rig.stored();
    assert_eq!(stored.devices.iter().map(|device| device.last_seen_ms).collect::<Vec<_>>(), [at(600).utc_ms]);
}

#[test]
fn pages_join_to_the_whole() {
    let rig = Rig::new();
    for n in [2, 0, 1] {
        rig.come(n, 1000, 0);
    }
    let first = rig.registry.list(&Filter::default(), None, 2);
    assert_eq!((first.devices.len(), first.next, first.total), (2, Some(imei(1)), 3));
    let second = rig.registry.list(&Filter::default(), first.next, 2);
    assert_eq!((second.devices.len(), second.next, second.total), (1, None, 3));
    assert_eq!(second.devices[0].imei, imei(2));
    let exact = rig.registry.list(&Filter::default(), None, 3);
    assert_eq!((exact.devices.len(), exact.next), (3, None));
}

#[test]
fn filters_are_all_obeyed() {
    let rig = Rig::new();
    let gone = rig.come(0, 1000, 0).0;
    rig.come(1, 2000, 0);
    rig.come(2, 3000, 0);
    rig.registry.leave(&gone, Cause::Closed, at(1));
    let found = |filter: Filter| {
        let page = rig.registry.list(&filter, None, 10);
        assert_eq!(page.total, page.devices.len());
        page.devices.iter().map(|shown| shown.imei).collect::<Vec<_>>()
    };
    assert_eq!(found(Filter { online: Some(false), ..Filter::default() }), [imei(0)]);
    assert_eq!(found(Filter { online: Some(true), ..Filter::default() }), [imei(1), imei(2)]);
    assert_eq!(found(Filter { dialect: Some(Dialect::Classic), ..Filter::default() }), [imei(0)]);
    for (text, expected) in
        [("0151840", vec![1]), (":3000", vec![2]), ("0a0", vec![0]), ("ec25", vec![0, 1, 2])]
    {
        let expected: Vec<_> = expected.into_iter().map(imei).collect();
        assert_eq!(found(Filter { search: Some(text.to_owned()), ..Filter::default() }), expected, "{text}");
    }
}

#[test]
fn filtered_pages_count_what_lies_before_them() {
    let rig = Rig::new();
    for n in 0..3 {
        rig.come(n, 1000, 0);
    }
    let online = Filter { online: Some(true), ..Filter::default() };
    let page = rig.registry.list(&online, Some(imei(0)), 1);
    assert_eq!((page.total, page.next, page.devices.len()), (3, Some(imei(1)), 1));
}

#[test]
fn presence_is_as_lean_as_the_module_says() {
    assert!(size_of::<Presence>() + 2 * size_of::<usize>() <= 40);
    assert!(size_of::<Option<Online>>() <= 16);
}
