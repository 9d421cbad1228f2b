//! Where the posting stands: the id of the last event that needs no posting any more, in a file of its own beside the database,
//! or with the servers that share the fleet. The file is replaced at once or not at all, and is on the disk before the next
//! request.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tracing::warn;

/// How many events that nobody wants may be passed before that is kept.
const PASSED: i64 = 1000;

/// See the module.
pub(super) struct Cursor {
    place: Place,
    at: i64,
    kept: i64,
}

/// Where it is kept.
enum Place {
    File(PathBuf),
    Shared(Box<dyn SharedCursor>),
}

/// A cursor that several servers share, of which one posts at a time.
pub trait SharedCursor: Send {
    /// Whether it is this server's turn, and if so, how far all was posted. To be asked before each request.
    ///
    /// # Errors
    /// Where it is kept cannot be reached: in words.
    fn take(&mut self) -> Result<Option<i64>, String>;

    /// All is posted up to there.
    ///
    /// # Errors
    /// It cannot be kept, or it is another server's turn by now: in words.
    fn keep(&mut self, at: i64) -> Result<(), String>;
}

impl Cursor {
    /// Reads it, or begins behind `newest`, the newest event that the store ever gave.
    pub(super) fn open(path: &Path, newest: i64) -> Result<Self, String> {
        let shown = path.display();
        let at = match fs::read_to_string(path) {
            Ok(text) => text.trim().parse().map_err(|_| {
                format!(
                    "{shown}: does not say which event was posted last: remove it to begin with the next one"
                )
            })?,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => newest,
            Err(fault) => return Err(format!("{shown}: {fault}")),
        };
        if at > newest {
            warn!(
                "{shown} names event {at}, and the database knows none after {newest}: it is another one, or a backup"
            );
        }
        let mut cursor = Self { place: Place::File(path.to_owned()), at: at.min(newest), kept: i64::MIN };
        cursor.keep().map_err(|fault| format!("{shown}: cannot be written: {fault}"))?;
        Ok(cursor)
    }

    pub(super) fn shared(cursor: Box<dyn SharedCursor>) -> Self {
        Self { place: Place::Shared(cursor), at: 0, kept: 0 }
    }

    /// Whether it is this server's turn.
    pub(super) fn take(&mut self) -> Result<bool, String> {
        let Place::Shared(shared) = &mut self.place else { return Ok(true) };
        let Some(at) = shared.take()? else { return Ok(false) };
        (self.at, self.kept) = (at, at);
        Ok(true)
    }

    pub(super) const fn at(&self) -> i64 {
        self.at
    }

    pub(super) const fn advance(&mut self, to: i64) {
        self.at = to;
    }

    /// Whether it is to be kept though nothing was posted: a file is not worth a write for each that nobody wants, and what is
    /// shared is asked anew each time.
    pub(super) const fn is_far_ahead(&self) -> bool {
        let ahead = self.at.saturating_sub(self.kept);
        ahead >= PASSED || (ahead > 0 && matches!(self.place, Place::Shared(_)))
    }

    /// Brings it to where it is kept.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        match &mut self.place {
            Place::File(path) => write(path, self.at)?,
            Place::Shared(shared) => shared.keep(self.at).map_err(io::Error::other)?,
        }
        self.kept = self.at;
        Ok(())
    }
}

fn write(path: &Path, at: i64) -> io::Result<()> {
    let mut new = path.to_owned().into_os_string();
    new.push(".new");
    let mut file = File::create(&new)?;
    writeln!(file, "{at}")?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The name as well, or a power loss brings the old one back.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_outlives_its_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.db.webhook");
        let mut cursor = Cursor::open(&path, 7).unwrap();
        assert_eq!(cursor.at(), 7);
        cursor.advance(9);
        assert!(!cursor.is_far_ahead());
        assert_eq!(Cursor::open(&path, 20).unwrap().at(), 7);
        cursor.keep().unwrap();
        assert_eq!(Cursor::open(&path, 20).unwrap().at(), 9);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn older_database_takes_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.db.webhook");
        fs::write(&path, "90\n").unwrap();
        assert_eq!(Cursor::open(&path, 4).unwrap().at(), 4);
    }

    #[test]
    fn damaged_cursor_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.db.webhook");
        fs::write(&path, "ninety").unwrap();
        let told = Cursor::open(&path, 4).err().unwrap();
        assert!(told.contains("remove it to begin with the next one"), "{told}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "ninety");
    }
}
