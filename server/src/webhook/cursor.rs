//! Where the posting stands: the id of the last event that needs no posting any more, in a file of its own beside the database.
//! It is replaced at once or not at all, and is on the disk before the next request.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tracing::warn;

/// See the module.
pub(super) struct Cursor {
    path: PathBuf,
    at: i64,
    kept: i64,
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
        let mut cursor = Self { path: path.to_owned(), at: at.min(newest), kept: i64::MIN };
        cursor.keep().map_err(|fault| format!("{shown}: cannot be written: {fault}"))?;
        Ok(cursor)
    }

    pub(super) const fn at(&self) -> i64 {
        self.at
    }

    pub(super) const fn advance(&mut self, to: i64) {
        self.at = to;
    }

    /// How far it is ahead of what is on the disk.
    pub(super) const fn ahead(&self) -> i64 {
        self.at.saturating_sub(self.kept)
    }

    /// Brings it to the disk.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let mut file = File::create(&new)?;
        writeln!(file, "{}", self.at)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        // The name as well, or a power loss brings the old one back.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
        self.kept = self.at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_outlives_its_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.db.webhook");
        let mut cursor = Cursor::open(&path, 7).unwrap();
        assert_eq!((cursor.at(), cursor.ahead()), (7, 0));
        cursor.advance(9);
        assert_eq!(cursor.ahead(), 2);
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
