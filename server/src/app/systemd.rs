//! What systemd is told (sd_notify(3)): ready, how it goes, alive, going. Elsewhere nobody listens and nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// How often the status is told when there is no watchdog.
const STATUS: Duration = Duration::from_secs(10);

/// The service manager.
pub(super) struct Manager {
    watchdog: Option<Duration>,
    told: String,
}

impl Manager {
    pub(super) fn from_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled(), told: String::new() }
    }

    /// How often [`Self::alive`] is to be called: twice as often as the watchdog asks, so that one may be late.
    pub(super) fn interval(&self) -> Duration {
        self.watchdog.map_or(STATUS, |watchdog| (watchdog / 2).min(STATUS))
    }

    pub(super) fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(fault) => debug!("no monotonic time for the service manager: {fault}"),
        }
    }

    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// The loop goes round, and this is how it goes.
    pub(super) fn alive(&mut self, status: &str) {
        if self.watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
        if self.told != status {
            tell(&[NotifyState::Status(status)]);
            status.clone_into(&mut self.told);
        }
    }
}

/// How it goes, as `systemctl status` shows it.
pub(super) fn status(online: usize, open: usize) -> String {
    let counted = |many: usize, what| format!("{many} {what}{}", if many == 1 { "" } else { "s" });
    format!("{} online, {} open", counted(online, "device"), counted(open, "connection"))
}

/// A service manager that cannot be told is none of the devices' matter.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(fault) = sd_notify::notify(states) {
        debug!("the service manager was not told: {fault}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(status(1, 1), "1 device online, 1 connection open");
        assert_eq!(status(0, 2), "0 devices online, 2 connections open");
    }
}
