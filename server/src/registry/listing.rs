//! The registry as operators look at it: counted, and in pages, filtered, in the order of IMEIs. Devices that were added and
//! never came are among them.

use std::collections::{BTreeSet, VecDeque};
use std::iter;
use std::ops::Bound::{Excluded, Unbounded};
use std::ops::ControlFlow;
use std::sync::Arc;

use moorline_protocol::Imei;

use super::search::Search;
use super::{CHUNK, Entry, Registry, State, UsageReport};
use crate::session::Dialect;
use crate::store::{Device, HoldKind, Report, Settings};

/// How many devices there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All: those that came, and those that were only decided of.
    pub known: usize,
    /// Online now.
    pub online: usize,
    /// Kept out by an operator.
    pub blocked: usize,
    /// Kept out by the server.
    pub quarantined: usize,
    /// Never came.
    pub never_seen: usize,
}

/// Whether a device is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Active,
    /// It is kept out.
    Held(HoldKind),
}

/// Which devices are wanted; all of them by default.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those that are online, or those that are not.
    pub online: Option<bool>,
    /// Those that came at least once, or those that never did.
    pub seen: Option<bool>,
    /// Those that are let in, or are kept out thus.
    pub standing: Option<Standing>,
    /// Those that speak this, or spoke it last.
    pub dialect: Option<Dialect>,
    /// Those whose agent is of this version.
    pub agent_version: Option<String>,
    /// Those whose last report told of a signal below this, dBm.
    pub signal_below: Option<i16>,
    /// Those whose certificate ends between these two moments, UTC milliseconds since 1970.
    pub certificate_ends: Option<(i64, i64)>,
    /// Those with this text, in lower case, in their IMEI, label, address, modem, operator, version, application id or
    /// certificate serial.
    pub search: Option<String>,
}

/// Some devices, in the order of their IMEIs.
#[derive(Clone, Debug)]
pub struct Page {
    /// They.
    pub devices: Vec<Shown>,
    /// Ask for what comes after this one; `None` when nothing does.
    pub next: Option<Imei>,
    /// How many devices the filter lets through, on all pages.
    pub total: usize,
}

/// A device as it is at the moment.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Who it is.
    pub imei: Imei,
    /// What is known of it, `last_seen_ms` up to date; `None` while it never came.
    pub device: Option<Device>,
    /// Whether it is online.
    pub online: bool,
    /// Which of several nodes holds its session.
    pub node: Option<Arc<str>>,
    /// What was decided of it.
    pub settings: Settings,
    /// What it last told of itself.
    pub report: Option<Report>,
    /// What it last told of its budget to this server's process.
    pub usage: Option<UsageReport>,
}

/// What of a filtered list lies before a place in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// How many devices.
    pub count: usize,
    /// The last page of them comes after this one; `None` when it begins with the first device.
    pub after: Option<Imei>,
}

/// One that is known.
struct Known<'s> {
    imei: Imei,
    entry: Option<&'s Entry>,
    settings: Option<&'s Settings>,
}

