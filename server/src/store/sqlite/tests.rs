//! What every store promises, tried on both, and what a file can do to a program.

use std::fs;
use std::num::NonZeroU32;

use moorline_protocol::Status;
use tempfile::TempDir;

use super::*;
use crate::clock;
use crate::expiry::Remaining;
use crate::session::Bounds;
use crate::store::history::HOUR_MS;
use crate::store::samples::{EVERYTHING, device, event, events, imei};
use crate::store::{Hold, HoldKind, Kind, Memory, Report, Span};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("fleet.db")
    }

    fn open(&self) -> Result<Sqlite, StoreError> {
        Sqlite::open(&self.file(), Retention::default(), clock::now())
    }
}

fn on_both(retention: Retention, check: impl Fn(&dyn Store)) {
    let folder = Folder::new();
    check(&Sqlite::open(&folder.file(), retention, clock::now()).unwrap());
    check(&Memory::new(retention));
}

fn ids(store: &dyn Store, query: &EventQuery) -> Vec<i64> {
    store.events(query).unwrap().events.iter().map(|stored| stored.id).collect()
}

#[test]
fn batch_comes_back_as_it_went_in() {
    on_both(Retention::default(), |store| {
        let batch = Batch {
            devices: (0..3).map(device).collect(),
            events: vec![event(0, Kind::Refused), event(1, Kind::Online)],
            next_session_id: Some(4711),
            ..Batch::default()
        };
        store.apply(&batch).unwrap();
        let fleet = store.load().unwrap();
        assert_eq!((fleet.devices, fleet.next_session_id), (batch.devices, 4711));
        let page = store.events(&EVERYTHING).unwrap();
        let told: Vec<_> = page.events.into_iter().map(|stored| stored.event).collect();
        assert_eq!((told, page.newest), (batch.events, 2));
    });
}

#[test]
fn device_row_is_replaced_whole() {
    on_both(Retention::default(), |store| {
        store.apply(&Batch { devices: vec![device(1)], ..Batch::default() }).unwrap();
        let mut changed = device(1);
        (changed.certificate, changed.session.ended) = (None, device(2).session.ended);
        store.apply(&Batch { devices: vec![changed.clone()], ..Batch::default() }).unwrap();
        assert_eq!(store.load().unwrap().devices, [changed]);
    });
}

/// The `n`th revision, with all there is in those that are even.
fn settings(revision: u32) -> Settings {
    let whole = revision.is_multiple_of(2);
    Settings {
        revision,
        hold: whole.then(|| Hold { kind: HoldKind::Quarantined, since_ms: 7, reason: "two".into() }),
        label: whole.then(|| "harbour crane 3".into()),
        added_ms: whole.then_some(8),
        bounds: Bounds { min_s: NonZeroU32::new(revision), max_s: whole.then_some(NonZeroU32::MAX) },
    }
}

#[test]
fn newest_decision_is_kept_whole_whichever_way_it_comes() {
    on_both(Retention::default(), |store| {
        let kept = || store.load().unwrap().settings.into_iter().collect::<Vec<_>>();
        store.keep(&[(imei(1), settings(2)), (imei(2), settings(1))]).unwrap();
        assert_eq!(kept(), [(imei(1), settings(2)), (imei(2), settings(1))]);
        store.apply(&Batch { settings: vec![(imei(1), settings(3))], ..Batch::default() }).unwrap();
        // Neither an older one nor the device itself takes its place.
        store.apply(&Batch { settings: vec![(imei(1), settings(2))], ..Batch::default() }).unwrap();
        store.keep(&[(imei(1), settings(1))]).unwrap();
        store.apply(&Batch { devices: vec![device(1)], ..Batch::default() }).unwrap();
        assert_eq!(kept(), [(imei(1), settings(3)), (imei(2), settings(1))]);
    });
}

