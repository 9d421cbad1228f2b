//! The store in a SQLite file.
//!
//! The file is in WAL mode: readers and the writer do not wait for each other. Commits are synchronous (FULL), one for each
//! batch, so a crash of the server (or `kill -9`) costs what had not been handed over yet, and a power loss costs nothing
//! that was committed, provided that the disk keeps its word; neither damages the file. Events stay below a fixed number:
//! each batch takes as many of the oldest away as it adds beyond that.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, params};

use moorline_protocol::Imei;
use tracing::info;

use super::rows::{self, Text};
use super::schema::{self, STEPS, SchemaError};
use super::{
    Batch, EventPage, EventQuery, Fleet, Hour, Retention, Settings, Slot, Store, StoreError, StoredEvent,
    backup,
};
use crate::clock::Now;

/// Another program that looks into the file may hold it for a moment.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// Keeps one batch short when the retention was lowered by much.
const MAX_PRUNED: u64 = 16_384;

/// A fleet in a file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    retention: Retention,
    /// Closed first: only a connection that may write takes the journal away when it is the last.
    reader: Mutex<Connection>,
    writer: Mutex<Writing>,
}

#[derive(Debug)]
struct Writing {
    connection: Connection,
    held: Held,
}

/// How many events there are, counted once and then kept up.
#[derive(Clone, Copy, Debug)]
struct Held {
    sessions: u64,
    refusals: u64,
}

impl Sqlite {
    /// Opens the file, makes it when there is none, and brings an older one to this version, once a copy of it is kept.
    ///
    /// # Errors
    /// The file is of no use, or cannot be opened. It is left as it is.
    pub fn open(path: &Path, retention: Retention, now: Now) -> Result<Self, StoreError> {
        create_private(path)?;
        let explain = |fault| explain(path, &fault);
        let mut connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(explain)?;
        // Before anything is changed: the journal's mode is part of the file.
        connection.busy_timeout(BUSY).map_err(explain)?;
        backup::keep_journal(&connection, true).map_err(explain)?;
        bring_up(&mut connection, path, now)?;
        backup::keep_journal(&connection, false).map_err(explain)?;
        let held = set_up_writer(&connection).map_err(explain)?;
        let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(explain)?;
        reader.busy_timeout(BUSY).map_err(explain)?;
        reader.pragma_update(None, "cache_size", -READERS_CACHE_KIB).map_err(explain)?;
        Ok(Self {
            path: path.to_owned(),
            retention,
            reader: Mutex::new(reader),
            writer: Mutex::new(Writing { connection, held }),
        })
    }

    /// Takes in what a fleet that several servers share holds, its events under the ids that they have there; those that
    /// are here already are passed over.
    ///
    /// # Errors
    /// The file cannot be written; it holds what it held before.
    pub(crate) fn follow(&self, batch: &Batch, events: &[StoredEvent]) -> Result<(), StoreError> {
        apply(&mut self.writer(), batch, events, self.retention).map_err(|fault| explain(&self.path, &fault))
    }

    /// The disk is full when the file has so many pages.
    #[cfg(test)]
    pub(crate) fn limit_pages(&self, pages: i64) {
        self.writer().connection.pragma_update(None, "max_page_count", pages).unwrap();
    }

    fn writer(&self) -> MutexGuard<'_, Writing> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Sqlite {
    fn load(&self) -> Result<Fleet, StoreError> {
        load(&self.reader()).map_err(|fault| explain(&self.path, &fault))
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        apply(&mut self.writer(), batch, &[], self.retention).map_err(|fault| explain(&self.path, &fault))
    }

    fn keep(&self, settings: &[(Imei, Settings)]) -> Result<(), StoreError> {
        keep(&mut self.writer().connection, settings).map_err(|fault| explain(&self.path, &fault))
    }

    fn backup(&self, now: Now) -> Result<PathBuf, StoreError> {
        backup::keep(&self.path, now)
    }

    fn events(&self, query: &EventQuery) -> Result<EventPage, StoreError> {
        events(&self.reader(), query).map_err(|fault| explain(&self.path, &fault))
    }

