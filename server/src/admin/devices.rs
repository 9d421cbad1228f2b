//! `/api/devices`: what is known of devices, whole and in pages.

use std::num::NonZeroU32;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use moorline_protocol::Imei;
use serde::Serialize;

use super::Operators;
use super::problem::Problem;
use super::query::Parameters;
use super::time::Time;
use super::usage::UsageView;
use crate::clock;
use crate::expiry;
use crate::registry::{Filter, Page, Registry, Shown, Standing};
use crate::session::{Bounds, Dialect};
use crate::store::{Credential, Device, Hold, HoldKind, Report};

pub(super) const MAX_LIMIT: usize = 1000;
const DEFAULT_LIMIT: usize = 100;
pub(super) const PARAMETERS: [&str; 10] = [
    "limit",
    "after",
    "online",
    "seen",
    "state",
    "protocol",
    "agent_version",
    "signal_below",
    "certificate",
    "search",
];
const STATES: [(&str, Standing); 3] = [
    ("active", Standing::Active),
    ("blocked", Standing::Held(HoldKind::Blocked)),
    ("quarantined", Standing::Held(HoldKind::Quarantined)),
];

#[derive(Serialize)]
pub(super) struct DeviceList {
    devices: Vec<DeviceView>,
    /// Ask for `after=` this one to get the next page.
    next: Option<String>,
    total: usize,
}

/// A device. Of its latest session when it is offline; all of that is `null` while it never came.
#[derive(Serialize)]
pub(super) struct DeviceView {
    imei: String,
    label: Option<String>,
    online: bool,
    /// `active`, `blocked` or `quarantined`.
    state: &'static str,
    state_since: Option<Time>,
    state_reason: Option<String>,
    /// When an operator added it before it came.
    added_at: Option<Time>,
    protocol: Option<&'static str>,
    app_id: Option<String>,
    address: Option<String>,
    connected_at: Option<Time>,
    last_seen: Option<Time>,
    first_seen: Option<Time>,
    /// The longest silence that it was granted, or told since.
    heartbeat_s: Option<u32>,
    agent_version: Option<String>,
    modem: Option<String>,
    tls: Option<String>,
    session_id: Option<u64>,
    /// Which of several servers holds the session.
    node: Option<String>,
    certificate: Option<CertificateView>,
    disconnected_at: Option<Time>,
    disconnect_cause: Option<String>,
    status: Option<StatusView>,
    usage: Option<UsageView>,
    heartbeat_bounds: Option<BoundsView>,
}

/// What an operator set for it; a bound of `null` is the fleet's.
#[derive(Serialize)]
struct BoundsView {
    min_s: Option<NonZeroU32>,
    max_s: Option<NonZeroU32>,
}

/// How a device and its line were when it last told.
#[derive(Serialize)]
struct StatusView {
    at: Time,
    signal_dbm: Option<i16>,
    /// `<stat>` of +CREG.
    registration: Option<u8>,
    operator: Option<String>,
    uptime_s: Option<u32>,
    memory_kb: Option<u32>,
    /// One-minute load average.
    load: Option<f32>,
    /// Degrees Celsius.
    temperature: Option<f32>,
}

#[derive(Serialize)]
struct CertificateView {
    serial: String,
    issuer: String,
    expires_at: Time,
}

