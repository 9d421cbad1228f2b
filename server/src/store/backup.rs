//! Copies of the fleet's file: made while the server runs, made before an older file is brought to this version, and put in
//! the file's place again. A file that is there is never written over.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::sqlite::{BUSY, explain, explain_schema};
use super::{StoreError, schema};
use crate::clock::Now;

/// Writes all that the file at `from` holds, as it is at one moment, to `to`, which is not there yet. Whoever reads or writes
/// `from` is not waited for, nor made to wait.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    if to.exists() {
        return Err(StoreError::Failed(format!(
            "{}: it is there already, and is left as it is",
            to.display()
        )));
    }
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|source| source.busy_timeout(BUSY).map(|()| source))
        .map_err(|fault| explain(from, &fault))?;
    let name = to.to_str().ok_or_else(|| {
        StoreError::Failed(format!("{}: this name is not UTF-8, which SQLite asks for", to.display()))
    })?;
    let copied = source
        .execute("VACUUM INTO ?1", [name])
        .map_err(|fault| explain(to, &fault))
        .and_then(|_| make_private(to));
    if copied.is_err() {
        // What is there is half a copy of our own.
        let _ = fs::remove_file(to);
    }
    copied
}

/// Whether the file is a fleet's, of a version that this program knows, and whole.
///
/// # Errors
/// It is not, in words.
pub(super) fn check(path: &Path) -> Result<(), StoreError> {
    let explain = |fault| explain(path, &fault);
    let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(explain)?;
    let found = schema::version_of(&file).map_err(|fault| explain_schema(path, fault))?;
    if found == 0 {
        return Err(StoreError::Unusable(format!("{}: there is nothing in it", path.display())));
    }
    quick_check(&file, path)
}

/// Reads every page, so that damage shows before anything is changed.
pub(super) fn quick_check(file: &Connection, path: &Path) -> Result<(), StoreError> {
    let found: String = file
        .query_row("PRAGMA quick_check(1)", (), |row| row.get(0))
        .map_err(|fault| explain(path, &fault))?;
    if found == "ok" {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "{}: the database is damaged ({}): put a backup in its place (moorline-server restore), or move it away to begin \
         with an empty fleet; nothing was changed",
        path.display(),
        found.lines().next_back().unwrap_or_default()
    )))
}

/// Puts a backup in the place of the fleet's file, which is kept under another name. Returns that name, where there was a file.
///
/// # Errors
/// A server runs on the file, or the backup is of no use, or the disk does not let itself be used. Then all is as it was.
pub fn restore(backup: &Path, path: &Path, now: Now) -> Result<Option<PathBuf>, StoreError> {
    check(backup)?;
    let before = path.exists().then(|| beside(path, "before-restore", now));
    let fresh = beside(path, "restored", now);
    copy(backup, &fresh)?;
    let moved = match &before {
        Some(before) => ensure_closed(path).and_then(|()| move_whole(path, before)),
        None => Ok(()),
    };
    let put = moved.and_then(|()| rename(&fresh, path));
    if put.is_err() {
        // A copy of our own.
        let _ = fs::remove_file(&fresh);
    }
    put.map(|()| before)
}

/// A copy of the file as it is, beside it. Returns where.
pub(super) fn keep(path: &Path, now: Now) -> Result<PathBuf, StoreError> {
    let kept = beside(path, "backup", now);
    copy(path, &kept).map(|()| kept)
}

/// Keeps an older file as it is, before it is brought to this version. Returns where.
pub(super) fn keep_older(path: &Path, version: usize, now: Now) -> Result<PathBuf, StoreError> {
    let older = beside(path, &format!("v{version}"), now);
    copy(path, &older).map(|()| older)
}

/// Whether SQLite leaves the journal as it is when this connection closes, instead of writing what it holds into the file: a
/// damaged file is nobody's to write to.
pub(super) fn keep_journal(connection: &Connection, kept: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, kept).map(drop)
}

