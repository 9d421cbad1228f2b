//! The log: one line per event on standard error, for journald, for a person or for a machine.
//!
//! Under systemd the journal knows the time, and a line begins with its priority (`<4>`, sd-daemon(3)). Elsewhere it
//! begins with the time and the level. How it looks is `lines`' matter, and which connection it is about that of
//! `connection`. Nobody who logs waits for standard error: see `outlet`.

mod connection;
mod lines;
mod outlet;

use std::panic;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::{error, warn};
use tracing_subscriber::EnvFilter;

pub(crate) use connection::{ConnectionId, ConnectionIds, about, about_none, about_now};
pub use lines::Format;
use lines::Lines;
use outlet::Outlet;

/// How long the end waits for standard error to take the last lines.
const LAST_LINES: Duration = Duration::from_millis(400);

/// The running log. When it ends, the last lines are written, as far as they are taken in time.
pub struct Log {
    outlet: Outlet,
    lost: Counter,
}

impl Log {
    /// Counts the lines that were lost because standard error did not take them.
    #[must_use]
    pub const fn lost(&self) -> &Counter {
        &self.lost
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.outlet.close(LAST_LINES);
    }
}

/// Starts the log. `filter` is `MOORLINE_LOG`, as in `debug` or `info,moorline_server::tls=debug`; `journal` is whether
/// standard error goes to the journal.
///
/// # Errors
/// The filter cannot be understood, or there are no threads.
pub fn start(filter: Option<&str>, journal: bool, format: Format) -> Result<Log, String> {
    let filter = EnvFilter::try_new(filter.unwrap_or("info,async_nats=warn"))
        .map_err(|fault| format!("MOORLINE_LOG cannot be understood: {fault}"))?;
    let lost = Counter::default();
    let counting = lost.clone();
    let count = move || {
        counting.inc();
    };
    let say = |lost| warn!("{lost} lines were lost here: standard error did not take them");
    let outlet = Outlet::open(std::io::stderr(), count, say)
        .map_err(|fault| format!("no thread for the log: {fault}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(outlet.clone())
        .event_format(Lines { format, journal })
        .init();
    // Else the words of a panic go to standard error the way that waits.
    panic::set_hook(Box::new(|panic| error!("a fault in this program: {panic}")));
    Ok(Log { outlet, lost })
}

/// Whether standard error is the stream that `JOURNAL_STREAM` (`DEVICE:INODE`) names; it may have been redirected since.
#[must_use]
pub fn is_journal(journal_stream: Option<&str>) -> bool {
    let Ok(here) = rustix::fs::fstat(std::io::stderr()) else { return false };
    journal_stream.is_some_and(|there| there == format!("{}:{}", here.st_dev, here.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirected_error_output_is_no_journal() {
        assert!(!is_journal(None));
        assert!(!is_journal(Some("0:0")));
    }
}
