//! Replaces small files whole: a reader, and a restart after a power cut, find the old text or the new, never a part; and
//! the new one once it was written.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Puts `text` in the place of whatever the file held.
///
/// # Errors
/// The folder is missing, full or read-only; the old file is left as it was.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let written = File::create(&fresh).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        // Without it a file system may put the name in place before the text, and a power cut leaves an empty file.
        file.sync_data()
    });
    written.and_then(|()| fs::rename(&fresh, path)).inspect_err(|_| {
        // What is left of it would only take room.
        let _ = fs::remove_file(&fresh);
    })?;
    // Without it the name goes to the disk some seconds later. Where that cannot be asked for, there is nothing to be done.
    let _ = path.parent().map(|folder| File::open(folder)?.sync_all());
    Ok(())
}
