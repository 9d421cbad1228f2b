//! A look at how full the tables are that devices fill, for whoever asks for the metrics.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::connection::Link;
use crate::metrics::Tables;

/// It waits for the disk.
pub(super) fn look(link: &Link, database: &Path) -> Tables {
    Tables {
        handshakes_waiting: link.turns.waiting(),
        tls_sessions: link.tls.sessions_kept(),
        familiar_sources: link.turns.familiar_sources(),
        database: bytes(database),
        journal: bytes(&journal(database)),
    }
}

/// A file that is not there takes nothing.
fn bytes(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len())
}

/// Where SQLite keeps what it has not put into the file yet.
fn journal(database: &Path) -> PathBuf {
    let mut name = OsString::from(database);
    name.push("-wal");
    name.into()
}
