//! `[heartbeat]`.

use std::time::Duration;

use moorline_config::Section;

use super::seconds;
use crate::keepalive::{Interval, Settings};

/// Longer than a day is no heartbeat any more.
const LONGEST: Duration = seconds(24 * 3600);

/// A silence of less than this cannot be told from the time that an Echo may take.
const SHORTEST_LEARNED: Duration = seconds(20);

/// The shortest keepalive that carriers ask for (Verizon).
const MIN: Duration = seconds(5 * 60);

/// GSMA's default for TCP (TS.34 4.0_REQ_007).
const MAX: Duration = seconds(29 * 60);

pub(super) fn heartbeat(section: &Section<'_>) -> Settings {
    let interval = if section.says("interval", "adaptive") {
        None
    } else {
        section.duration("interval", seconds(1)..=LONGEST)
    };
    let min = section.duration("min", SHORTEST_LEARNED..=LONGEST);
    let max = section.duration("max", SHORTEST_LEARNED..=LONGEST);
    let (min, max) = match (min, max) {
        (Some(min), Some(max)) => (min, max),
        // The bound that was named stands, and the default makes room for it.
        (Some(min), None) => (min, MAX.max(min)),
        (None, max) => (MIN.min(max.unwrap_or(MAX)), max.unwrap_or(MAX)),
    };
    if max < min {
        section.mistake("max", "is less than `min`");
    }
    let timeout = section.duration("timeout", seconds(1)..=seconds(300));
    let interval = interval.map_or(Interval::Adaptive, Interval::Fixed);
    Settings { interval, min, max, timeout: timeout.unwrap_or(seconds(10)) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use moorline_config::Document;

    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let document = Document::parse(Path::new("agent.toml"), &format!("[heartbeat]\n{text}")).unwrap();
        let settings = heartbeat(&document.root().section("heartbeat"));
        document.finish().map(|()| settings).map_err(|mistakes| mistakes.to_string())
    }

    fn bounds(text: &str) -> (u64, u64) {
        let Settings { min, max, .. } = read(text).unwrap();
        (min.as_secs(), max.as_secs())
    }

    #[test]
    fn nothing_said_is_learned_between_five_and_29_minutes() {
        let settings = read("").unwrap();
        assert_eq!(settings.interval, Interval::Adaptive);
        assert_eq!(settings, read("interval = \"adaptive\"").unwrap());
        assert_eq!(bounds(""), (300, 1740));
        assert_eq!(settings.timeout, seconds(10));
    }

    #[test]
    fn duration_is_fixed() {
        assert_eq!(read("interval = \"60s\"").unwrap().interval, Interval::Fixed(seconds(60)));
        assert!(read("interval = \"sometimes\"").unwrap_err().contains("is not a duration"));
        assert!(read("interval = 60").unwrap_err().contains("60 needs a unit"));
    }

    #[test]
    fn one_bound_makes_room_for_itself() {
        assert_eq!(bounds("min = \"30s\""), (30, 1740));
        assert_eq!(bounds("min = \"1h\""), (3600, 3600));
        assert_eq!(bounds("max = \"2m\""), (120, 120));
        assert!(read("min = \"10m\"\nmax = \"5m\"").unwrap_err().contains("is less than `min`"));
        assert!(read("min = \"1s\"").unwrap_err().contains("must be from 20 s to 1d"));
    }
}
