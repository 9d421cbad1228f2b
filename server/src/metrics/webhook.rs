//! What the webhook counts.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::{Reason, Series};

/// Why a request can be in vain.
const REASONS: [&str; 8] =
    ["connection", "timeout", "tls", "status", "overload", "redirect", "secret", "store"];

/// The part that the webhook raises; at zero where there is none.
#[derive(Clone, Debug, Default)]
pub struct WebhookMetrics {
    delivered: Counter,
    refused: Counter,
    lost: Counter,
    failures: Family<Reason, Counter>,
    oldest_waiting: Gauge<f64, AtomicU64>,
}

impl WebhookMetrics {
    pub(super) fn name_series(&self, series: &mut Series) {
        for reason in REASONS {
            // So that a series is there, at zero, before the first of its kind.
            drop(self.failures.get_or_create(&Reason { reason }));
        }
        series.register(
            "webhook_events_delivered",
            "Events that the webhook's receiver took",
            self.delivered.clone(),
        );
        series.register(
            "webhook_events_refused",
            "Events that the webhook's receiver will never take, as it said",
            self.refused.clone(),
        );
        series.register(
            "webhook_events_lost",
            "Events that the store gave up before the webhook's receiver took them, at most",
            self.lost.clone(),
        );
        series.register(
            "webhook_failures",
            "Attempts to post events that failed, by reason",
            self.failures.clone(),
        );
        series.register(
            "webhook_oldest_waiting_timestamp_seconds",
            "When the oldest event happened that waits to be posted, in seconds since 1970; 0 where none waits",
            self.oldest_waiting.clone(),
        );
    }

    pub(crate) fn delivered(&self, events: usize) {
        self.delivered.inc_by(events as u64);
    }

    pub(crate) fn refused(&self, events: usize) {
        self.refused.inc_by(events as u64);
    }

    pub(crate) fn lost(&self, events: u64) {
        self.lost.inc_by(events);
    }

    /// `reason` is a stable name from a fixed list.
    pub(crate) fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&Reason { reason }).inc();
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit into 53 bits")]
    pub(crate) fn oldest_waiting(&self, at_ms: Option<i64>) {
        self.oldest_waiting.set(at_ms.map_or(0.0, |ms| ms as f64 / 1000.0));
    }
}
