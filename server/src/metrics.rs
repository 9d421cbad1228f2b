//! What the server counts, and its text for Prometheus. Every counter is an atomic that any task may raise.
//!
//! Labels take values from short lists that are fixed in the code, never from a peer: so the number of series is bounded.
//! Names follow Prometheus's conventions: a prefix, base units, and `_total` for counters. What is raised for every message
//! is a plain atomic; a family, which is looked up by its labels, is for what happens once a session.

mod certificates;
mod operators;
mod process;
mod tables;
mod webhook;

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::{
    counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info,
};
use prometheus_client::registry::Registry as Series;

use crate::session::Dialect;
use crate::store::Kind;
pub use certificates::CertificateMetrics;
pub use operators::OperatorMetrics;
use process::Process;
pub(crate) use tables::OneMore;
pub use tables::{TableMetrics, Tables};
pub use webhook::WebhookMetrics;

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// From the fastest resumed handshake to the deadline of the slowest.
const HANDSHAKE_BUCKETS: [f64; 9] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const WRITE_BUCKETS: [f64; 7] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0];
/// The `reason` of what went well.
const NO_REASON: &str = "none";

/// The server's counters.
#[derive(Debug)]
pub struct Metrics {
    series: Series,
    ready: Gauge,
    nodes_heard: Gauge,
    nats_reached: Gauge,
    waiting: Gauge,
    sessions: Family<Speaking, Gauge>,
    handshakes: Family<HandshakeLabels, Counter>,
    handshake_seconds: Family<HandshakeKind, Histogram, fn() -> Histogram>,
    refusals: Family<Reason, Counter>,
    ended: Family<Reason, Counter>,
    devices: Family<Standing, Gauge>,
    quarantines: Counter,
    heartbeats: Counter,
    time_requests: Counter,
    skipped: Counter,
    frames: Traffic,
    bytes: Traffic,
    log_lost: Counter,
    certificates: CertificateMetrics,
    store: StoreMetrics,
    webhook: WebhookMetrics,
    operators: OperatorMetrics,
    tables: TableMetrics,
}

/// The part that the store's writer raises.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    queued: Gauge,
    pub(crate) lost: Counter,
    pub(crate) failures: Counter,
    pub(crate) write_seconds: Histogram,
    events: Family<KindOfEvent, Counter>,
}

