//! The log: one line per event on standard error, for journald or for a person.
//!
//! Under systemd the journal knows the time, and a line begins with its priority (`<4>`, sd-daemon(3)). Elsewhere it
//! begins with the time and the level. Whatever a line holds, it stays one line: control characters are escaped, since
//! some of the text was chosen by peers. Nobody who logs waits for standard error: see `outlet`.

mod outlet;

use std::fmt::{self, Write as _};
use std::panic;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock;
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
pub fn start(filter: Option<&str>, journal: bool) -> Result<Log, String> {
    let filter = EnvFilter::try_new(filter.unwrap_or("info"))
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
        .event_format(Lines { journal })
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

struct Lines {
    journal: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        if self.journal {
            write!(writer, "<{}>", priority(level))?;
        } else {
            let now = Timestamp::from_millisecond(clock::now().utc_ms).unwrap_or(Timestamp::UNIX_EPOCH);
            write!(writer, "{now:.3} {level:5} ")?;
        }
        let mut text = Text::default();
        event.record(&mut text);
        write!(writer, "{}", OneLine(&text.message))?;
        writeln!(writer, "{}", OneLine(&text.fields))
    }
}

/// syslog(3)'s number of a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// Text as a log line may hold it.
struct OneLine<'t>(&'t str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            control if control.is_control() => write!(f, "{}", control.escape_default()),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_cannot_begin_a_line_or_colour_a_terminal() {
        assert_eq!(OneLine("a\nb\r\u{1b}[31mc\u{9b}").to_string(), r"a\nb\r\u{1b}[31mc\u{9b}");
        assert_eq!(OneLine("Gerät 7").to_string(), "Gerät 7");
    }

    #[test]
    fn redirected_error_output_is_no_journal() {
        assert!(!is_journal(None));
        assert!(!is_journal(Some("0:0")));
    }
}
