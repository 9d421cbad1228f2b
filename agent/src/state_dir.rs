//! The state folder: made when it is missing, and judged before anything is to be kept in it. What is kept there is the
//! matter of `modem/identity.rs` (the last IMEI), `floor.rs` (the time floor), `ledger.rs` (what the budget counts) and
//! `keepalive/networks.rs` (what was learned of the line). Without the folder the agent works, but remembers nothing over a
//! restart.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Access, access, statvfs};
use rustix::io::Errno;

use crate::log;

/// How the folder is.
#[derive(Debug)]
pub enum Condition {
    /// There, and writable.
    Good,
    /// Not there, but its parent is and lets it be made.
    ToBeMade,
    /// Nothing can be kept in it.
    Useless(io::Error),
}

/// Looks, and touches nothing.
#[must_use]
pub fn examine(folder: &Path) -> Condition {
    match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => Condition::Useless(ErrorKind::NotADirectory.into()),
        Ok(_) => may_write(folder).map_or_else(Condition::Useless, |()| Condition::Good),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            may_write(parent(folder)).map_or_else(Condition::Useless, |()| Condition::ToBeMade)
        }
        Err(error) => Condition::Useless(error),
    }
}

/// Makes the folder, for its owner alone, when it is missing and its parent lets that be done.
///
/// # Errors
/// Nothing can be kept in it.
pub fn prepare(folder: &Path) -> io::Result<()> {
    let prepared = match examine(folder) {
        Condition::Good => Ok(()),
        Condition::ToBeMade => DirBuilder::new().mode(OWNERS_ALONE).create(folder),
        Condition::Useless(error) => Err(error),
    };
    TOLD.store(prepared.is_err(), Ordering::Relaxed);
    prepared
}

/// A file in the folder could not be written: says so, but for the first of them only, and for none where [`prepare`] has
/// failed. They have one cause.
pub fn complain(text: fmt::Arguments<'_>) {
    if !TOLD.swap(true, Ordering::Relaxed) {
        log::warning(text);
    }
}

/// Whether a person was told that nothing is kept. A process has one state folder.
static TOLD: AtomicBool = AtomicBool::new(false);

/// What follows from it, for people.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("there and writable"),
            Self::ToBeMade => f.write_str("missing; the agent makes it when it starts"),
            Self::Useless(error) => write!(f, "of no use: {error}; {NOTHING_IS_KEPT}"),
        }
    }
}

/// What an agent without the folder lacks.
pub const NOTHING_IS_KEPT: &str = "no last IMEI, time floor, budget or learned silence outlives a restart";

/// It names the device.
const OWNERS_ALONE: u32 = 0o700;

fn may_write(folder: &Path) -> io::Result<()> {
    access(folder, Access::WRITE_OK | Access::EXEC_OK)?;
    let disk = statvfs(folder)?;
    // A file system without blocks of its own, as in memory, has none to be short of.
    if disk.f_blocks > 0 && disk.f_bavail == 0 {
        return Err(Errno::NOSPC.into());
    }
    Ok(())
}

fn parent(folder: &Path) -> &Path {
    match folder.parent() {
        // A name alone lies in the working directory.
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => folder,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn missing_folder_is_made_for_its_owner_alone() {
        let parent = std::env::temp_dir().join(format!("moorline-state-{}", std::process::id()));
        fs::create_dir(&parent).unwrap();
        let folder = parent.join("agent");
        assert!(matches!(examine(&folder), Condition::ToBeMade));
        prepare(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(examine(&folder), Condition::Good));
        prepare(&folder).unwrap();
        fs::remove_dir_all(parent).unwrap();
    }

    #[test]
    fn folder_that_cannot_be_is_told_and_not_made() {
        for (folder, words) in [
            ("/nowhere/at/all", "No such file"),
            ("/dev/null", "not a directory"),
            ("/dev/null/state", "Not a directory"),
        ] {
            let said = examine(Path::new(folder)).to_string();
            assert!(said.contains(words) && said.contains(NOTHING_IS_KEPT), "{folder}: {said}");
            assert!(prepare(Path::new(folder)).is_err(), "{folder}");
        }
    }
}
