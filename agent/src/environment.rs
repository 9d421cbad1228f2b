//! What systemd hands a service in its environment. Read once, where the program starts; the rest is given it.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The environment's word on sockets, folders and the watchdog; see systemd.exec(5) and sd_notify(3).
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `NOTIFY_SOCKET`: where to tell of readiness; a path, or an abstract name after `@`.
    pub notify_socket: Option<OsString>,
    /// `WATCHDOG_USEC`, when it is meant for this process.
    pub watchdog: Option<Duration>,
    /// `RUNTIME_DIRECTORY`: where the status file goes.
    pub runtime_dir: Option<PathBuf>,
    /// `STATE_DIRECTORY`: the default of `state.dir`.
    pub state_dir: Option<PathBuf>,
    /// `CREDENTIALS_DIRECTORY`: where `LoadCredential=` put the private key.
    pub credentials_dir: Option<PathBuf>,
    /// `JOURNAL_STREAM`: device and inode of the journal's socket.
    pub journal_stream: Option<(u64, u64)>,
}

impl Environment {
    /// Reads the environment of this process.
    #[must_use]
    pub fn read() -> Self {
        Self {
            notify_socket: variable("NOTIFY_SOCKET"),
            watchdog: watchdog(),
            runtime_dir: folder("RUNTIME_DIRECTORY"),
            state_dir: folder("STATE_DIRECTORY"),
            credentials_dir: folder("CREDENTIALS_DIRECTORY"),
            journal_stream: text("JOURNAL_STREAM").and_then(|stream| pair(&stream)),
        }
    }
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn text(name: &str) -> Option<String> {
    variable(name).and_then(|value| value.into_string().ok())
}

/// systemd separates several folders by colons; the first one is the unit's own.
fn folder(name: &str) -> Option<PathBuf> {
    let folders = variable(name)?;
    env::split_paths(&folders).next()
}

/// A watchdog that watches another process, such as a parent that passed its environment on, is none of ours.
fn watchdog() -> Option<Duration> {
    if text("WATCHDOG_PID").is_some_and(|pid| pid.parse() != Ok(std::process::id())) {
        return None;
    }
    let micros = text("WATCHDOG_USEC")?.parse().ok()?;
    Some(Duration::from_micros(micros)).filter(|period| !period.is_zero())
}

/// `8:12345`.
fn pair(text: &str) -> Option<(u64, u64)> {
    let (device, inode) = text.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}