#[test]
fn history_is_kept_in_hours_and_for_as_long_as_is_wanted() {
    const DAY: i64 = 24 * HOUR_MS;
    let retention = Retention { history: Duration::from_secs(2 * 24 * 60 * 60), ..Retention::default() };
    on_both(retention, |store| {
        let report = |at_ms, signal_dbm| Report { status: Status { signal_dbm, ..Status::default() }, at_ms };
        let told = |at_ms, signal_dbm| {
            let reports = vec![(imei(1), report(at_ms, signal_dbm))];
            store.apply(&Batch { reports, ..Batch::default() }).unwrap();
        };
        let slot = |at_ms| {
            let slots = vec![Slot { at_ms, online: 1, ..Slot::default() }];
            store.apply(&Batch { slots, ..Batch::default() }).unwrap();
        };
        for (at, signal) in [(0, None), (1, Some(-80)), (2, Some(-100)), (3, None), (HOUR_MS, Some(-70))] {
            told(at, signal);
        }
        let spans = |since| -> Vec<_> {
            store.hours(imei(1), since).unwrap().into_iter().map(|hour| (hour.at_ms, hour.signal)).collect()
        };
        let [first, second] = [
            (3, Some(Span { last: -100, min: -100, max: -80 })),
            (HOUR_MS, Some(Span { last: -70, min: -70, max: -70 })),
        ];
        assert_eq!(spans(0), [first, second]);
        assert_eq!(spans(HOUR_MS), [second]);
        assert_eq!(store.hours(imei(2), 0).unwrap(), []);
        slot(0);
        slot(2 * DAY);
        assert_eq!((spans(0).len(), store.slots(0).unwrap().len()), (2, 2));
        slot(2 * DAY + HOUR_MS);
        assert_eq!(spans(0), [second]);
        assert_eq!(
            store.slots(0).unwrap().iter().map(|slot| slot.at_ms).collect::<Vec<_>>(),
            [2 * DAY, 2 * DAY + HOUR_MS]
        );
        // The last word stays, however old it is.
        slot(9 * DAY);
        assert_eq!(spans(0), []);
        assert_eq!(store.load().unwrap().reports[&imei(1)], report(HOUR_MS, Some(-70)));
    });
}

#[test]
fn empty_store_begins_with_session_one() {
    on_both(Retention::default(), |store| assert_eq!(store.load().unwrap().next_session_id, 1));
}

#[test]
fn events_are_paged_by_id_and_device() {
    on_both(Retention::default(), |store| {
        let events = [1, 2, 1, 2, 1].map(|n| event(n, Kind::Online)).to_vec();
        store.apply(&Batch { events, ..Batch::default() }).unwrap();
        let query = |after, n: Option<usize>, limit| EventQuery { after, imei: n.map(imei), limit };
        assert_eq!(ids(store, &query(Some(2), None, 2)), [3, 4]);
        assert_eq!(ids(store, &query(Some(1), Some(1), 9)), [3, 5]);
        assert_eq!(ids(store, &query(None, None, 2)), [4, 5]);
        assert_eq!(ids(store, &query(None, Some(2), 1)), [4]);
        assert_eq!(ids(store, &query(Some(5), None, 9)), [0; 0]);
        assert_eq!(ids(store, &query(Some(i64::MAX), None, 9)), [0; 0]);
    });
}

#[test]
fn oldest_events_go_and_no_id_comes_again() {
    on_both(Retention { sessions: 3, refusals: 2, ..Retention::default() }, |store| {
        store.apply(&events(&[Kind::Online; 5])).unwrap();
        store.apply(&events(&[Kind::Refused; 4])).unwrap();
        assert_eq!(ids(store, &EVERYTHING), [3, 4, 5, 8, 9]);
        store.apply(&events(&[Kind::Offline])).unwrap();
        assert_eq!(ids(store, &EVERYTHING), [4, 5, 8, 9, 10]);
        assert_eq!(store.events(&EVERYTHING).unwrap().newest, 10);
    });
}

