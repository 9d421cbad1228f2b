//! How full the tables are that devices and operators fill. SPECIFICATION.md says what each is bounded by.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{family::Family, gauge::Gauge};
use prometheus_client::registry::Registry as Series;

/// See the module.
#[derive(Debug, Default)]
pub struct TableMetrics {
    handshakes_begun: Gauge,
    handshakes_waiting: Gauge,
    tls_sessions: Gauge,
    familiar_sources: Gauge,
    shared_texts: Gauge,
    store_bytes: Family<FileOfStore, Gauge>,
}

/// What was found at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Handshakes that wait for their turn to begin.
    pub handshakes_waiting: usize,
    /// TLS sessions that a device may resume.
    pub tls_sessions: usize,
    /// Sources from which devices registered lately.
    pub familiar_sources: usize,
    /// Bytes of the database's file.
    pub database: u64,
    /// Bytes of the journal beside it.
    pub journal: u64,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FileOfStore {
    file: &'static str,
}

/// One more of something that is there, until it is dropped.
#[derive(Debug)]
pub(crate) struct OneMore(Gauge);

impl TableMetrics {
    pub(super) fn name_series(&self, series: &mut Series) {
        let mut name = |name, help, gauge: &Gauge| series.register(name, help, gauge.clone());
        name("handshakes_begun", "Handshakes that have had a turn and are not over", &self.handshakes_begun);
        name("handshakes_waiting", "Handshakes that wait for their turn to begin", &self.handshakes_waiting);
        name("tls_sessions_kept", "TLS sessions that a device may resume", &self.tls_sessions);
        name(
            "familiar_sources",
            "Addresses and networks from which devices registered lately",
            &self.familiar_sources,
        );
        name("shared_texts", "Texts of devices that are kept once for all", &self.shared_texts);
        series.register("store_bytes", "What the store takes of the disk, by file", self.store_bytes.clone());
    }

    /// A handshake has had its first turn; it is over when what is returned is dropped.
    pub(crate) fn handshake_begun(&self) -> OneMore {
        OneMore::of(&self.handshakes_begun)
    }

    /// What a look found.
    pub(crate) fn found(&self, tables: Tables) {
        self.handshakes_waiting.set(value(tables.handshakes_waiting));
        self.tls_sessions.set(value(tables.tls_sessions));
        self.familiar_sources.set(value(tables.familiar_sources));
        for (file, bytes) in [("database", tables.database), ("journal", tables.journal)] {
            self.store_bytes.get_or_create(&FileOfStore { file }).set(value(bytes));
        }
    }

    /// So many texts are kept.
    pub(crate) fn texts(&self, texts: usize) {
        self.shared_texts.set(value(texts));
    }
}

fn value(found: impl TryInto<i64>) -> i64 {
    found.try_into().unwrap_or(i64::MAX)
}

impl OneMore {
    pub(super) fn of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for OneMore {
    fn drop(&mut self) {
        self.0.dec();
    }
}
