//! The registry as operators look at it: counted, and in pages, filtered, in the order of IMEIs. Devices that were added and
//! never came are among them.

use std::iter;
use std::ops::Bound::{Excluded, Unbounded};
use std::ops::ControlFlow;

use moorline_protocol::Imei;

use super::{Entry, Registry, State, UsageReport};
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
    /// Those with this text, in lower case, in their IMEI, label, address, modem, version, application id or certificate
    /// serial.
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
    /// What was decided of it.
    pub settings: Settings,
    /// What it last told of itself.
    pub report: Option<Report>,
    /// What it last told of its budget to this server's process.
    pub usage: Option<UsageReport>,
}

impl Registry {
    /// A page of at most `limit` devices after `after`.
    #[must_use]
    pub fn list(&self, filter: &Filter, after: Option<Imei>, limit: usize) -> Page {
        let everything = filter.takes_all();
        let mut page = Page { devices: Vec::new(), next: None, total: 0 };
        // Only what a filter lets through has to be counted, so without one the look begins at the page and ends with it.
        self.in_chunks(after.filter(|_| everything), |state, imeis| {
            state.look(imeis, filter, &mut page, after, limit);
            if everything {
                page.total = state.counts().known;
            }
            if everything && page.next.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        page
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
            online: self.online,
            blocked: self.blocked,
            quarantined: self.quarantined,
            never_seen: self.never_seen,
        }
    }

    /// All that came or were decided of, each once.
    pub(super) fn known_after(&self, after: Option<Imei>) -> impl Iterator<Item = Imei> {
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        let mut came = self.devices.range(range).map(|(imei, _)| *imei).peekable();
        let mut decided = self.settings.range(range).map(|(imei, _)| *imei).peekable();
        iter::from_fn(move || {
            let next = came.peek().into_iter().chain(decided.peek()).min().copied()?;
            came.next_if_eq(&next);
            decided.next_if_eq(&next);
            Some(next)
        })
    }

    /// Counts those that the filter lets through, and shows those that have a place on the page.
    fn look(&self, imeis: &[Imei], filter: &Filter, page: &mut Page, after: Option<Imei>, limit: usize) {
        for imei in imeis {
            if filter.admits(*imei, self.devices.get(imei), self.settings.get(imei)) {
                page.total += 1;
                page.add(self, *imei, after, limit);
            }
        }
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
            online: online.is_some(),
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

    fn admits(&self, imei: Imei, entry: Option<&Entry>, settings: Option<&Settings>) -> bool {
        let device = entry.map(|entry| &entry.device);
        let online = entry.is_some_and(|entry| entry.online.is_some());
        let signal = entry.and_then(|entry| entry.report.as_ref()?.status.signal_dbm);
        let end =
            device.and_then(|device| device.certificate.as_ref()).map(|certificate| certificate.not_after_ms);
        let standing = settings
            .and_then(|settings| settings.hold.as_ref())
            .map_or(Standing::Active, |hold| Standing::Held(hold.kind));
        self.online.is_none_or(|wanted| wanted == online)
            && self.seen.is_none_or(|wanted| wanted == device.is_some())
            && self.standing.is_none_or(|wanted| wanted == standing)
            && self.dialect.is_none_or(|wanted| device.is_some_and(|device| device.session.dialect == wanted))
            && self
                .agent_version
                .as_deref()
                .is_none_or(|wanted| device.is_some_and(|device| &*device.agent_version == wanted))
            && self.signal_below.is_none_or(|wanted| signal.is_some_and(|signal| signal < wanted))
            && self
                .certificate_ends
                .is_none_or(|(from, to)| end.is_some_and(|end| (from..=to).contains(&end)))
            && self.search.as_deref().is_none_or(|search| mentions(imei, device, settings, search))
    }
}

fn mentions(imei: Imei, device: Option<&Device>, settings: Option<&Settings>, search: &str) -> bool {
    let label = settings.and_then(|settings| settings.label.as_deref());
    imei.to_string().contains(search)
        || label.is_some_and(|label| label.to_lowercase().contains(search))
        || device.is_some_and(|device| device_mentions(device, search))
}

fn device_mentions(device: &Device, search: &str) -> bool {
    let serial = device.certificate.as_ref().map(|certificate| certificate.serial.to_lowercase());
    device.session.address.to_string().contains(search)
        || device.agent_version.to_lowercase().contains(search)
        || device.modem.to_lowercase().contains(search)
        || device.app_id_text().is_some_and(|id| id.contains(search))
        || serial.is_some_and(|serial| serial.contains(search))
}
