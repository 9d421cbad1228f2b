//! The fleet: how many devices there are of each kind, and a table of them that is searched, filtered and leafed through.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Html;
use maud::{Markup, html};
use moorline_protocol::Imei;

use super::super::Operators;
use super::super::devices::{self, MAX_LIMIT, PARAMETERS};
use super::super::health::troubles;
use super::super::history::slots_since;
use super::super::problem::Problem;
use super::super::query::Parameters;
use super::chart::{self, DAY_MS};
use super::{Page, look, stream_after, words};
use crate::clock;
use crate::cluster::NodeShown;
use crate::expiry::Remaining;
use crate::registry::{self, Counts, Earlier, Shown};
use crate::store::Slot;

/// How many devices a page has.
const DEFAULT_LIMIT: usize = 50;
/// How many versions of agents can be chosen from.
const MAX_VERSIONS: usize = 50;
/// A field of the form: its name, its label, what can be chosen.
type Field = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const ONLINE: Field = ("online", "Connection", &[("true", "online"), ("false", "offline")]);
const SEEN: Field = ("seen", "Came", &[("true", "at least once"), ("false", "never")]);
const STATE: Field =
    ("state", "State", &[("active", "active"), ("blocked", "blocked"), ("quarantined", "quarantined")]);
const PROTOCOL: Field = ("protocol", "Protocol", &[("native", "native"), ("classic", "classic")]);
const SIGNAL: Field = ("signal_below", "Signal", &[("-85", "below −85 dBm"), ("-100", "below −100 dBm")]);
const CERTIFICATE: Field =
    ("certificate", "Certificate", &[("expiring", "expires soon"), ("expired", "expired")]);

/// All that the page shows.
struct Fleet {
    parameters: Parameters,
    limit: usize,
    stream: String,
    now_ms: i64,
    counts: Counts,
    /// Why what is shown may be less than there is.
    troubles: Vec<String>,
    nodes: Vec<NodeShown>,
    slots: Vec<Slot>,
    versions: BTreeSet<Arc<str>>,
    page: registry::Page,
    /// What lies before the page, where something does.
    earlier: Option<Earlier>,
}

