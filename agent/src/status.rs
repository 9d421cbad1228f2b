//! The status file: what the running agent last wrote of itself to its RuntimeDirectory, and the command that shows it.
//!
//! Whether the writer still lives is told by a lock that it holds on a file beside: the kernel drops it with the process,
//! however that ended, and unlike a process id it is never given to another.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::clock::{self, Utc};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::file;
use crate::log;

/// Without systemd's word.
const DEFAULT_DIR: &str = "/run/moorline-agent";

/// The agent's own end of the status file.
#[derive(Debug)]
pub struct StatusFile {
    file: PathBuf,
    /// Holds the lock for as long as it is open.
    _lock: File,
}

impl StatusFile {
    /// Takes the folder over; `None`, with a warning, when that cannot be done: a status is worth no session.
    #[must_use]
    pub fn open(environment: &Environment) -> Option<Self> {
        let folder = folder(environment);
        match lock(&folder) {
            Ok(lock) => Some(Self { file: folder.join("status"), _lock: lock }),
            Err(error) => {
                let folder = folder.display();
                if error.kind() == ErrorKind::WouldBlock {
                    log::warning(format_args!("another agent runs with {folder}; this one keeps no status"));
                } else {
                    log::info(format_args!("no status is kept, as {folder} cannot be used: {error}"));
                }
                None
            }
        }
    }

    /// Replaces what was written before.
    pub fn write(&self, lines: &str) {
        let head = format!(
            "written  {} by process {}, moorline-agent {}\n",
            Utc(clock::now().utc_ms),
            std::process::id(),
            env!("CARGO_PKG_VERSION"),
        );
        if let Err(error) = file::replace(&self.file, &(head + lines)) {
            log::warning(format_args!("{}: the status cannot be written: {error}", self.file.display()));
        }
    }
}

/// `moorline-agent status`: shows the file, and whether its writer still runs.
pub fn show(environment: &Environment) -> Exit {
    let folder = folder(environment);
    let file = folder.join("status");
    let lines = match fs::read_to_string(&file) {
        Ok(lines) => lines,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let _ = writeln!(io::stderr(), "no agent has written to {}; is it running?", folder.display());
            return Exit::Failure;
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}: cannot be read: {error}", file.display());
            return Exit::Failure;
        }
    };
    let runs = is_locked(&folder);
    let verdict = if runs { "running" } else { "not running: what follows is the last that it wrote" };
    // A reader that has gone away wants nothing more.
    let _ = write!(io::stdout().lock(), "agent    {verdict}\n{lines}");
    if runs { Exit::Asked } else { Exit::Failure }
}

fn folder(environment: &Environment) -> PathBuf {
    environment.runtime_dir.clone().unwrap_or_else(|| DEFAULT_DIR.into())
}

fn lock(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let file = File::create(folder.join("lock"))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn is_locked(folder: &Path) -> bool {
    File::open(folder.join("lock"))
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}
