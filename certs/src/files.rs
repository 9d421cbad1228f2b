//! Writing: a key that never takes the place of another, and text that is there wholly or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Creates `file` for its owner alone; fails when there is one already, whatever it is.
pub(crate) fn create_key(file: &Path, pem: &str) -> io::Result<()> {
    let mut key = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    let written = key.write_all(pem.as_bytes()).and_then(|()| key.sync_all());
    if written.is_err() {
        // Half a key would be in the way of the next one.
        let _ = fs::remove_file(file);
    }
    written
}

/// As [`create_key`], but so that there is no moment at which a part of it is there: it is written as `unplaced` first.
pub(crate) fn place_key(file: &Path, unplaced: &Path, pem: &str) -> io::Result<()> {
    // A run that was killed may have left it.
    remove_if_there(unplaced)?;
    create_key(unplaced, pem)?;
    // Other than a rename, a link never takes the place of anything.
    let placed = fs::hard_link(unplaced, file);
    fs::remove_file(unplaced).and(placed)
}

pub(crate) fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Has what was placed in a directory outlive a power cut.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Puts `text` in the place of `file`, readable by all, in one step.
pub(crate) fn replace(file: &Path, text: &str) -> io::Result<()> {
    let unfinished = file.with_extension("new");
    let written = write_synced(&unfinished, text).and_then(|()| fs::rename(&unfinished, file));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

pub(crate) fn write_synced(file: &Path, text: &str) -> io::Result<()> {
    let mut open = File::create(file)?;
    open.write_all(text.as_bytes())?;
    open.set_permissions(Permissions::from_mode(0o644))?;
    open.sync_all()
}

/// Adds `text` to the end of `file`, or leaves it as it was.
pub(crate) fn append(file: &Path, text: &str) -> io::Result<()> {
    let mut open = OpenOptions::new().append(true).create(true).mode(0o644).open(file)?;
    let before = open.metadata()?.len();
    let written = open.write_all(text.as_bytes()).and_then(|()| open.sync_all());
    if written.is_err() {
        let _ = open.set_len(before);
    }
    written
}
