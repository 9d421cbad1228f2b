//! What the page says in words: times from now, numbers, names of causes, how good a signal is. All of it is pure.

use std::time::Duration;

use maud::{Markup, html};
use moorline_config::HumanDuration;

use super::super::time::Time;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// How far away a time is: `5 min ago`, `in 12 days`. The script keeps such words true, so it has the same steps.
pub(super) fn from_now(ms: i64, now_ms: i64) -> String {
    let seconds = now_ms.saturating_sub(ms) / 1000;
    let away = seconds.saturating_abs();
    let (number, unit) = match away {
        ..5 => return "just now".to_owned(),
        5..MINUTE => (away, "s"),
        MINUTE..HOUR => (away / MINUTE, "min"),
        // Up to two of each larger one, so that no unit is ever alone.
        _ if away < 2 * DAY => (away / HOUR, "h"),
        _ if away < 60 * DAY => (away / DAY, "days"),
        _ if away < 730 * DAY => (away / (30 * DAY), "months"),
        _ => (away / (365 * DAY), "years"),
    };
    if seconds < 0 { format!("in {number} {unit}") } else { format!("{number} {unit} ago") }
}

/// A time for people, with what programs and the careful want of it.
pub(super) fn time(ms: i64, now_ms: i64) -> Markup {
    let exact = Time(ms).to_string();
    html! { time datetime=(exact) title=(exact) { (from_now(ms, now_ms)) } }
}

/// A number with its thousands apart.
pub(super) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

pub(super) fn seconds(seconds: u32) -> String {
    HumanDuration(Duration::from_secs(seconds.into())).to_string()
}

/// Why a session ended, of the names that end up in the store; one that is not known here stands for itself.
pub(super) fn cause(name: &str) -> &str {
    match name {
        "goodbye" => "said goodbye",
        "closed" => "closed the connection",
        "lost" => "connection lost",
        "stalled" => "took nothing in any more",
        "idle" => "silent for too long",
        "no_hello" => "never said who it is",
        "protocol_error" => "broke the protocol",
        "replaced" => "a newer session took over",
        "registered_as_another" => "registered as another device",
        "dropped" => "dropped by an operator",
        "held" => "blocked or quarantined",
        "certificate" => "certificate revoked or expired",
        "server_stopping" | "server_stopped" => "the server stopped",
        "internal" => "a fault of the server",
        other => other,
    }
}

/// What happened, of the names of events.
pub(super) fn kind(name: &str) -> String {
    name.replace('_', " ")
}

/// How good a signal is, with the class that colours it and how many of four bars it is worth.
pub(super) const fn signal(dbm: i16) -> (&'static str, u8) {
    match dbm {
        -70.. => ("excellent", 4),
        -85.. => ("good", 3),
        -100.. => ("fair", 2),
        _ => ("weak", 1),
    }
}

/// `<stat>` of +CREG (3GPP TS 27.007 section 7.2).
pub(super) const fn registration(stat: u8) -> &'static str {
    match stat {
        0 => "not registered, not searching",
        1 => "registered at home",
        2 => "searching",
        3 => "denied by the network",
        5 => "registered, roaming",
        6 | 7 => "registered for SMS only",
        8 => "emergency calls only",
        9 | 10 => "registered, CSFB not preferred",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now() {
        for (seconds, words) in [
            (0, "just now"),
            (4, "just now"),
            (-4, "just now"),
            (5, "5 s ago"),
            (59, "59 s ago"),
            (60, "1 min ago"),
            (3599, "59 min ago"),
            (3600, "1 h ago"),
            (2 * DAY - 1, "47 h ago"),
            (2 * DAY, "2 days ago"),
            (60 * DAY, "2 months ago"),
            (730 * DAY, "2 years ago"),
            (-12 * DAY, "in 12 days"),
            (-3600, "in 1 h"),
        ] {
            assert_eq!(from_now(1_000_000_000_000 - seconds * 1000, 1_000_000_000_000), words, "{seconds}");
        }
    }

    #[test]
    fn times_beyond_all_bounds_are_told_too() {
        for ms in [i64::MIN, i64::MAX] {
            assert!(from_now(ms, 0).contains("years"));
            assert!(time(ms, i64::MIN).into_string().starts_with("<time "));
        }
    }

    #[test]
    fn thousands_stand_apart() {
        for (number, shown) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (98_231, "98,231"), (1_000_000, "1,000,000")]
        {
            assert_eq!(count(number), shown);
        }
    }

    #[test]
    fn signals_are_graded() {
        assert_eq!(
            [-51, -70, -71, -85, -86, -100, -101, -113].map(|dbm| signal(dbm).1),
            [4, 4, 3, 3, 2, 2, 1, 1]
        );
    }
}
