//! One device: how it stands, its session, certificate and modem, what happened to it, and what operators may do with it.

use std::num::NonZeroU32;

use axum::extract::{Path, State};
use axum::response::Html;
use maud::{Markup, html};
use moorline_config::Size;
use moorline_protocol::{Imei, Used};

use super::super::Operators;
use super::super::devices;
use super::super::problem::Problem;
use super::chart::{self, WEEK_MS};
use super::fleet::{bars, expiry, state};
use super::{Page, look, stream_after, words};
use crate::clock;
use crate::expiry::Remaining;
use crate::registry::{Level, Shown, UsageReport};
use crate::session::{Bounds, Dialect, LEAST, LONGEST};
use crate::store::{Device, EventQuery, Hour, MAX_LABEL, MAX_REASON, Report, StoredEvent};

/// How many of its events are shown, the newest first.
const EVENTS: usize = 50;

/// All that the page shows.
struct View {
    imei: Imei,
    stream: String,
    now_ms: i64,
    shown: Shown,
    events: Vec<StoredEvent>,
    /// The last week's.
    hours: Vec<Hour>,
}

pub(in super::super) async fn device(
    State(operators): State<Operators>,
    Path(text): Path<String>,
) -> Result<Html<String>, Problem> {
    let imei = devices::read_imei(&text)?;
    let view = look(operators, move |Operators { registry, store, .. }| {
        let stream = stream_after(&**store, &format!("&imei={imei}"))?;
        let query = EventQuery { after: None, imei: Some(imei), limit: EVENTS };
        let mut events = store.events(&query).map_err(|fault| Problem::internal(&fault))?.events;
        events.reverse();
        let shown = devices::find(registry, imei)?;
        let now_ms = clock::now().utc_ms;
        let hours = store.hours(imei, now_ms - WEEK_MS).map_err(|fault| Problem::internal(&fault))?;
        Ok(View { imei, stream, now_ms, shown, events, hours })
    });
    Ok(view.await?.render())
}

