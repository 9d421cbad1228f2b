//! Times for people: how long ago, how long from now.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// `3 min ago`, `in 2 d`; `None` when the text is no time.
pub(super) fn relative(text: &str, now_ms: i64) -> Option<String> {
    let then: Timestamp = text.parse().ok()?;
    let seconds = now_ms.saturating_sub(then.as_millisecond()) / 1000;
    Some(match seconds {
        // Clocks of two machines differ by this much.
        -5..=0 => "just now".to_owned(),
        1.. => format!("{} ago", rough(seconds)),
        _ => format!("in {}", rough(-seconds)),
    })
}

/// `2026-11-24 16:02:11`, without a fraction.
pub(super) fn plain(text: &str) -> Option<String> {
    let then: Timestamp = text.parse().ok()?;
    Some(then.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// The largest unit says enough.
fn rough(seconds: i64) -> String {
    let units = [(YEAR, "y"), (DAY, "d"), (HOUR, "h"), (MINUTE, "min")];
    let (length, name) = units.into_iter().find(|(length, _)| seconds >= *length).unwrap_or((1, "s"));
    format!("{} {name}", seconds / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_unit_is_shown() {
        let now: Timestamp = "2026-11-24T16:00:00Z".parse().unwrap();
        for (then, expected) in [
            ("2026-11-24T16:00:00.000Z", "just now"),
            ("2026-11-24T16:00:03Z", "just now"),
            ("2026-11-24T15:59:01Z", "59 s ago"),
            ("2026-11-24T15:56:59Z", "3 min ago"),
            ("2026-11-23T16:00:01Z", "23 h ago"),
            ("2026-11-01T16:00:00Z", "23 d ago"),
            ("2020-01-01T00:00:00Z", "6 y ago"),
            ("2026-11-26T16:00:00Z", "in 2 d"),
        ] {
            assert_eq!(relative(then, now.as_millisecond()).as_deref(), Some(expected), "{then}");
        }
        assert_eq!(relative("yesterday", 0), None);
    }

    #[test]
    fn plain_times_have_no_fraction() {
        assert_eq!(plain("2026-11-24T16:02:11.042Z").as_deref(), Some("2026-11-24 16:02:11"));
    }
}
