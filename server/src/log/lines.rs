//! How a line looks: words for people, or JSON for machines. Whatever it holds, it stays one line: control characters are
//! escaped, since some of the text was chosen by peers.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::connection;
use crate::clock;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Words, and `name=value` behind them.
    Text,
    /// One JSON object a line.
    Json,
}

/// Makes lines.
pub(super) struct Lines {
    pub(super) format: Format,
    /// Standard error goes to the journal, which takes the priority off a line's beginning (sd-daemon(3)).
    pub(super) journal: bool,
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
        }
        let now = Timestamp::from_millisecond(clock::now().utc_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let connection = connection::current().map(|id| id.to_string());
        match self.format {
            Format::Text => {
                if !self.journal {
                    write!(writer, "{now:.3} {level:5} ")?;
                }
                let mut text = Text::default();
                event.record(&mut text);
                write!(writer, "{}{}", OneLine(&text.message), OneLine(&text.fields))?;
                connection.map_or(Ok(()), |id| write!(writer, " connection={id}"))?;
                writeln!(writer)
            }
            Format::Json => {
                let mut object = Object::default();
                object.put("time", &format!("{now:.3}").into());
                object.put("level", &name(level).into());
                object.put("target", &event.metadata().target().into());
                event.record(&mut object);
                if let Some(id) = connection {
                    object.put("connection", &id.into());
                }
                writeln!(writer, "{{{}}}", object.members)
            }
        }
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

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
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

/// The members of a JSON object, in the order in which they came.
#[derive(Default)]
struct Object {
    members: String,
}

impl Object {
    fn put(&mut self, name: &str, value: &Value) {
        let comma = if self.members.is_empty() { "" } else { "," };
        let _ = write!(self.members, "{comma}{}:{value}", Value::from(name));
    }
}

impl Visit for Object {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), &format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), &value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), &value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), &value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), &value.into());
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
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use serde_json::json;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'s> MakeWriter<'s> for Sink {
        type Writer = Self;

        fn make_writer(&'s self) -> Self {
            self.clone()
        }
    }

    fn logged(lines: Lines, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let subscriber = tracing_subscriber::fmt().with_writer(sink.clone()).event_format(lines).finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn log_one() {
        let mut ids = connection::ConnectionIds::new(clock::Now { utc_ms: 0x10_000, ..clock::now() });
        connection::about_now(ids.next(), || {
            tracing::warn!(session = 7, imei = %"004999010640000", odd = "a\"b", "two\nlines");
        });
    }

    #[test]
    fn people_read_words() {
        let line = logged(Lines { format: Format::Text, journal: true }, log_one);
        assert_eq!(line, "<4>two\\nlines session=7 imei=004999010640000 odd=\"a\\\"b\" connection=41-1\n");
        let line = logged(Lines { format: Format::Text, journal: false }, log_one);
        assert!(line.contains("Z WARN  two"), "{line}");
    }

    #[test]
    fn machines_read_json() {
        let line = logged(Lines { format: Format::Json, journal: false }, log_one);
        assert_eq!(line.lines().count(), 1);
        let object: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["level"], "warn");
        assert_eq!(object["target"], module_path!());
        assert_eq!(object["message"], "two\nlines");
        assert_eq!(object["session"], json!(7));
        assert_eq!(object["imei"], "004999010640000");
        assert_eq!(object["odd"], "a\"b");
        assert_eq!(object["connection"], "41-1");
        assert!(object["time"].as_str().unwrap().parse::<Timestamp>().is_ok());
        let line = logged(Lines { format: Format::Json, journal: true }, log_one);
        assert!(line.starts_with("<4>{\"time\":"), "{line}");
    }

    #[test]
    fn peers_cannot_begin_a_line_or_colour_a_terminal() {
        assert_eq!(OneLine("a\nb\r\u{1b}[31mc\u{9b}").to_string(), r"a\nb\r\u{1b}[31mc\u{9b}");
        assert_eq!(OneLine("Gerät 7").to_string(), "Gerät 7");
    }
}
