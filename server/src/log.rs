//! The log: one line per event on standard error, for journald or for a person.
//!
//! Under systemd the journal knows the time, and a line begins with its priority (`<4>`, sd-daemon(3)). Elsewhere it
//! begins with the time and the level. Whatever a line holds, it stays one line: control characters are escaped, since
//! some of the text was chosen by peers.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock;

/// Starts the log. `filter` is `MOORLINE_LOG`, as in `debug` or `info,moorline_server::tls=debug`; `journal` is whether
/// standard error goes to the journal.
///
/// # Errors
/// The filter cannot be understood.
pub fn start(filter: Option<&str>, journal: bool) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter.unwrap_or("info"))
        .map_err(|fault| format!("MOORLINE_LOG cannot be understood: {fault}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .event_format(Lines { journal })
        .init();
    Ok(())
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