impl View {
    fn render(self) -> Html<String> {
        let name = self.shown.settings.label.as_deref().map_or_else(|| self.imei.to_string(), str::to_owned);
        let content = html! {
            nav.trail aria-label="Where this is" { a href="/" { "Fleet" } " / " span aria-current="page" { (name) } }
            div #head data-live { (self.head(&name)) }
            (self.actions())
            div #facts .facts data-live {
                (self.session())
                @if let Some(report) = &self.shown.usage { (usage(report, self.now_ms)) }
                (self.identity())
                (self.modem())
            }
            section #events data-live {
                h2 { "Events" }
                (self.events())
            }
        };
        Page { title: format!("{name} · Moorline"), stream: Some(self.stream), content }.render()
    }

    fn head(&self, name: &str) -> Markup {
        let hold = self.shown.settings.hold.as_ref();
        html! {
            h1 { (name) " " (state(&self.shown)) }
            p.imei.note { "IMEI " (self.imei) }
            @if let Some(hold) = hold {
                p.banner role="note" {
                    strong { (hold.kind.as_str()) " " (words::time(hold.since_ms, self.now_ms)) }
                    @if hold.reason.is_empty() { ", no reason given" } @else { ": " (hold.reason) }
                }
            }
        }
    }

    fn session(&self) -> Markup {
        let Some(device) = &self.shown.device else {
            return card(
                "Session",
                &html! {
                    p { "It has never come." }
                    (list(&fact("Silence", &self.bounds())))
                },
            );
        };
        let session = &device.session;
        let heartbeat = match (session.heartbeat_s, session.dialect) {
            (Some(seconds), _) => words::seconds(seconds),
            (None, Dialect::Classic) => "as the device likes (classic)".to_owned(),
            (None, Dialect::Native) => "–".to_owned(),
        };
        let facts = html! {
            (fact("Came", &words::time(session.connected_at_ms, self.now_ms)))
            @if let Some(ended) = &session.ended {
                (fact("Went", &words::time(ended.at_ms, self.now_ms)))
                (fact("Why", &html! { (words::cause(&ended.cause)) }))
            }
            (fact("Last heard", &words::time(device.last_seen_ms, self.now_ms)))
            (fact("Address", &html! { span.mono { (session.address) } }))
            (fact("Protocol", &html! { (session.dialect) ", TLS " (session.tls) }))
            (fact("Longest silence", &html! { (heartbeat) }))
            (fact("Its bounds", &self.bounds()))
            (fact("Session", &html! { (session.id) }))
        };
        card(if self.shown.online { "Session" } else { "Last session" }, &list(&facts))
    }

    fn identity(&self) -> Markup {
        let device = self.shown.device.as_ref();
        let certificate = device.and_then(|device| device.certificate.as_ref());
        let facts = html! {
            @if let Some(certificate) = certificate {
                (fact("Certificate", &expiry(certificate.not_after_ms, self.now_ms)))
                @match Remaining::at(self.now_ms, certificate.not_after_ms) {
                    Remaining::Nothing => {
                        (fact("", &html! { span.note { "It has to be issued anew: the device is kept out." } }))
                    },
                    Remaining::Week | Remaining::Month => {
                        (fact("", &html! { span.note { "It is to be issued anew." } }))
                    },
                    Remaining::Later => {},
                }
                (fact("Serial", &html! { span.mono { (certificate.serial) } }))
                (fact("Issuer", &html! { (certificate.issuer) }))
            } @else {
                (fact("Certificate", &html! { "none is known" }))
            }
            @if let Some(device) = device {
                @if let Some(id) = device.app_id_text() { (fact("Application", &html! { span.mono { (id) } })) }
                @if !device.agent_version.is_empty() { (fact("Agent", &html! { (device.agent_version) })) }
                (fact("First came", &words::time(device.first_seen_ms, self.now_ms)))
            }
            @if let Some(added_ms) = self.shown.settings.added_ms {
                (fact("Added", &words::time(added_ms, self.now_ms)))
            }
        };
        card("Identity", &list(&facts))
    }

    fn modem(&self) -> Markup {
        let modem = self.shown.device.as_ref().map_or("", |device: &Device| &device.modem);
        let facts = html! {
            (fact("Modem", &html! { @if modem.is_empty() { "not told" } @else { (modem) } }))
            @match &self.shown.report {
                Some(report) => (told(report, self.now_ms)),
                None => (fact("Signal", &html! { span.note { "not told" } })),
            }
        };
        card("Modem", &html! { (list(&facts)) (chart::signal(&self.hours, self.now_ms)) })
    }

    /// Between which lengths its longest silence is granted.
    fn bounds(&self) -> Markup {
        let Bounds { min_s, max_s } = self.shown.settings.bounds;
        let seconds = |bound: NonZeroU32| words::seconds(bound.get());
        html! {
            @match (min_s, max_s) {
                (None, None) => { "the fleet's" },
                (Some(min), None) => { "at least " (seconds(min)) },
                (None, Some(max)) => { "at most " (seconds(max)) },
                (Some(min), Some(max)) => { (seconds(min)) " to " (seconds(max)) },
            }
        }
    }

    fn events(&self) -> Markup {
        html! {
            @if self.events.is_empty() { p { "Nothing that is still kept." } } @else {
                table.cards {
                    thead { tr {
                        th scope="col" { "When" }
                        th scope="col" { "What" }
                        th scope="col" { "Why" }
                        th scope="col" { "From" }
                    } }
                    tbody { @for stored in &self.events { (self.event(stored)) } }
                }
                p.note {
                    "The newest " (EVENTS) " at the most; all that are kept: "
                    a href={ "/api/events?after=0&imei=" (self.imei) } { "/api/events" }
                }
            }
        }
    }

    fn event(&self, StoredEvent { id, event }: &StoredEvent) -> Markup {
        let name = event.cause.as_deref().map(words::cause);
        html! {
            tr data-key=(id) {
                td data-label="When" { (words::time(event.at_ms, self.now_ms)) }
                td data-label="What" { span.kind.(event.kind.as_str()) { (words::kind(event.kind.as_str())) } }
                td data-label="Why" {
                    @match (&event.text, name) {
                        (Some(text), _) => (text),
                        (None, Some(name)) => (name),
                        (None, None) => { "–" },
                    }
                }
                td data-label="From" {
                    @match event.address { Some(address) => span.mono { (address) }, None => { "–" } }
                }
            }
        }
    }

    /// What operators may do. The API takes JSON alone, so without the script there is none of it.
    fn actions(&self) -> Markup {
        let settings = &self.shown.settings;
        let device = format!("/api/devices/{}", self.imei);
        let bound = |bound: Option<NonZeroU32>| bound.map(NonZeroU32::get);
        html! {
            section.actions aria-label="Actions" {
                noscript { p.note {
                    "Without JavaScript this page shows and does not steer: use " code { "moorlinectl" } " or the API."
                } }
                div.buttons #orders data-live data-scripted {
                    @if settings.hold.is_some() {
                        form data-method="PUT" data-to={ (device) "/state" } data-done="It may come in again." {
                            input type="hidden" name="state" value="active";
                            button.primary { "Unblock" }
                        }
                    } @else {
                        button.danger type="button" data-opens="block" { "Block…" }
                    }
                    @if self.shown.online { button type="button" data-opens="drop" { "Drop session…" } }
                    button type="button" data-opens="name" { "Label…" }
                    button type="button" data-opens="heartbeat" { "Heartbeat…" }
                }
                p #answer role="status" tabindex="-1" {}
                dialog #block aria-labelledby="block-title" {
                    form data-method="PUT" data-to={ (device) "/state" } data-done="It is blocked." {
                        h2 #block-title { "Block this device?" }
                        p { "Its session ends at once, and it is not let in again until somebody unblocks it." }
                        input type="hidden" name="state" value="blocked";
                        label for="reason" { "Reason" }
                        input #reason name="reason" maxlength=(MAX_REASON) autocomplete="off" placeholder="stolen";
                        (buttons("Block", "danger"))
                    }
                }
                dialog #drop aria-labelledby="drop-title" {
                    form data-method="POST" data-to={ (device) "/drop" } data-done="Its session is ended." {
                        h2 #drop-title { "Drop its session?" }
                        p { "The device is sent away and comes back by itself." }
                        (buttons("Drop", "danger"))
                    }
                }
                dialog #name data-live aria-labelledby="name-title" {
                    form data-method="PUT" data-to={ (device) "/label" } data-done="The label is set." {
                        h2 #name-title { "Label" }
                        label for="label" { "What you call this device; empty for none" }
                        input #label name="label" maxlength=(MAX_LABEL) autocomplete="off" value=[settings.label.as_deref()];
                        (buttons("Save", "primary"))
                    }
                }
                dialog #heartbeat data-live aria-labelledby="heartbeat-title" {
                    form data-method="PUT" data-to={ (device) "/heartbeat" } data-done="The bounds are set." {
                        h2 #heartbeat-title { "Bounds of its longest silence" }
                        p { "In seconds; empty for the fleet's. A native device that is online comes back with the new grant." }
                        @for (name, label, value) in [
                            ("min_s", "At least", bound(settings.bounds.min_s)),
                            ("max_s", "At most", bound(settings.bounds.max_s)),
                        ] {
                            label for=(name) { (label) }
                            input id=(name) name=(name) type="number" inputmode="numeric" value=[value]
                                min=(LEAST.as_secs()) max=(LONGEST.as_secs()) placeholder="the fleet's";
                        }
                        (buttons("Save", "primary"))
                    }
                }
            }
        }
    }
}