    fn hours(&self, imei: Imei, since_ms: i64) -> Result<Vec<Hour>, StoreError> {
        rows::history::hours(&self.reader(), imei, since_ms).map_err(|fault| explain(&self.path, &fault))
    }

    fn slots(&self, since_ms: i64) -> Result<Vec<Slot>, StoreError> {
        rows::history::slots(&self.reader(), since_ms).map_err(|fault| explain(&self.path, &fault))
    }
}

/// SQLite gives its companion files the same mode. Who talks to whom is nobody else's business.
pub(crate) fn create_private(path: &Path) -> Result<(), StoreError> {
    let created = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    created
        .map(drop)
        .map_err(|fault| StoreError::Failed(format!("{}: cannot be opened: {fault}", path.display())))
}

/// Pages that the writer keeps, and the reader; the kernel keeps the file's in any case, and gives them up when memory runs short.
const WRITERS_CACHE_KIB: i64 = 512;
const READERS_CACHE_KIB: i64 = 2000;

/// Brings an older file to this version. One that is damaged is seen before that, and is left as it is.
fn bring_up(connection: &mut Connection, path: &Path, now: Now) -> Result<(), StoreError> {
    let found = schema::version_of(connection).map_err(|fault| explain_schema(path, fault))?;
    if found > 0 {
        backup::quick_check(connection, path)?;
    }
    if (1..STEPS.len()).contains(&found) {
        let older = backup::keep_older(path, found, now)?;
        info!("{} is of version {found}: it is kept as {}", path.display(), older.display());
    }
    schema::migrate(connection, STEPS).map_err(|fault| explain_schema(path, fault))
}

