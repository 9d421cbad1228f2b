//! What a device has used of its budget, as people read it. Takes the API's JSON.

use moorline_config::Size;
use serde_json::Value;

use super::show::{ABSENT, time};

const PURPOSES: [(&str, &str); 6] = [
    ("full_handshakes", "full handshakes"),
    ("resumed_handshakes", "resumed handshakes"),
    ("heartbeats", "heartbeats"),
    ("reports", "reports"),
    ("time", "time"),
    ("other", "other"),
];

/// Nothing of a device that has not told.
pub(super) fn pairs(usage: &Value, now_ms: i64) -> Vec<(&'static str, String)> {
    if usage.is_null() {
        return vec![("Budget", ABSENT.to_owned())];
    }
    let count = |amount: u64| amount.to_string();
    let size = |amount: u64| Size(amount).to_string();
    vec![
        ("Budget", format!("told {}", time(usage, "at", now_ms))),
        ("  an hour", bound(&usage["attempts_per_hour"], "attempts", count, now_ms)),
        ("  a day", bound(&usage["attempts_per_day"], "attempts", count, now_ms)),
        ("  30 days", bound(&usage["bytes_per_month"], "", size, now_ms)),
        ("  bytes for", purposes(&usage["bytes"])),
    ]
}

fn bound(used: &Value, unit: &str, shown: impl Fn(u64) -> String, now_ms: i64) -> String {
    let mut words = vec![used["used"].as_u64().map_or_else(|| ABSENT.to_owned(), &shown)];
    if let Some(limit) = used["limit"].as_u64() {
        words.push(format!("of {}", shown(limit)));
    }
    if !unit.is_empty() {
        words.push(unit.to_owned());
    }
    let level = match used["level"].as_str() {
        Some("near") => ", nearly spent",
        Some("spent") => ", spent",
        _ => return words.join(" "),
    };
    format!("{}{level} until {}", words.join(" "), time(used, "period_ends", now_ms))
}

fn purposes(bytes: &Value) -> String {
    let amounts = PURPOSES.map(|(name, label)| (label, bytes[name].as_u64().unwrap_or(0)));
    let mut words: Vec<_> = amounts
        .into_iter()
        .filter(|(_, amount)| *amount > 0)
        .map(|(label, amount)| format!("{label} {}", Size(amount)))
        .collect();
    let sum = amounts.into_iter().map(|(_, amount)| amount).fold(0, u64::saturating_add);
    let headers = Size(bytes["headers"].as_u64().unwrap_or(0));
    words.push(format!("in all {}, of it {headers} headers by estimate", Size(sum)));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// 2025-11-24 16:00:00 UTC.
    const NOW_MS: i64 = 1_764_000_000_000;

    #[test]
    fn usage_is_told_in_words() {
        let used = |used: u64, limit: Option<u64>, level: &str| json!({"used": used, "limit": limit, "level": level, "period_ends": "2025-11-24T19:00:00.000Z"});
        let usage = json!({
            "at": "2025-11-24T15:57:00.000Z",
            "attempts_per_hour": used(3, Some(60), "free"),
            "attempts_per_day": used(600, Some(720), "near"),
            "bytes_per_month": used(10_000_000, Some(10_000_000), "spent"),
            "bytes": {
                "full_handshakes": 2856, "resumed_handshakes": 0, "heartbeats": 257_031, "reports": 0, "time": 6840,
                "other": 0, "headers": 150_000,
            },
        });
        let end = "until 2025-11-24 19:00:00 UTC (in 3 h)";
        assert_eq!(
            pairs(&usage, NOW_MS),
            [
                ("Budget", "told 2025-11-24 15:57:00 UTC (3 min ago)".to_owned()),
                ("  an hour", "3 of 60 attempts".to_owned()),
                ("  a day", format!("600 of 720 attempts, nearly spent {end}")),
                ("  30 days", format!("10 MB of 10 MB, spent {end}")),
                (
                    "  bytes for",
                    "full handshakes 2.8 kB, heartbeats 257 kB, time 6.8 kB, in all 266.7 kB, of it 150 kB headers by \
                     estimate"
                        .to_owned()
                ),
            ]
        );
    }

    #[test]
    fn what_was_not_told_or_is_not_known_is_a_dash() {
        assert_eq!(pairs(&Value::Null, NOW_MS), [("Budget", "-".to_owned())]);
        let strange = pairs(&json!({"at": 3}), NOW_MS);
        assert_eq!(strange[1], ("  an hour", "- attempts".to_owned()));
        assert_eq!(
            bound(&json!({"used": 7, "limit": null, "level": "other"}), "", |n| n.to_string(), 0),
            "7"
        );
    }
}