#[test]
fn reopened_file_goes_on_where_it_was() {
    let folder = Folder::new();
    let batch = Batch { devices: vec![device(1)], next_session_id: Some(9), ..events(&[Kind::Online; 3]) };
    folder.open().unwrap().apply(&batch).unwrap();
    let again = Sqlite::open(
        &folder.file(),
        Retention { sessions: 2, refusals: 0, ..Retention::default() },
        clock::now(),
    )
    .unwrap();
    assert_eq!(again.load().unwrap().next_session_id, 9);
    again.apply(&events(&[Kind::Offline])).unwrap();
    assert_eq!(ids(&again, &EVERYTHING), [3, 4]);
}

#[test]
fn reader_does_not_wait_for_the_writer() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    store.apply(&events(&[Kind::Online])).unwrap();
    let mut writing = store.writer();
    let transaction = writing.connection.transaction().unwrap();
    rows::put_event(&transaction, &event(1, Kind::Offline), None).unwrap();
    assert_eq!(ids(&store, &EVERYTHING), [1]);
    transaction.commit().unwrap();
    assert_eq!(ids(&store, &EVERYTHING), [1, 2]);
}

#[test]
fn full_disk_loses_nothing_that_was_stored() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    store.apply(&events(&[Kind::Online])).unwrap();
    store.limit_pages(1);
    let refused = store.apply(&events(&[Kind::Offline; 1000])).unwrap_err();
    assert!(refused.to_string().ends_with("fleet.db: the disk is full: make room on it"), "{refused}");
    assert_eq!(ids(&store, &EVERYTHING), [1]);
    store.limit_pages(100_000);
    store.apply(&events(&[Kind::Offline])).unwrap();
    assert_eq!(ids(&store, &EVERYTHING), [1, 2]);
}

#[test]
fn file_of_the_first_version_is_still_read() {
    let folder = Folder::new();
    let old = Connection::open(folder.file()).unwrap();
    old.execute_batch(include_str!("../v1.sql")).unwrap();
    old.execute_batch(
        "INSERT INTO devices VALUES ('869731052403821', NULL, '0.1.0', '', 1, 2, 3, 4, '[::1]:5', 'classic', '1.2',
            NULL, NULL, NULL, '0a', 'CN=Fleet CA', 6);
        INSERT INTO events (at, kind, is_refusal) VALUES (1, 'online', 0);
        UPDATE sessions SET next_id = 4;
        PRAGMA application_id = 0x6d6f6f72; PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);
    let store = folder.open().unwrap();
    let fleet = store.load().unwrap();
    assert_eq!((fleet.devices.len(), fleet.next_session_id), (1, 4));
    assert_eq!(fleet.devices[0].session.address.to_string(), "[::1]:5");
    assert_eq!(ids(&store, &EVERYTHING), [1]);
    // What came with later versions is there.
    let told = fleet.devices[0].certificate.as_ref().map(|certificate| certificate.told);
    assert_eq!(told, Some(Remaining::Later));
    assert!(fleet.settings.is_empty());
    store.keep(&[(imei(2), settings(2))]).unwrap();
    drop(store);
    assert_eq!(folder.open().unwrap().load().unwrap().settings[&imei(2)], settings(2));
}

#[test]
fn bounds_of_the_second_version_are_still_read() {
    let folder = Folder::new();
    let old = Connection::open(folder.file()).unwrap();
    for step in [include_str!("../v1.sql"), include_str!("../v2.sql")] {
        old.execute_batch(step).unwrap();
    }
    old.execute_batch(
        "INSERT INTO heartbeat_bounds VALUES ('869731052403821', 60, NULL);
        PRAGMA application_id = 0x6d6f6f72; PRAGMA user_version = 2;",
    )
    .unwrap();
    drop(old);
    let fleet = folder.open().unwrap().load().unwrap();
    let bounds = Bounds { min_s: NonZeroU32::new(60), max_s: None };
    // As it was, it is still there.
    let kept: Vec<_> = fs::read_dir(folder.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("fleet.db.v2-"))
        .collect();
    assert_eq!(kept.len(), 1);
    let count = "SELECT count(*) FROM heartbeat_bounds";
    let older = Connection::open(&kept[0]).unwrap().query_row(count, (), |row| row.get::<_, i64>(0));
    assert_eq!(older, Ok(1));
    assert_eq!(fleet.settings[&imei(2)], Settings { revision: 1, bounds, ..Settings::default() });
}