fn set_up_writer(connection: &Connection) -> rusqlite::Result<Held> {
    connection.pragma_update(None, "cache_size", -WRITERS_CACHE_KIB)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // The log grows in a storm; afterwards it is cut back to this.
    connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    let count = |is_refusal: bool| -> rusqlite::Result<u64> {
        let query = "SELECT count(*) FROM events WHERE is_refusal = ?1";
        connection.query_row(query, [is_refusal], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
    };
    Ok(Held { sessions: count(false)?, refusals: count(true)? })
}

fn load(connection: &Connection) -> rusqlite::Result<Fleet> {
    let devices = connection
        .prepare("SELECT * FROM devices")?
        .query_map((), rows::device)?
        .collect::<Result<_, _>>()?;
    let settings = connection
        .prepare("SELECT * FROM settings")?
        .query_map((), rows::settings)?
        .collect::<Result<_, _>>()?;
    let reports = connection
        .prepare("SELECT * FROM reports")?
        .query_map((), rows::history::report)?
        .collect::<Result<_, _>>()?;
    let next: i64 = connection.query_row("SELECT next_id FROM sessions", (), |row| row.get(0))?;
    Ok(Fleet { devices, settings, reports, next_session_id: next.cast_unsigned(), node: None })
}

fn keep(connection: &mut Connection, settings: &[(Imei, Settings)]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (imei, settings) in settings {
        rows::put_settings(&transaction, *imei, settings)?;
    }
    transaction.commit()
}

fn apply(
    writing: &mut Writing,
    batch: &Batch,
    numbered: &[StoredEvent],
    retention: Retention,
) -> rusqlite::Result<()> {
    let transaction = writing.connection.transaction()?;
    let mut held = writing.held;
    for device in &batch.devices {
        rows::put_device(&transaction, device)?;
    }
    for (imei, settings) in &batch.settings {
        rows::put_settings(&transaction, *imei, settings)?;
    }
    for (imei, report) in &batch.reports {
        rows::history::put_report(&transaction, *imei, report)?;
    }
    for slot in &batch.slots {
        rows::history::put_slot(&transaction, *slot)?;
        let history_ms = i64::try_from(retention.history.as_millis()).unwrap_or(i64::MAX);
        rows::history::prune(&transaction, slot.at_ms.saturating_sub(history_ms), MAX_PRUNED.cast_signed())?;
    }
    let numbered = numbered.iter().map(|StoredEvent { id, event }| (event, Some(*id)));
    for (event, id) in batch.events.iter().map(|event| (event, None)).chain(numbered) {
        let line = if event.kind.is_refusal() { &mut held.refusals } else { &mut held.sessions };
        *line += u64::from(rows::put_event(&transaction, event, id)?);
    }
    if let Some(next) = batch.next_session_id {
        transaction.execute("UPDATE sessions SET next_id = ?1", [next.cast_signed()])?;
    }
    held.sessions -= prune(&transaction, false, held.sessions, retention.sessions)?;
    held.refusals -= prune(&transaction, true, held.refusals, retention.refusals)?;
    transaction.commit()?;
    writing.held = held;
    Ok(())
}

fn prune(transaction: &Transaction<'_>, is_refusal: bool, held: u64, most: u64) -> rusqlite::Result<u64> {
    let excess = held.saturating_sub(most).min(MAX_PRUNED);
    if excess == 0 {
        return Ok(0);
    }
    let deleted = transaction
        .prepare_cached(
            "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE is_refusal = ?1 ORDER BY id LIMIT ?2)",
        )?
        .execute(params![is_refusal, excess.cast_signed()])?;
    Ok(deleted as u64)
}

fn events(connection: &Connection, query: &EventQuery) -> rusqlite::Result<EventPage> {
    // One snapshot for both answers.
    let snapshot = connection.unchecked_transaction()?;
    let newest = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'";
    let newest = snapshot.query_row(newest, (), |row| row.get(0))?;
    let of_device = if query.imei.is_some() { "imei = ?1" } else { "?1 IS NULL" };
    let order = if query.after.is_some() { "ASC" } else { "DESC" };
    let mut events: Vec<_> = snapshot
        .prepare_cached(&format!(
            "SELECT * FROM events WHERE {of_device} AND id > ?2 ORDER BY id {order} LIMIT ?3"
        ))?
        .query_map(
            params![
                query.imei.map(Text),
                query.after.unwrap_or(0),
                i64::try_from(query.limit).unwrap_or(i64::MAX)
            ],
            rows::event,
        )?
        .collect::<Result<_, _>>()?;
    if query.after.is_none() {
        events.reverse();
    }
    Ok(EventPage { events, newest })
}

pub(super) fn explain_schema(path: &Path, fault: SchemaError) -> StoreError {
    let shown = path.display();
    match fault {
        SchemaError::Sqlite(fault) => explain(path, &fault),
        SchemaError::Foreign => StoreError::Unusable(format!(
            "{shown}: this is the database of another program: name another file in [store] path"
        )),
        SchemaError::Newer { found, known } => StoreError::Unusable(format!(
            "{shown}: a newer moorline-server made this file (version {found}, and this one knows {known}): \
             run that one, or put a backup of the older file in its place"
        )),
    }
}

/// SQLite's faults in words, with what to do.
pub(super) fn explain(path: &Path, fault: &rusqlite::Error) -> StoreError {
    let shown = path.display();
    let what_to_do =
        "move it away to begin with an empty fleet, or put a backup in its place; nothing was changed";
    match fault.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            StoreError::Unusable(format!("{shown}: this is not a database: {what_to_do}"))
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            StoreError::Unusable(format!("{shown}: the database is damaged ({fault}): {what_to_do}"))
        }
        Some(ErrorCode::DiskFull) => {
            StoreError::Failed(format!("{shown}: the disk is full: make room on it"))
        }
        Some(ErrorCode::ReadOnly) => StoreError::Failed(format!(
            "{shown}: the file or its folder cannot be written: it belongs to another user, or its disk is read-only"
        )),
        Some(ErrorCode::CannotOpen) => StoreError::Failed(format!(
            "{shown}: cannot be opened ({fault}): its folder must be writable, for its journal lies beside it"
        )),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Failed(format!("{shown}: another program holds the file locked"))
        }
        Some(_) => StoreError::Failed(format!("{shown}: {fault}")),
        None => StoreError::Unusable(format!(
            "{shown}: the database holds what it should not ({fault}): {what_to_do}"
        )),
    }
}

#[cfg(test)]
mod tests;