pub(in super::super) async fn fleet(
    State(operators): State<Operators>,
    uri: Uri,
) -> Result<Html<String>, Problem> {
    let parameters = Parameters::read_form(&uri, &PARAMETERS)?;
    let limit = parameters.number("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let after: Option<Imei> = parameters.parsed("after", "an IMEI")?;
    let filter = devices::read_filter(&parameters)?;
    let fleet = look(operators, move |operators| {
        let Operators { registry, store, .. } = operators;
        let now = clock::now();
        Ok(Fleet {
            stream: stream_after(&**store, "")?,
            now_ms: now.utc_ms,
            counts: registry.counts(),
            troubles: troubles(operators),
            nodes: operators.cluster.as_ref().map(|cluster| cluster.nodes()).unwrap_or_default(),
            slots: slots_since(operators, now.utc_ms - DAY_MS, now)?,
            versions: registry.agent_versions(MAX_VERSIONS),
            page: registry.list(&filter, after, limit),
            earlier: after.map(|after| registry.earlier(&filter, after, limit)),
            parameters,
            limit,
        })
    });
    Ok(fleet.await?.render())
}

impl Fleet {
    fn render(self) -> Html<String> {
        let content = html! {
            h1.visually-hidden { "Fleet" }
            div #troubles data-live {
                @for trouble in &self.troubles { p.banner role="status" { (trouble) } }
            }
            (counts(&self.counts))
            (self.nodes())
            div #charts .charts data-live {
                (chart::online(&self.slots, self.now_ms))
                (chart::changes(&self.slots, self.now_ms))
            }
            (self.form())
            section #devices data-live aria-label="Devices" {
                (self.found())
                @if self.page.devices.is_empty() { (self.nothing()) } @else { (self.table()) }
                (self.leaves())
            }
        };
        Page { title: "Fleet · Moorline".to_owned(), stream: Some(self.stream), content }.render()
    }

    /// The servers that share the fleet.
    fn nodes(&self) -> Markup {
        html! {
            section #nodes data-live aria-label="Servers" {
                @if !self.nodes.is_empty() {
                    p {
                        @for (number, node) in self.nodes.iter().enumerate() {
                            @if number > 0 { " · " }
                            @if node.is_heard { (words::count(node.online)) " at " } @else { "not heard: " }
                            strong { (node.name) }
                            @if node.is_self { " (this server)" }
                        }
                    }
                }
            }
        }
    }

    fn form(&self) -> Markup {
        let value = |name| self.parameters.text(name).unwrap_or_default();
        html! {
            form.filters role="search" method="get" action="/" {
                div.field.wide {
                    label for="search" { "Search " kbd { "/" } }
                    input #search type="search" name="search" value=(value("search")) maxlength="200"
                        placeholder="IMEI, label, address, modem…" autocomplete="off" spellcheck="false";
                }
                @for field in [ONLINE, STATE, SEEN, PROTOCOL] { (select(field, value(field.0))) }
                div.field {
                    label for="agent_version" { "Agent" }
                    select #agent_version name="agent_version" {
                        option value="" { "any" }
                        @for version in self.versions.iter() {
                            option value=(version) selected[**version == *value("agent_version")] { (version) }
                        }
                        @let other = value("agent_version");
                        @if !other.is_empty() && !self.versions.contains(other) {
                            option value=(other) selected { (other) }
                        }
                    }
                }
                (select(SIGNAL, value(SIGNAL.0)))
                (select(CERTIFICATE, value(CERTIFICATE.0)))
                @if let Some(limit) = self.parameters.text("limit") {
                    input type="hidden" name="limit" value=(limit);
                }
                div.field.buttons {
                    button type="submit" { "Filter" }
                    @if self.is_filtered() { a href="/" { "Clear" } }
                }
            }
        }
    }

    fn is_filtered(&self) -> bool {
        self.parameters.pairs().any(|(name, _)| !matches!(name, "after" | "limit"))
    }

    /// Which of how many are shown.
    fn found(&self) -> Markup {
        let registry::Page { devices, total, .. } = &self.page;
        let before = self.earlier.map_or(0, |earlier| earlier.count);
        let what = if self.is_filtered() { "that match" } else { "in all" };
        html! {
            p.found {
                @if !devices.is_empty() {
                    strong { (words::count(before + 1)) "–" (words::count(before + devices.len())) }
                    " of " (words::count(*total)) " " (what)
                }
            }
        }
    }

    fn nothing(&self) -> Markup {
        html! {
            div.nothing {
                @if self.is_filtered() {
                    p { "No device matches." }
                    p { a href="/" { "Show all devices" } }
                } @else if self.earlier.is_some() {
                    p { "No device comes after this place." }
                    p { a href="/" { "Back to the first" } }
                } @else {
                    p { "No device has come yet." }
                    p { "One is shown as soon as it connects, or is added from a list of IMEIs." }
                }
            }
        }
    }

    fn table(&self) -> Markup {
        html! {
            table.cards {
                thead { tr {
                    th scope="col" { "Device" }
                    th scope="col" { "State" }
                    th scope="col" { "Last heard" }
                    th scope="col" { "Signal" }
                    th scope="col" { "Modem" }
                    th scope="col" { "Agent" }
                    th scope="col" { "Certificate" }
                } }
                tbody { @for shown in &self.page.devices { (row(shown, self.now_ms)) } }
            }
        }
    }

    /// To the other pages.
    fn leaves(&self) -> Markup {
        let next = self.page.next.map(|imei| imei.to_string());
        html! {
            @if self.earlier.is_some() || next.is_some() {
                nav.leaves aria-label="Pages" {
                    @if let Some(Earlier { after, .. }) = self.earlier {
                        a href=(self.link(None)) { "First" }
                        a rel="prev" href=(self.link(after.map(|imei| imei.to_string()).as_deref())) { "Previous" }
                    }
                    @if let Some(next) = next { a rel="next" href=(self.link(Some(&next))) { "Next" } }
                    span { (words::count(self.limit)) " a page" }
                }
            }
        }
    }

    /// The same list from another place on.
    fn link(&self, after: Option<&str>) -> String {
        let kept = self.parameters.pairs().filter(|(name, _)| *name != "after");
        let mut link = String::from("/");
        for (name, value) in kept.chain(after.map(|after| ("after", after))) {
            link.push(if link.len() == 1 { '?' } else { '&' });
            link.push_str(name);
            link.push('=');
            encode(value, &mut link);
        }
        link
    }
}

/// In the form that a query has (RFC 3986 section 2).
fn encode(text: &str, link: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            link.push(char::from(byte));
        } else {
            // A `String` takes everything.
            let _ = write!(link, "%{byte:02X}");
        }
    }
}