fn refusal_of(bytes: &[u8]) -> String {
    let folder = Folder::new();
    fs::write(folder.file(), bytes).unwrap();
    let refused = folder.open().unwrap_err();
    assert!(matches!(refused, StoreError::Unusable(_)), "{refused}");
    assert_eq!(fs::read(folder.file()).unwrap(), bytes, "the file was touched");
    refused.to_string()
}

#[test]
fn garbage_is_refused_in_words_and_left_alone() {
    let refused = refusal_of(&[0x5a; 10_000]);
    assert!(refused.contains("fleet.db: this is not a database: move it away"), "{refused}");
}

#[test]
fn damaged_database_is_refused_in_words_and_left_alone() {
    let folder = Folder::new();
    folder.open().unwrap().apply(&events(&[Kind::Online; 500])).unwrap();
    let mut bytes = fs::read(folder.file()).unwrap();
    bytes[100..4096].fill(0xff);
    let refused = refusal_of(&bytes);
    assert!(refused.contains("fleet.db: the database is damaged"), "{refused}");
}

#[test]
fn truncated_database_is_refused_in_words() {
    let folder = Folder::new();
    folder.open().unwrap().apply(&events(&[Kind::Online; 500])).unwrap();
    let bytes = fs::read(folder.file()).unwrap();
    let refused = refusal_of(&bytes[..6000]);
    assert!(refused.contains("fleet.db: the database is damaged"), "{refused}");
}

#[test]
fn database_of_another_program_is_refused_in_words() {
    let folder = Folder::new();
    Connection::open(folder.file()).unwrap().execute_batch("CREATE TABLE recipes (name)").unwrap();
    let refused = refusal_of(&fs::read(folder.file()).unwrap());
    assert!(refused.contains("this is the database of another program"), "{refused}");
}

#[test]
fn newer_database_is_refused_in_words() {
    let folder = Folder::new();
    drop(folder.open().unwrap());
    let newer = Connection::open(folder.file()).unwrap();
    newer.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA user_version = 7").unwrap();
    drop(newer);
    let refused = refusal_of(&fs::read(folder.file()).unwrap());
    assert!(
        refused.contains("a newer moorline-server made this file (version 7, and this one knows 5)"),
        "{refused}"
    );
}

#[test]
fn row_that_makes_no_sense_is_named() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    store.apply(&Batch { devices: vec![device(1)], ..Batch::default() }).unwrap();
    store.writer().connection.execute("UPDATE devices SET protocol = 'morse'", ()).unwrap();
    let refused = store.load().unwrap_err().to_string();
    assert!(refused.contains("column protocol holds \"morse\""), "{refused}");
}

#[test]
fn missing_folder_is_named() {
    let folder = Folder::new();
    let missing = folder.0.path().join("missing").join("fleet.db");
    let refused = Sqlite::open(&missing, Retention::default(), clock::now()).unwrap_err().to_string();
    let wanted = format!("{}: cannot be opened: No such file", missing.display());
    assert!(refused.starts_with(&wanted), "{refused}");
}

#[test]
fn file_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let _store = folder.open().unwrap();
    for name in ["fleet.db", "fleet.db-wal"] {
        let mode = fs::metadata(folder.0.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn what_is_kept_of_the_file_in_memory_is_bounded() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    let kib = |connection: &Connection| -> i64 {
        connection.pragma_query_value(None, "cache_size", |row| row.get(0)).unwrap()
    };
    // Below zero it is KiB, and else pages.
    assert_eq!((kib(&store.writer().connection), kib(&store.reader())), (-512, -2000));
}
