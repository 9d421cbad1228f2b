//! The service manager's end of sd_notify(3), in systemd's place: what a service tells of itself.

use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::failure::Failure;
use crate::lines::{Found, Lines};
use crate::process::PATIENCE;

/// Longer than any notification.
const LONGEST: usize = 4096;

/// Hears one service; the socket ends with the value.
pub struct ServiceManager {
    socket: PathBuf,
    watchdog: Duration,
    heard: Arc<Lines>,
    next: [usize; 1],
}

impl ServiceManager {
    /// Listens on the socket file `socket`; the service is asked for a sign of life each `watchdog`. Each assignment that
    /// it sends, such as `READY=1`, is given to `hear` too.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(
        socket: &Path,
        watchdog: Duration,
        hear: impl Fn(&str) + Send + 'static,
    ) -> Result<Self, Failure> {
        let datagrams = UnixDatagram::bind(socket)?;
        let heard = Arc::new(Lines::default());
        let source = heard.open();
        let shared = Arc::clone(&heard);
        thread::spawn(move || {
            let mut buffer = [0; LONGEST];
            while let Ok(length @ 1..) = datagrams.recv(&mut buffer) {
                for assignment in String::from_utf8_lossy(&buffer[..length]).lines() {
                    hear(assignment);
                    shared.push(source, assignment.to_owned());
                }
            }
            shared.close();
        });
        Ok(Self { socket: socket.to_owned(), watchdog, heard, next: [0] })
    }

    /// Every assignment so far.
    #[must_use]
    pub fn heard(&self) -> Vec<String> {
        self.heard.all()
    }

    /// What the service finds in its environment.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        [
            ("NOTIFY_SOCKET", self.socket.clone().into()),
            ("WATCHDOG_USEC", self.watchdog.as_micros().to_string().into()),
        ]
    }

    /// Waits for an assignment that holds `text` and comes after the last one waited for.
    ///
    /// # Errors
    /// It did not come in time.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> Result<String, Failure> {
        self.wait_for_within(text, PATIENCE)
    }

    /// As [`Self::wait_for`], but not longer than `patience`.
    ///
    /// # Errors
    /// It did not come in time.
    #[track_caller]
    pub fn wait_for_within(&mut self, text: &str, patience: Duration) -> Result<String, Failure> {
        let pick = |line: &str| line.contains(text).then(|| line.to_owned());
        match self.heard.find(&mut self.next, patience, pick) {
            Found::Yes(assignment) => Ok(assignment),
            Found::Ended | Found::Silent => {
                let all = self.heard.all().join("\n    ");
                Err(Failure::new(format!("the service manager was not told {text:?}, but:\n    {all}")))
            }
        }
    }
}

impl Drop for ServiceManager {
    /// An empty datagram ends the thread.
    fn drop(&mut self) {
        if let Ok(socket) = UnixDatagram::unbound() {
            let _ = socket.send_to(&[], &self.socket);
        }
    }
}