fn counts(counts: &Counts) -> Markup {
    let Counts { known, online, blocked, quarantined, never_seen } = *counts;
    let offline = known.saturating_sub(online).saturating_sub(never_seen);
    let one = |class: &str, number: usize, name: &str, link: &str| {
        html! {
            li class=(class) data-none[number == 0] {
                a href=(link) { strong { (words::count(number)) } " " span { (name) } }
            }
        }
    };
    html! {
        ul #counts .counts data-live aria-live="polite" aria-label="How many devices there are" {
            (one("online", online, "online", "/?online=true"))
            (one("offline", offline, "offline", "/?online=false&seen=true"))
            (one("quarantined", quarantined, "quarantined", "/?state=quarantined"))
            (one("blocked", blocked, "blocked", "/?state=blocked"))
            (one("never", never_seen, "never seen", "/?seen=false"))
        }
    }
}

fn select((name, label, choices): Field, chosen: &str) -> Markup {
    let is_other = !chosen.is_empty() && !choices.iter().any(|(value, _)| *value == chosen);
    html! {
        div.field {
            label for=(name) { (label) }
            select id=(name) name=(name) {
                option value="" { "any" }
                @for (value, words) in choices {
                    option value=(value) selected[*value == chosen] { (words) }
                }
                @if is_other { option value=(chosen) selected { (chosen) } }
            }
        }
    }
}

fn row(shown: &Shown, now_ms: i64) -> Markup {
    let Shown { imei, device, settings, report, .. } = shown;
    let device = device.as_ref();
    let certificate = device.and_then(|device| device.certificate.as_ref());
    let signal = report.as_ref().and_then(|report| report.status.signal_dbm);
    html! {
        tr data-key=(imei) {
            td data-label="Device" {
                a href={ "/devices/" (imei) } {
                    @if let Some(label) = &settings.label { (label) } @else { span.imei { (imei) } }
                }
                @if settings.label.is_some() { div.imei.note { (imei) } }
            }
            td data-label="State" { (state(shown)) (why(shown, now_ms)) }
            td data-label="Last heard" {
                @if let Some(device) = device { (words::time(device.last_seen_ms, now_ms)) } @else { "–" }
            }
            td data-label="Signal" { @if let Some(dbm) = signal { (bars(dbm)) } @else { "–" } }
            td data-label="Modem" { (or_dash(device.map(|device| &*device.modem))) }
            td data-label="Agent" {
                (or_dash(device.map(|device| &*device.agent_version)))
                @if let Some(device) = device { div.note { (device.session.dialect) } }
            }
            td data-label="Certificate" {
                @if let Some(certificate) = certificate { (expiry(certificate.not_after_ms, now_ms)) } @else { "–" }
            }
        }
    }
}

fn or_dash(text: Option<&str>) -> Markup {
    html! { @match text { Some(text) if !text.is_empty() => { (text) }, _ => { "–" } } }
}

/// How a device stands, in a word.
pub(super) fn state(shown: &Shown) -> Markup {
    let (class, word) = match &shown.settings.hold {
        Some(hold) => ("held", hold.kind.as_str()),
        None if shown.online => ("online", "online"),
        None if shown.device.is_some() => ("offline", "offline"),
        None => ("never", "never seen"),
    };
    html! { span.state.(class) { (word) } }
}

/// Since when it stands so, and why.
fn why(shown: &Shown, now_ms: i64) -> Markup {
    let session = shown.device.as_ref().map(|device| &device.session);
    html! {
        div.note {
            @if let Some(hold) = &shown.settings.hold {
                (words::time(hold.since_ms, now_ms))
                @if !hold.reason.is_empty() { ": " (hold.reason) }
            } @else if let Some(session) = session {
                @match &session.ended {
                    Some(ended) => { (words::cause(&ended.cause)) ", " (words::time(ended.at_ms, now_ms)) },
                    None => { "came " (words::time(session.connected_at_ms, now_ms)) },
                }
            } @else if let Some(added_ms) = shown.settings.added_ms {
                "added " (words::time(added_ms, now_ms))
            }
        }
    }
}

/// A signal as bars, with its number.
pub(super) fn bars(dbm: i16) -> Markup {
    let (word, full) = words::signal(dbm);
    html! {
        span.signal.weak[full == 1] title=(word) {
            i.bars.{ "b" (full) } {}
            // The true minus sign, which keeps to its number.
            "−" (dbm.unsigned_abs()) " dBm"
            span.visually-hidden { ", " (word) }
        }
    }
}

/// When a certificate ends, loud when that is soon.
pub(super) fn expiry(not_after_ms: i64, now_ms: i64) -> Markup {
    let (class, words) = match Remaining::at(now_ms, not_after_ms) {
        Remaining::Nothing => ("bad", "expired "),
        Remaining::Week => ("bad", "expires "),
        Remaining::Month => ("warn", "expires "),
        Remaining::Later => ("", "expires "),
    };
    html! { span class=(class) { (words) (words::time(not_after_ms, now_ms)) } }
}
