//! The part that the watch over certificates raises.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry as Series;

/// See the module.
#[derive(Debug, Default)]
pub struct CertificateMetrics {
    list_reads: Family<ReadLabels, Counter>,
    list_refused: Gauge,
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
    }

    /// A revocation list's file was replaced and is in force.
    pub(crate) fn list_taken(&self) {
        self.list_reads.get_or_create(&TAKEN).inc();
    }

    /// What is in force is what the files say.
    pub(crate) fn in_force(&self) {
        self.list_refused.set(0);
    }

    /// It was replaced by one of no use.
    pub(crate) fn list_refused(&self) {
        self.list_reads.get_or_create(&REFUSED).inc();
        self.list_refused.set(1);
    }
}
