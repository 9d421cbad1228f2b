//! What happened and is not in NATS yet, on this node's disk, so that it outlives the node: in the order in which it is to be
//! told, and bounded as the queue in memory is. It knows no NATS and decides nothing.
//!
//! A row takes the place of an older one under the same key, at the end of the order: events that come before it in a batch
//! are before it here.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moorline_protocol::Imei;
use rusqlite::{Connection, OpenFlags, Transaction, params};
use tracing::warn;

use super::wire::{self, Held, Row};
use crate::store::{Batch, Event, MAX_EVENTS, MAX_REFUSALS, StoreError, create_private};

/// A number is never given twice, so that what was told is removed by its number and what came meanwhile is not.
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS waiting (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        line   INTEGER NOT NULL,  -- 0: a row, 1: an event, 2: a refusal
        key    TEXT UNIQUE,       -- of a row, as in the bucket
        value  BLOB NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS waiting_by_line ON waiting (line, number);";
const ROW: u8 = 0;
const EVENT: u8 = 1;
const REFUSAL: u8 = 2;

/// How much is told at once: what a batch of the queue has.
const CHUNK: usize = 8192;
/// Another program that looks into the file may hold it for a moment.
const BUSY: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Spool {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// How much waits.
    held: AtomicUsize,
    /// How many events were given up.
    lost: AtomicU64,
}

/// The oldest of what waits.
pub(super) struct Spooled {
    pub(super) batch: Batch,
    /// None of it has a higher number.
    pub(super) last: i64,
}

impl Spool {
    /// Opens the file, and makes it when there is none.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        create_private(path)?;
        let open = || {
            let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
            connection.execute_batch(SCHEMA)?;
            let held = count(&connection, ROW..=REFUSAL)?;
            Ok((connection, held))
        };
        let (connection, held) = open().map_err(|fault: rusqlite::Error| {
            StoreError::Unusable(format!(
                "{}: {fault}: what waits in it to be told is not; move it away to begin without",
                path.display()
            ))
        })?;
        Ok(Self {
            path: path.to_owned(),
            connection: Mutex::new(connection),
            held: AtomicUsize::new(held),
            lost: AtomicU64::new(0),
        })
    }

    /// Takes a batch in, behind all that waits: it is on the disk when this returns. Returns the number of its last row. Events
    /// that are too many are given up, the oldest first.
    pub(super) fn put(&self, batch: &Batch) -> Result<i64, StoreError> {
        self.change(|transaction| {
            for event in &batch.events {
                insert(transaction, line_of(event), None, &wire::write_event(event))?;
            }
            for device in &batch.devices {
                let row = Row { device: device.clone(), returned: 0 };
                put_row(transaction, "device", device.imei, &wire::write_device(&row))?;
            }
            for (imei, settings) in &batch.settings {
                put_row(transaction, "settings", *imei, &wire::write_settings(settings))?;
            }
            for (imei, report) in &batch.reports {
                put_row(transaction, "report", *imei, &wire::write_report(report))?;
            }
            let last = transaction.last_insert_rowid();
            let lost = prune(transaction, EVENT, MAX_EVENTS)? + prune(transaction, REFUSAL, MAX_REFUSALS)?;
            self.lost.fetch_add(lost as u64, Ordering::Relaxed);
            Ok(last)
        })
    }

    /// The oldest of what waits, as much as is told at once; `None` when nothing does.
    pub(super) fn oldest(&self) -> Result<Option<Spooled>, StoreError> {
        self.read(CHUNK)
    }

    /// All rows that wait, without events.
    pub(super) fn rows(&self) -> Result<Batch, StoreError> {
        let spooled = self.read(usize::MAX)?;
        Ok(spooled.map_or_else(Batch::default, |spooled| Batch { events: Vec::new(), ..spooled.batch }))
    }

    /// The events up to this number are told.
    pub(super) fn remove_events(&self, last: i64) -> Result<(), StoreError> {
        self.change(|transaction| {
            let remove = "DELETE FROM waiting WHERE number <= ?1 AND line <> ?2";
            transaction.execute(remove, params![last, ROW]).map(drop)
        })
    }

    /// All up to this number is told.
    pub(super) fn remove(&self, last: i64) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction.execute("DELETE FROM waiting WHERE number <= ?1", [last]).map(drop)
        })
    }

    /// The rows of these devices are not to be told.
    pub(super) fn remove_devices(&self, imeis: &[Imei]) -> Result<(), StoreError> {
        self.change(|transaction| {
            for imei in imeis {
                transaction.execute("DELETE FROM waiting WHERE key = ?1", [key("device", *imei)])?;
            }
            Ok(())
        })
    }

    /// How much waits.
    pub(super) fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How many events were given up since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn read(&self, most: usize) -> Result<Option<Spooled>, StoreError> {
        let connection = self.lock();
        let read = || {
            let mut statement = connection
                .prepare_cached("SELECT number, key, value FROM waiting ORDER BY number LIMIT ?1")?;
            let mut found = statement.query([i64::try_from(most).unwrap_or(i64::MAX)])?;
            let mut spooled: Option<Spooled> = None;
            while let Some(row) = found.next()? {
                let (number, key): (i64, Option<String>) = (row.get(0)?, row.get(1)?);
                let value: Vec<u8> = row.get(2)?;
                let spooled = spooled.get_or_insert_with(|| Spooled { batch: Batch::default(), last: 0 });
                spooled.last = number;
                let is_known = match key {
                    None => wire::read_event(&value).map(|event| spooled.batch.events.push(event)),
                    Some(key) => wire::read_held(&key, &value).map(|held| add_row(&mut spooled.batch, held)),
                };
                if is_known.is_none() {
                    warn!("{}: row {number} is none that this version knows", self.path.display());
                }
            }
            Ok(spooled)
        };
        read().map_err(|fault| self.failed(&fault))
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let changed = || {
            let transaction = connection.transaction()?;
            let changed = change(&transaction)?;
            let held = count(&transaction, ROW..=REFUSAL)?;
            transaction.commit()?;
            self.held.store(held, Ordering::Relaxed);
            Ok(changed)
        };
        changed().map_err(|fault| self.failed(&fault))
    }

    fn failed(&self, fault: &rusqlite::Error) -> StoreError {
        StoreError::Failed(format!("{}: {fault}", self.path.display()))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn line_of(event: &Event) -> u8 {
    if event.kind.is_refusal() { REFUSAL } else { EVENT }
}

fn key(kind: &str, imei: Imei) -> String {
    format!("{kind}.{imei}")
}

fn count(connection: &Connection, lines: RangeInclusive<u8>) -> rusqlite::Result<usize> {
    let count: i64 = connection
        .prepare_cached("SELECT count(*) FROM waiting WHERE line BETWEEN ?1 AND ?2")?
        .query_row([lines.start(), lines.end()], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or_default())
}

fn put_row(transaction: &Transaction<'_>, kind: &str, imei: Imei, value: &[u8]) -> rusqlite::Result<()> {
    insert(transaction, ROW, Some(&key(kind, imei)), value)
}

fn insert(transaction: &Transaction<'_>, line: u8, key: Option<&str>, value: &[u8]) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO waiting (line, key, value) VALUES (?1, ?2, ?3)")?
        .execute(params![line, key, value])
        .map(drop)
}

/// Returns how many are given up.
fn prune(transaction: &Transaction<'_>, line: u8, most: usize) -> rusqlite::Result<usize> {
    let excess = count(transaction, line..=line)?.saturating_sub(most);
    if excess == 0 {
        return Ok(0);
    }
    let oldest = "SELECT number FROM waiting WHERE line = ?1 ORDER BY number LIMIT ?2";
    transaction
        .execute(&format!("DELETE FROM waiting WHERE number IN ({oldest})"), params![line, excess as i64])
}

fn add_row(batch: &mut Batch, held: Held) {
    match held {
        Held::Device(row) => batch.devices.push(row.device),
        Held::Settings(imei, settings) => batch.settings.push((imei, settings)),
        Held::Report(imei, report) => batch.reports.push((imei, report)),
        Held::Other => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Kind, samples};

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(&folder.path().join("fleet.spool.db")).unwrap();
        (folder, spool)
    }

    fn events(kind: Kind, times: std::ops::Range<i64>) -> Batch {
        let events = times.map(|at_ms| Event { at_ms, ..samples::event(1, kind) });
        Batch { events: events.collect(), ..Batch::default() }
    }

    fn times(batch: &Batch) -> Vec<i64> {
        batch.events.iter().map(|event| event.at_ms).collect()
    }

    #[test]
    fn what_waits_is_there_after_a_kill_and_in_order() {
        let (folder, spool) = spool();
        let mut batch = events(Kind::Online, 0..2);
        batch.devices = vec![samples::device(1), samples::device(2)];
        spool.put(&batch).unwrap();
        let ended = crate::store::Device { imei: samples::imei(1), ..samples::device(2) };
        spool.put(&Batch { devices: vec![ended.clone()], ..events(Kind::Offline, 2..3) }).unwrap();
        // Not closed.
        std::mem::forget(spool);
        let spool = Spool::open(&folder.path().join("fleet.spool.db")).unwrap();
        let Spooled { batch, last } = spool.oldest().unwrap().unwrap();
        assert_eq!(times(&batch), [0, 1, 2]);
        assert_eq!(batch.devices, [samples::device(2), ended], "a row is there once, as it was last");
        assert_eq!(spool.len(), 5);
        spool.remove_events(last).unwrap();
        assert_eq!(spool.len(), 2);
        spool.remove(last).unwrap();
        assert!(spool.oldest().unwrap().is_none());
    }

    #[test]
    fn row_that_changed_while_it_was_told_stays() {
        let (_folder, spool) = spool();
        let device = samples::device(1);
        spool.put(&Batch { devices: vec![device.clone()], ..Batch::default() }).unwrap();
        let last = spool.oldest().unwrap().unwrap().last;
        let newer = crate::store::Device { last_seen_ms: 9, ..device };
        spool.put(&Batch { devices: vec![newer.clone()], ..Batch::default() }).unwrap();
        spool.remove(last).unwrap();
        assert_eq!(spool.rows().unwrap().devices, [newer]);
    }

    #[test]
    fn events_are_bounded_and_refusals_push_no_other_out() {
        let (_folder, spool) = spool();
        spool.put(&events(Kind::Online, 0..MAX_EVENTS as i64 + 3)).unwrap();
        assert_eq!((spool.len(), spool.lost()), (MAX_EVENTS, 3));
        spool.put(&events(Kind::Refused, 0..MAX_REFUSALS as i64 + 2)).unwrap();
        assert_eq!((spool.len(), spool.lost()), (MAX_EVENTS + MAX_REFUSALS, 5));
        assert_eq!(times(&spool.oldest().unwrap().unwrap().batch).first(), Some(&3));
    }

    #[test]
    fn damaged_file_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.spool.db");
        std::fs::write(&path, [7; 4096]).unwrap();
        let refused = Spool::open(&path).err().unwrap().to_string();
        assert!(refused.contains("move it away to begin without"), "{refused}");
    }
}