pub(super) async fn list(State(operators): State<Operators>, uri: Uri) -> Result<Json<DeviceList>, Problem> {
    let parameters = Parameters::read(&uri, &PARAMETERS)?;
    let limit = parameters.number("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let after: Option<Imei> = parameters.parsed("after", "an IMEI")?;
    let filter = read_filter(&parameters)?;
    // A large fleet takes some milliseconds to look through.
    let look = tokio::task::spawn_blocking(move || operators.registry.list(&filter, after, limit));
    let Page { devices, next, total } = look.await.map_err(|fault| Problem::internal(&fault))?;
    let devices = devices.into_iter().map(DeviceView::from).collect();
    Ok(Json(DeviceList { devices, next: next.map(|imei| imei.to_string()), total }))
}

/// Which devices are wanted.
pub(super) fn read_filter(parameters: &Parameters) -> Result<Filter, Problem> {
    let now_ms = clock::now().utc_ms;
    Ok(Filter {
        online: parameters.choice("online", &[("true", true), ("false", false)])?,
        seen: parameters.choice("seen", &[("true", true), ("false", false)])?,
        standing: parameters.choice("state", &STATES)?,
        agent_version: parameters.text("agent_version").map(str::to_owned),
        certificate_ends: parameters.choice(
            "certificate",
            &[("expiring", expiry::soon(now_ms)), ("expired", expiry::past(now_ms))],
        )?,
        signal_below: parameters.number("signal_below", -200..=0)?,
        dialect: parameters
            .choice("protocol", &[("native", Dialect::Native), ("classic", Dialect::Classic)])?,
        search: parameters.text("search").filter(|search| !search.is_empty()).map(str::to_lowercase),
    })
}

pub(super) async fn one(
    State(operators): State<Operators>,
    Path(text): Path<String>,
) -> Result<Json<DeviceView>, Problem> {
    let shown = find(&operators.registry, read_imei(&text)?)?;
    Ok(Json(shown.into()))
}

/// The IMEI in a path.
pub(super) fn read_imei(text: &str) -> Result<Imei, Problem> {
    text.parse().map_err(|why| {
        Problem::new(StatusCode::BAD_REQUEST, format!("{} is no IMEI: {why}", text.escape_debug()))
    })
}

/// A device that is known.
pub(super) fn find(registry: &Registry, imei: Imei) -> Result<Shown, Problem> {
    registry.get(imei).ok_or_else(|| unknown(imei))
}

pub(super) fn unknown(imei: Imei) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("no device with the IMEI {imei} ever came or was added"))
}

impl From<Shown> for DeviceView {
    fn from(Shown { imei, device, online, node, settings, report, usage }: Shown) -> Self {
        let device = device.as_ref();
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let session = device.map(|device| &device.session);
        let ended = session.and_then(|session| session.ended.as_ref());
        let hold = settings.hold.as_ref();
        let Bounds { min_s, max_s } = settings.bounds;
        Self {
            imei: imei.to_string(),
            label: settings.label.as_deref().map(str::to_owned),
            online,
            state: hold.map_or("active", |hold| hold.kind.as_str()),
            state_since: hold.map(|hold| Time(hold.since_ms)),
            state_reason: hold.and_then(|Hold { reason, .. }| said(reason)),
            added_at: settings.added_ms.map(Time),
            protocol: session.map(|session| session.dialect.as_str()),
            app_id: device.and_then(Device::app_id_text),
            address: session.map(|session| session.address.to_string()),
            connected_at: session.map(|session| Time(session.connected_at_ms)),
            last_seen: device.map(|device| Time(device.last_seen_ms)),
            first_seen: device.map(|device| Time(device.first_seen_ms)),
            heartbeat_s: session.and_then(|session| session.heartbeat_s),
            agent_version: device.and_then(|device| said(&device.agent_version)),
            modem: device.and_then(|device| said(&device.modem)),
            tls: session.map(|session| session.tls.to_string()),
            session_id: session.map(|session| session.id),
            node: node.map(|node| node.to_string()),
            certificate: device.and_then(|device| device.certificate.as_ref()).map(CertificateView::from),
            disconnected_at: ended.map(|ended| Time(ended.at_ms)),
            disconnect_cause: ended.map(|ended| ended.cause.to_string()),
            status: report.map(StatusView::from),
            usage: usage.map(UsageView::from),
            heartbeat_bounds: (settings.bounds != Bounds::NONE).then_some(BoundsView { min_s, max_s }),
        }
    }
}

impl From<&Credential> for CertificateView {
    fn from(Credential { serial, issuer, not_after_ms, told: _ }: &Credential) -> Self {
        Self { serial: serial.to_string(), issuer: issuer.to_string(), expires_at: Time(*not_after_ms) }
    }
}

impl From<Report> for StatusView {
    fn from(Report { status, at_ms }: Report) -> Self {
        Self {
            at: Time(at_ms),
            signal_dbm: status.signal_dbm,
            registration: status.registration,
            operator: status.operator.map(|operator| operator.to_string()),
            uptime_s: status.uptime_s,
            memory_kb: status.memory_kb,
            load: status.load.map(load),
            temperature: status.temperature.map(degrees),
        }
    }
}

/// A load average of hundredths.
pub(super) fn load(hundredths: u16) -> f32 {
    f32::from(hundredths) / 100.0
}

/// Degrees Celsius of their tenths.
pub(super) fn degrees(tenths: i16) -> f32 {
    f32::from(tenths) / 10.0
}
