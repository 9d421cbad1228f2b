//! What a device has used of its budget, as the API shows it.

use moorline_protocol::{UsageBytes, Used};
use serde::Serialize;

use super::time::Time;
use crate::registry::{Level, UsageReport};

/// When it last told, to this server's process. Each bound has the name of the key of `agent.toml` that sets it.
#[derive(Serialize)]
pub(super) struct UsageView {
    at: Time,
    attempts_per_hour: UsedView,
    attempts_per_day: UsedView,
    bytes_per_month: UsedView,
    bytes: BytesView,
}

/// What is used of a bound in the period that ran at that time.
#[derive(Serialize)]
struct UsedView {
    used: u64,
    /// `null` where there is no bound.
    limit: Option<u64>,
    /// `free`, `near`, `spent`, or `other` that this version does not know.
    level: &'static str,
    period_ends: Time,
}

/// The month's bytes by what they were for: both ways, with headers.
#[derive(Serialize)]
struct BytesView {
    full_handshakes: u32,
    resumed_handshakes: u32,
    heartbeats: u32,
    reports: u32,
    time: u32,
    other: u32,
    /// Of all of these, headers of IP and TCP: an estimate.
    headers: u32,
}

impl From<UsageReport> for UsageView {
    fn from(UsageReport { usage, at_ms }: UsageReport) -> Self {
        let used = |Used { amount, limit, level, peak: _, left_s }| UsedView {
            used: amount,
            limit,
            level: Level::from(level).as_str(),
            period_ends: Time(at_ms.saturating_add(i64::from(left_s) * 1000)),
        };
        let UsageBytes { full, resumed, heartbeats, reports, time, other, headers } = usage.bytes;
        Self {
            at: Time(at_ms),
            attempts_per_hour: used(usage.hour),
            attempts_per_day: used(usage.day),
            bytes_per_month: used(usage.month),
            bytes: BytesView {
                full_handshakes: full,
                resumed_handshakes: resumed,
                heartbeats,
                reports,
                time,
                other,
                headers,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_protocol::Usage;

    use super::*;

    #[test]
    fn usage_is_shown_with_all_that_is_known() {
        let used = |amount, limit, level| Used { amount, limit, level, peak: 2, left_s: 3600 };
        let usage = Usage {
            bytes: UsageBytes {
                full: 1,
                resumed: 2,
                heartbeats: 3,
                reports: 4,
                time: 5,
                other: 6,
                headers: u32::MAX,
            },
            hour: used(60, Some(60), 2),
            day: used(600, Some(720), 1),
            month: Used { level: 9, left_s: u32::MAX, ..used(u64::MAX, None, 0) },
        };
        let view = UsageView::from(UsageReport { usage, at_ms: 1_764_000_000_000 });
        let ends = "2025-11-24T17:00:00.000Z";
        assert_eq!(
            serde_json::to_value(&view).unwrap(),
            serde_json::json!({
                "at": "2025-11-24T16:00:00.000Z",
                "attempts_per_hour": {"used": 60, "limit": 60, "level": "spent", "period_ends": ends},
                "attempts_per_day": {"used": 600, "limit": 720, "level": "near", "period_ends": ends},
                "bytes_per_month": {
                    "used": u64::MAX, "limit": null, "level": "other", "period_ends": "2161-12-31T22:28:15.000Z",
                },
                "bytes": {
                    "full_handshakes": 1, "resumed_handshakes": 2, "heartbeats": 3, "reports": 4, "time": 5,
                    "other": 6, "headers": u32::MAX,
                },
            })
        );
    }
}
