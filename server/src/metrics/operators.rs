//! What the operators' side counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::{OneMore, Reason, Series};

/// Why somebody can be refused. A browser shows no token before it is asked for one, so that is no reason.
const REASONS: [&str; 3] = ["wrong_token", "too_many", "tls"];

/// The part that the operators' side raises.
#[derive(Clone, Debug, Default)]
pub struct OperatorMetrics {
    refusals: Family<Reason, Counter>,
    connections: Gauge,
    streams: Gauge,
}

impl OperatorMetrics {
    pub(super) fn name_series(&self, series: &mut Series) {
        for reason in REASONS {
            // So that a series is there, at zero, before the first of its kind.
            drop(self.refusals.get_or_create(&Reason { reason }));
        }
        series.register(
            "operator_refusals",
            "Requests and connections of operators that were refused, by reason",
            self.refusals.clone(),
        );
        series.register(
            "operator_connections",
            "Operators' connections, those who follow events among them",
            self.connections.clone(),
        );
        series.register("event_streams", "Those who follow events", self.streams.clone());
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&Reason { reason }).inc();
    }

    /// An operator's connection is there until what is returned is dropped.
    pub(crate) fn connection(&self) -> OneMore {
        OneMore::of(&self.connections)
    }

    pub(crate) fn stream_began(&self) {
        self.streams.inc();
    }

    pub(crate) fn stream_ended(&self) {
        self.streams.dec();
    }
}