/// A name beside the file's that says what it is and since when.
fn beside(path: &Path, what: &str, now: Now) -> PathBuf {
    let time = jiff::Timestamp::from_millisecond(now.utc_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let mut name = path.file_name().map_or_else(OsString::new, ToOwned::to_owned);
    name.push(format!(".{what}-{}", time.strftime("%Y%m%dT%H%M%SZ")));
    path.with_file_name(name)
}

/// Sees that nobody has the file open. One that is damaged has nobody to open it.
///
/// # Errors
/// Somebody has.
pub(crate) fn ensure_closed(path: &Path) -> Result<(), StoreError> {
    let locked = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(|file| {
        keep_journal(&file, true)?;
        file.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT")
    });
    match locked.map_err(|fault| fault.sqlite_error_code()) {
        Err(Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)) => {
            Err(StoreError::Failed(format!("{}: a server has it open: stop it first", path.display())))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// With its journal, which would damage another file of the same name.
fn move_whole(from: &Path, to: &Path) -> Result<(), StoreError> {
    for companion in ["-wal", "-shm", ""] {
        let [from, to] = [from, to].map(|path| {
            let mut name = path.as_os_str().to_owned();
            name.push(companion);
            PathBuf::from(name)
        });
        if companion.is_empty() || from.exists() {
            rename(&from, &to)?;
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    let sync_folder = || match to.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    };
    fs::rename(from, to).and_then(|()| sync_folder()).map_err(|fault| {
        StoreError::Failed(format!("{} cannot be renamed to {}: {fault}", from.display(), to.display()))
    })
}

fn make_private(path: &Path) -> Result<(), StoreError> {
    let private = fs::File::open(path).and_then(|file| {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.sync_all()
    });
    private.map_err(|fault| StoreError::Failed(format!("{}: {fault}", path.display())))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::clock;
    use crate::store::samples::{device, events};
    use crate::store::{Batch, Kind, Retention, Sqlite, Store as _};

    fn folder() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fleet.db");
        (folder, file)
    }

    fn open(path: &Path) -> Sqlite {
        Sqlite::open(path, Retention::default(), clock::now()).unwrap()
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn backup_of_a_running_fleet_is_restored_and_what_was_there_is_kept() {
        let (folder, file) = folder();
        let running = open(&file);
        running.apply(&Batch { devices: vec![device(1)], ..events(&[Kind::Online]) }).unwrap();
        let backup = running.backup(clock::now()).unwrap();
        assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
        running.apply(&Batch { devices: vec![device(2)], ..Batch::default() }).unwrap();
        let refused = restore(&backup, &file, clock::now()).unwrap_err().to_string();
        assert!(refused.ends_with("fleet.db: a server has it open: stop it first"), "{refused}");
        assert_eq!(running.load().unwrap().devices.len(), 2);
        drop(running);
        let before = restore(&backup, &file, clock::now()).unwrap().unwrap();
        assert_eq!(open(&file).load().unwrap().devices, [device(1)]);
        assert_eq!(open(&before).load().unwrap().devices.len(), 2);
        assert!(names(&folder).iter().all(|name| !name.contains("restored")), "{:?}", names(&folder));
    }

    #[test]
    fn journal_of_a_killed_server_damages_nothing() {
        let (_folder, file) = folder();
        let killed = open(&file);
        killed.apply(&Batch { devices: vec![device(1)], ..Batch::default() }).unwrap();
        let backup = killed.backup(clock::now()).unwrap();
        killed.apply(&Batch { devices: vec![device(2)], ..Batch::default() }).unwrap();
        // As it is after kill -9: nobody has it open, and the journal holds what the file lacks.
        let [left, journal] = ["left.db", "left.db-wal"].map(|name| file.with_file_name(name));
        fs::copy(&file, &left).unwrap();
        fs::copy(file.with_file_name("fleet.db-wal"), &journal).unwrap();
        let before = restore(&backup, &left, clock::now()).unwrap().unwrap();
        assert_eq!(open(&left).load().unwrap().devices, [device(1)]);
        assert_eq!(open(&before).load().unwrap().devices.len(), 2);
    }

    #[test]
    fn what_is_no_backup_is_not_restored() {
        let (folder, file) = folder();
        open(&file).apply(&Batch { devices: vec![device(1)], ..Batch::default() }).unwrap();
        let wrong = folder.path().join("wrong.db");
        let whole = fs::read(&file).unwrap();
        let mut damaged = whole.clone();
        damaged[4096 * 3..4096 * 4].fill(0xff);
        for (bytes, why) in [
            (&b""[..], "there is nothing in it"),
            (b"not a database, and long enough to be looked at as one, which takes a hundred bytes or so: dear dear me", "is not a database"),
            (&whole[..whole.len() / 2], "the database is damaged"),
            (&damaged, "the database is damaged"),
        ] {
            fs::write(&wrong, bytes).unwrap();
            let refused = restore(&wrong, &file, clock::now()).unwrap_err().to_string();
            assert!(refused.contains("wrong.db: ") && refused.contains(why), "{why}: {refused}");
            assert_eq!(open(&file).load().unwrap().devices, [device(1)]);
        }
        let missing = restore(&folder.path().join("missing.db"), &file, clock::now());
        assert!(missing.is_err());
        let left: Vec<_> = names(&folder).into_iter().filter(|name| !name.starts_with("wrong.db")).collect();
        assert_eq!(left, ["fleet.db"]);
    }

    /// As it is when a server was killed and its disk has lost half of the file: the journal is whole.
    #[test]
    fn damaged_file_is_not_written_to_when_it_is_looked_at() {
        let (folder, file) = folder();
        let killed = open(&file);
        killed.apply(&Batch { devices: (0..3).map(device).collect(), ..Batch::default() }).unwrap();
        let [left, journal] = ["left.db", "left.db-wal"].map(|name| file.with_file_name(name));
        let bytes = fs::read(&file).unwrap();
        fs::write(&left, &bytes[..bytes.len() / 2]).unwrap();
        fs::copy(file.with_file_name("fleet.db-wal"), &journal).unwrap();
        let before = [&left, &journal].map(|path| fs::read(path).unwrap());
        assert!(Sqlite::open(&left, Retention::default(), clock::now()).is_err());
        assert_eq!([&left, &journal].map(|path| fs::read(path).unwrap()), before);
        drop(folder);
    }

    #[test]
    fn damaged_file_makes_place_for_a_backup() {
        let (folder, file) = folder();
        let running = open(&file);
        running.apply(&Batch { devices: vec![device(1)], ..Batch::default() }).unwrap();
        let backup = running.backup(clock::now()).unwrap();
        drop(running);
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        let before = restore(&backup, &file, clock::now()).unwrap().unwrap();
        assert_eq!(open(&file).load().unwrap().devices, [device(1)]);
        assert_eq!(fs::read(before).unwrap(), &bytes[..bytes.len() / 2]);
        drop(folder);
    }

    #[test]
    fn copy_writes_over_nothing() {
        let (folder, file) = folder();
        drop(open(&file));
        let there = folder.path().join("there.db");
        fs::write(&there, "dear to somebody").unwrap();
        assert!(copy(&file, &there).is_err());
        assert_eq!(fs::read_to_string(&there).unwrap(), "dear to somebody");
    }
}