/// What it told of its line and itself.
fn told(Report { status, at_ms }: &Report, now_ms: i64) -> Markup {
    html! {
        @if let Some(dbm) = status.signal_dbm { (fact("Signal", &bars(dbm))) }
        @if let Some(stat) = status.registration {
            (fact("Network", &html! { (words::registration(stat)) }))
        }
        @if let Some(operator) = &status.operator { (fact("Operator", &html! { (operator.as_str()) })) }
        @if let Some(seconds) = status.uptime_s { (fact("Up for", &html! { (words::seconds(seconds)) })) }
        @if let Some(kilobytes) = status.memory_kb {
            (fact("Free memory", &html! { (words::count(kilobytes as usize)) " KiB" }))
        }
        @if let Some(hundredths) = status.load {
            (fact("Load", &html! { (f32::from(hundredths) / 100.0) }))
        }
        @if let Some(tenths) = status.temperature {
            (fact("Temperature", &html! { (f32::from(tenths) / 10.0) " °C" }))
        }
        (fact("Told", &words::time(*at_ms, now_ms)))
    }
}

/// What it has used of its budget.
fn usage(UsageReport { usage, at_ms }: &UsageReport, now_ms: i64) -> Markup {
    let bound = |name: &str, used: &Used, words: fn(u64) -> String| {
        let class = match Level::from(used.level) {
            Level::Spent => "bad",
            Level::Near => "warn",
            Level::Free | Level::Other => "",
        };
        let value = html! {
            span class=(class) { (words(used.amount)) @if let Some(limit) = used.limit { " of " (words(limit)) } }
        };
        fact(name, &value)
    };
    let facts = html! {
        (bound("In an hour", &usage.hour, |attempts| format!("{attempts} attempts")))
        (bound("In a day", &usage.day, |attempts| format!("{attempts} attempts")))
        (bound("In 30 days", &usage.month, |bytes| Size(bytes).to_string()))
        (fact("Told", &words::time(*at_ms, now_ms)))
    };
    card("Budget", &list(&facts))
}

fn card(title: &str, content: &Markup) -> Markup {
    html! { section.card { h2 { (title) } (content) } }
}

fn list(facts: &Markup) -> Markup {
    html! { dl { (facts) } }
}

fn fact(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn buttons(order: &str, class: &str) -> Markup {
    html! {
        div.buttons {
            button type="button" data-closes { "Cancel" }
            button.(class) type="submit" { (order) }
        }
    }
}
