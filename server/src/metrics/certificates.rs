//! The part that the watch over certificates raises.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry as Series;

use crate::registry::ByRemaining;

/// See the module.
#[derive(Debug, Default)]
pub struct CertificateMetrics {
    list_reads: Family<ReadLabels, Counter>,
    list_refused: Gauge,
    /// Seconds since 1970; no series while there is no list.
    list_due: Family<NoLabels, Gauge>,
    own_end: Gauge,
    devices: Family<RemainingLabels, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NoLabels {}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RemainingLabels {
    remaining: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReadLabels {
    result: &'static str,
}

const TAKEN: ReadLabels = ReadLabels { result: "taken" };
const REFUSED: ReadLabels = ReadLabels { result: "refused" };

impl CertificateMetrics {
    pub(super) fn name_series(&self, series: &mut Series) {
        for labels in [TAKEN, REFUSED] {
            // So that a series is there, at zero, before the first of its kind.
            drop(self.list_reads.get_or_create(&labels));
        }
        series.register(
            "crl_reads",
            "Revocation lists that were read because their file had changed, by what came of it",
            self.list_reads.clone(),
        );
        series.register(
            "crl_refused",
            "1 while the revocation list's file is of no use and an earlier list is in force",
            self.list_refused.clone(),
        );
        series.register(
            "crl_next_update_timestamp_seconds",
            "When the first of the revocation lists in force is due to be made anew",
            self.list_due.clone(),
        );
        series.register(
            "server_certificate_expiry_timestamp_seconds",
            "When the server's own certificate expires",
            self.own_end.clone(),
        );
        series.register(
            "device_certificates",
            "Devices by what is left of their certificate's time, online or not",
            self.devices.clone(),
        );
    }

    /// A revocation list's file was replaced and is in force.
    pub(crate) fn list_taken(&self) {
        self.list_reads.get_or_create(&TAKEN).inc();
    }

    /// What is in force is what the files say: the server's certificate ends then, and the next of the lists is due then,
    /// UTC milliseconds since 1970.
    pub(crate) fn in_force(&self, (own_end_ms, list_due_ms): (i64, Option<i64>)) {
        self.list_refused.set(0);
        self.own_end.set(own_end_ms / 1000);
        match list_due_ms {
            Some(due_ms) => {
                self.list_due.get_or_create(&NoLabels {}).set(due_ms / 1000);
            }
            None => {
                self.list_due.remove(&NoLabels {});
            }
        }
    }

    /// So many devices have so much left of their certificate.
    pub(crate) fn devices(&self, counts: &ByRemaining) {
        for (step, count) in counts {
            let labels = RemainingLabels { remaining: step.as_str() };
            self.devices.get_or_create(&labels).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }

    /// It was replaced by one of no use.
    pub(crate) fn list_refused(&self) {
        self.list_reads.get_or_create(&REFUSED).inc();
        self.list_refused.set(1);
    }
}