impl Registry {
    /// A page of at most `limit` devices after `after`.
    #[must_use]
    pub fn list(&self, filter: &Filter, after: Option<Imei>, limit: usize) -> Page {
        let everything = filter.takes_all();
        let sieve = Sieve::new(filter);
        let mut page = Page { devices: Vec::new(), next: None, total: 0 };
        let mut counted = 0;
        // Only what a filter lets through has to be counted, so without one the look begins at the page and ends with it.
        self.look(after.filter(|_| everything), |state, known| {
            if sieve.admits(known) {
                counted += 1;
                page.add(state, known.imei, after, limit);
            }
            if everything && page.next.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        page.total = if everything { self.counts().known } else { counted };
        page
    }

    /// What the filter lets through up to `place` and with it, where a page has `limit` devices.
    #[must_use]
    pub fn earlier(&self, filter: &Filter, place: Imei, limit: usize) -> Earlier {
        let sieve = Sieve::new(filter);
        let mut count = 0;
        let mut last = VecDeque::new();
        self.look(None, |_, known| {
            if known.imei > place {
                return ControlFlow::Break(());
            }
            if sieve.admits(known) {
                count += 1;
                last.push_back(known.imei);
                if last.len() > limit + 1 {
                    last.pop_front();
                }
            }
            ControlFlow::Continue(())
        });
        Earlier { count, after: last.front().copied().filter(|_| last.len() > limit) }
    }

    /// The versions that agents have, in the order of their texts; the first so many that were found.
    #[must_use]
    pub fn agent_versions(&self, most: usize) -> BTreeSet<Arc<str>> {
        let mut versions = BTreeSet::new();
        let mut last: Option<Arc<str>> = None;
        self.look(None, |_, known| {
            let version = known.entry.map(|entry| &entry.device.agent_version);
            // Neighbours mostly have the same one, and share its text.
            if let Some(version) =
                version.filter(|version| last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, version)))
            {
                last = Some(Arc::clone(version));
                if !version.is_empty() {
                    versions.insert(Arc::clone(version));
                }
            }
            if versions.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        versions
    }

    /// Shows all devices after `after` to `visit`, with a pause now and then so that registrations get their turn; until it
    /// breaks off.
    fn look(&self, after: Option<Imei>, mut visit: impl FnMut(&State, &Known<'_>) -> ControlFlow<()>) {
        let mut after = after;
        loop {
            let state = self.lock();
            let mut seen = 0;
            for known in state.all_after(after).take(CHUNK) {
                if visit(&state, &known).is_break() {
                    return;
                }
                (after, seen) = (Some(known.imei), seen + 1);
            }
            if seen < CHUNK {
                return;
            }
        }
    }

    /// One device; `None` when it neither came nor was decided of.
    #[must_use]
    pub fn get(&self, imei: Imei) -> Option<Shown> {
        let state = self.lock();
        state.is_known(imei).then(|| state.show(imei))
    }

    /// How many there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().counts()
    }
}

impl Page {
    fn add(&mut self, state: &State, imei: Imei, after: Option<Imei>, limit: usize) {
        if after.is_some_and(|after| imei <= after) {
            return;
        }
        if self.devices.len() < limit {
            self.devices.push(state.show(imei));
        } else if self.next.is_none() {
            self.next = self.devices.last().map(|shown| shown.imei);
        }
    }
}

impl State {
    fn counts(&self) -> Counts {
        Counts {
            known: self.devices.len() + self.never_seen,
            online: self.online_anywhere(),
            blocked: self.blocked,
            quarantined: self.quarantined,
            never_seen: self.never_seen,
        }
    }

    /// The IMEIs of all that came or were decided of, each once.
    pub(super) fn known_after(&self, after: Option<Imei>) -> impl Iterator<Item = Imei> {
        self.all_after(after).map(|known| known.imei)
    }

    fn all_after(&self, after: Option<Imei>) -> impl Iterator<Item = Known<'_>> {
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        let mut came = self.devices.range(range).peekable();
        let mut decided = self.settings.range(range).peekable();
        iter::from_fn(move || {
            let next = came.peek().map(|(imei, _)| **imei);
            let next = next.into_iter().chain(decided.peek().map(|(imei, _)| **imei)).min()?;
            let entry = came.next_if(|(imei, _)| **imei == next).map(|(_, entry)| &**entry);
            let settings = decided.next_if(|(imei, _)| **imei == next).map(|(_, settings)| settings);
            Some(Known { imei: next, entry, settings })
        })
    }

    fn show(&self, imei: Imei) -> Shown {
        let entry = self.devices.get(&imei);
        let online = entry.and_then(|entry| entry.online.as_ref());
        let mut device = entry.map(|entry| entry.device.clone());
        if let (Some(device), Some(online)) = (&mut device, online) {
            device.last_seen_ms = online.presence.last_seen_ms();
        }
        Shown {
            imei,
            device,
            online: entry.is_some_and(|entry| entry.is_online()),
            node: entry.and_then(|entry| self.node_name(entry)),
            settings: self.settings.get(&imei).cloned().unwrap_or_default(),
            report: entry.and_then(|entry| entry.report.as_deref().cloned()),
            usage: entry.and_then(|entry| entry.account.as_ref()).map(|account| account.report.clone()),
        }
    }
}

impl Filter {
    const fn takes_all(&self) -> bool {
        self.online.is_none()
            && self.seen.is_none()
            && self.standing.is_none()
            && self.dialect.is_none()
            && self.agent_version.is_none()
            && self.signal_below.is_none()
            && self.certificate_ends.is_none()
            && self.search.is_none()
    }
}

/// A filter made ready to look through a fleet.
struct Sieve<'f> {
    filter: &'f Filter,
    search: Option<Search<'f>>,
}

impl<'f> Sieve<'f> {
    fn new(filter: &'f Filter) -> Self {
        Self { filter, search: filter.search.as_deref().map(Search::new) }
    }

    fn admits(&self, known: &Known<'_>) -> bool {
        let Self { filter, search } = self;
        let Known { imei, entry, settings } = *known;
        let device = entry.map(|entry| &entry.device);
        let has = |wanted: &dyn Fn(&Device) -> bool| device.is_some_and(wanted);
        let status = || entry.and_then(|entry| Some(&entry.report.as_ref()?.status));
        let signal = || status().and_then(|status| status.signal_dbm);
        let operator = || status().and_then(|status| status.operator.as_deref());
        let end = || device.and_then(|device| device.certificate.as_ref()).map(|shown| shown.not_after_ms);
        let standing = || {
            let hold = settings.and_then(|settings| settings.hold.as_ref());
            hold.map_or(Standing::Active, |hold| Standing::Held(hold.kind))
        };
        filter.standing.is_none_or(|wanted| wanted == standing())
            && filter.seen.is_none_or(|wanted| wanted == device.is_some())
            && filter.online.is_none_or(|wanted| wanted == entry.is_some_and(Entry::is_online))
            && filter.dialect.is_none_or(|wanted| has(&|device| device.session.dialect == wanted))
            && filter
                .agent_version
                .as_deref()
                .is_none_or(|wanted| has(&|device| *device.agent_version == *wanted))
            && filter.signal_below.is_none_or(|wanted| signal().is_some_and(|signal| signal < wanted))
            && filter
                .certificate_ends
                .is_none_or(|(from, to)| end().is_some_and(|end| (from..=to).contains(&end)))
            && search.as_ref().is_none_or(|search| search.finds(imei, device, operator(), settings))
    }
}