/// What goes both ways.
#[derive(Debug)]
struct Traffic {
    both: Family<Direction, Counter>,
    received: Counter,
    sent: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Speaking {
    protocol: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HandshakeLabels {
    result: &'static str,
    reason: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HandshakeKind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindOfEvent {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Standing {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::beside(Counter::default())
    }

    /// As [`Self::new`], beside what the log counts already: its lines that were lost.
    #[must_use]
    pub fn beside(log_lost: Counter) -> Self {
        let mut metrics = Self {
            series: Series::default(),
            ready: Gauge::default(),
            nodes_heard: Gauge::default(),
            nats_reached: Gauge::default(),
            waiting: Gauge::default(),
            sessions: Family::default(),
            handshakes: Family::default(),
            handshake_seconds: Family::new_with_constructor(|| Histogram::new(HANDSHAKE_BUCKETS)),
            refusals: Family::default(),
            ended: Family::default(),
            devices: Family::default(),
            quarantines: Counter::default(),
            heartbeats: Counter::default(),
            time_requests: Counter::default(),
            skipped: Counter::default(),
            frames: Traffic::new(),
            bytes: Traffic::new(),
            log_lost,
            certificates: CertificateMetrics::default(),
            store: StoreMetrics::new(),
            webhook: WebhookMetrics::default(),
            operators: OperatorMetrics::default(),
            tables: TableMetrics::default(),
        };
        // So that a series is there, at zero, before the first of its kind: a rate is reckoned from two values.
        for kind in ["full", "resumed"] {
            drop(metrics.handshakes.get_or_create(&HandshakeLabels {
                result: "ok",
                reason: NO_REASON,
                kind,
            }));
        }
        for dialect in [Dialect::Native, Dialect::Classic] {
            drop(metrics.sessions.get_or_create(&Speaking { protocol: dialect.as_str() }));
        }
        metrics.name_series();
        metrics
    }

    fn name_series(&mut self) {
        self.series.register_collector(Box::new(Process::default()));
        let series = self.series.sub_registry_with_prefix("moorline");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        series.register("build", "The program's version", build);
        series.register(
            "ready",
            "Whether devices are served and what happens is stored: 1 or 0",
            self.ready.clone(),
        );
        series.register(
            "cluster_nodes_heard",
            "How many of the servers that share the fleet are heard, this one among them; 0 where it is alone",
            self.nodes_heard.clone(),
        );
        series.register(
            "cluster_nats_reached",
            "Whether NATS takes what this server tells the others: 1 or 0; 0 where it is alone",
            self.nats_reached.clone(),
        );
        series.register(
            "connections_waiting",
            "Connections that have not registered a device (yet)",
            self.waiting.clone(),
        );
        series.register("sessions", "Devices online, by protocol", self.sessions.clone());
        series.register(
            "handshakes",
            "TLS handshakes, by how they ended, and why not well",
            self.handshakes.clone(),
        );
        series.register(
            "handshake_seconds",
            "From the accepted connection to the finished handshake",
            self.handshake_seconds.clone(),
        );
        series.register("refusals", "Devices that were not taken in, by reason", self.refusals.clone());
        series.register(
            "sessions_ended",
            "Sessions of registered devices that ended, by reason",
            self.ended.clone(),
        );
        series.register("devices", "Devices known, by whether they are let in", self.devices.clone());
        series.register(
            "quarantines",
            "Devices that the server itself has quarantined, since they cannot be one",
            self.quarantines.clone(),
        );
        series.register("heartbeats", "Heartbeats answered", self.heartbeats.clone());
        series.register("time_requests", "Time requests answered", self.time_requests.clone());
        series.register("messages_skipped", "Messages that this version does not know", self.skipped.clone());
        series.register(
            "frames",
            "Frames on device connections whose handshake is over",
            self.frames.both.clone(),
        );
        series.register("tls_bytes", "Bytes on device connections, TLS included", self.bytes.both.clone());
        series.register(
            "log_lost_lines",
            "Log lines that were lost because standard error did not take them",
            self.log_lost.clone(),
        );
        self.certificates.name_series(series);
        self.store.name_series(series);
        self.webhook.name_series(series);
        self.operators.name_series(series);
        self.tables.name_series(series);
    }

    /// A TLS handshake ended well.
    pub fn shaken(&self, resumed: bool, seconds: f64) {
        self.handshake("ok", NO_REASON, resumed, seconds);
    }

    /// A TLS handshake failed; `reason` is a stable name from a fixed list.
    pub fn not_shaken(&self, reason: &'static str, resumed: bool, seconds: f64) {
        self.handshake("failed", reason, resumed, seconds);
    }

    fn handshake(&self, result: &'static str, reason: &'static str, resumed: bool, seconds: f64) {
        let kind = if resumed { "resumed" } else { "full" };
        self.handshakes.get_or_create(&HandshakeLabels { result, reason, kind }).inc();
        self.handshake_seconds.get_or_create(&HandshakeKind { kind }).observe(seconds);
    }

    /// A device was not taken in; `reason` is a stable name from a fixed list.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&Reason { reason }).inc();
    }

    /// The server has quarantined a device.
    pub fn quarantined(&self) {
        self.quarantines.inc();
    }

    /// So many devices are in this state, a stable name from a fixed list.
    pub fn devices(&self, state: &'static str, devices: usize) {
        self.devices.get_or_create(&Standing { state }).set(i64::try_from(devices).unwrap_or(i64::MAX));
    }

    /// A heartbeat was answered.
    pub fn heartbeat(&self) {
        self.heartbeats.inc();
    }

    /// A time request was answered.
    pub fn time_asked(&self) {
        self.time_requests.inc();
    }

    /// A message was skipped that this version does not know.
    pub fn skipped(&self) {
        self.skipped.inc();
    }

    /// So many bytes came on a device's connection.
    pub fn bytes_received(&self, bytes: usize) {
        self.bytes.received.inc_by(bytes as u64);
    }

    /// So many bytes went out on a device's connection.
    pub fn bytes_sent(&self, bytes: usize) {
        self.bytes.sent.inc_by(bytes as u64);
    }

    /// So many frames came.
    pub fn frames_received(&self, frames: u32) {
        self.frames.received.inc_by(frames.into());
    }

    /// A frame went out.
    pub fn frame_sent(&self) {
        self.frames.sent.inc();
    }

    /// Whether the server can do its work; to be told before [`Self::text`] is shown.
    pub fn ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }

    /// How many of the servers that share the fleet are heard, and whether NATS is reached.
    pub(crate) fn cluster(&self, heard: usize, reached: bool) {
        self.nodes_heard.set(i64::try_from(heard).unwrap_or(i64::MAX));
        self.nats_reached.set(reached.into());
    }

    /// So many connections have not registered a device.
    pub fn waiting(&self, connections: usize) {
        self.waiting.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    pub(crate) fn session_began(&self, dialect: Dialect) {
        self.sessions.get_or_create(&Speaking { protocol: dialect.as_str() }).inc();
    }

    pub(crate) fn session_ended(&self, dialect: Dialect, reason: &'static str) {
        self.sessions.get_or_create(&Speaking { protocol: dialect.as_str() }).dec();
        self.ended.get_or_create(&Reason { reason }).inc();
    }

    /// The certificates' part.
    #[must_use]
    pub const fn certificates(&self) -> &CertificateMetrics {
        &self.certificates
    }

    /// The store's part.
    #[must_use]
    pub const fn store(&self) -> &StoreMetrics {
        &self.store
    }

    /// The operators' side's part.
    #[must_use]
    pub const fn operators(&self) -> &OperatorMetrics {
        &self.operators
    }

    /// The tables' part.
    #[must_use]
    pub const fn tables(&self) -> &TableMetrics {
        &self.tables
    }

    /// The webhook's part.
    #[must_use]
    pub const fn webhook(&self) -> &WebhookMetrics {
        &self.webhook
    }

    /// Everything in Prometheus's text format.
    ///
    /// # Errors
    /// Never in practice: a `String` takes everything.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.series)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Traffic {
    fn new() -> Self {
        let both = Family::<Direction, Counter>::default();
        Self {
            received: both.get_or_create_owned(&Direction { direction: "received" }),
            sent: both.get_or_create_owned(&Direction { direction: "sent" }),
            both,
        }
    }
}

impl StoreMetrics {
    fn new() -> Self {
        Self {
            events: Family::default(),
            queued: Gauge::default(),
            lost: Counter::default(),
            failures: Counter::default(),
            write_seconds: Histogram::new(WRITE_BUCKETS),
        }
    }

    /// So many events wait, or rows of devices.
    pub(crate) fn queue_length(&self, rows: usize) {
        self.queued.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// An event was stored.
    pub(crate) fn stored(&self, kind: Kind) {
        self.events.get_or_create(&KindOfEvent { kind: kind.as_str() }).inc();
    }

    fn name_series(&self, series: &mut Series) {
        series.register("events", "What happened and was stored, by kind", self.events.clone());
        series.register(
            "store_queue_length",
            "Events and devices that wait to be stored",
            self.queued.clone(),
        );
        series.register(
            "store_lost_events",
            "Events that were never stored: the queue was full, or the store failed until the end",
            self.lost.clone(),
        );
        series.register(
            "store_failures",
            "Attempts to write to the store that failed",
            self.failures.clone(),
        );
        series.register("store_write_seconds", "How long one batch took", self.write_seconds.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(metrics: &Metrics) -> String {
        metrics.text().unwrap()
    }

    #[test]
    fn counters_are_named_by_convention() {
        let metrics = Metrics::new();
        metrics.heartbeat();
        metrics.shaken(true, 0.02);
        metrics.not_shaken("expired", false, 0.02);
        metrics.refused("identity_mismatch");
        metrics.bytes_received(10);
        metrics.bytes_sent(20);
        metrics.waiting(3);
        let text = text_of(&metrics);
        for line in [
            "moorline_heartbeats_total 1",
            "moorline_handshakes_total{result=\"ok\",reason=\"none\",kind=\"resumed\"} 1",
            "moorline_handshakes_total{result=\"ok\",reason=\"none\",kind=\"full\"} 0",
            "moorline_handshakes_total{result=\"failed\",reason=\"expired\",kind=\"full\"} 1",
            "moorline_handshake_seconds_bucket{kind=\"resumed\",le=\"0.025\"} 1",
            "moorline_refusals_total{reason=\"identity_mismatch\"} 1",
            "moorline_tls_bytes_total{direction=\"sent\"} 20",
            "moorline_connections_waiting 3",
            "moorline_store_lost_events_total 0",
            "moorline_sessions{protocol=\"classic\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn sessions_rise_and_fall() {
        let metrics = Metrics::new();
        metrics.session_began(Dialect::Native);
        metrics.session_began(Dialect::Native);
        metrics.session_ended(Dialect::Native, "idle");
        let text = text_of(&metrics);
        assert!(text.contains("moorline_sessions{protocol=\"native\"} 1\n"), "{text}");
        assert!(text.contains("moorline_sessions_ended_total{reason=\"idle\"} 1\n"), "{text}");
    }
}
