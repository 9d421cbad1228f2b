//! The registry as operators look at it: in pages, filtered, in the order of IMEIs.

use std::ops::ControlFlow;

use moorline_protocol::{Imei, Status};

use super::{Entry, Registry, State};
use crate::session::{Bounds, Dialect};
use crate::store::Device;

/// Which devices are wanted; all of them by default.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those that are online, or those that are not.
    pub online: Option<bool>,
    /// Those that speak this, or spoke it last.
    pub dialect: Option<Dialect>,
    /// Those with this text, in lower case, in their IMEI, address, modem, version, application id or certificate serial.
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
    /// What is known of it, `last_seen_ms` up to date.
    pub device: Device,
    /// Whether it is online.
    pub online: bool,
    /// What an operator set for it.
    pub bounds: Bounds,
    /// What it last told of itself to this server's process.
    pub report: Option<Report>,
}

/// How a device and its line were.
#[derive(Clone, Debug)]
pub struct Report {
    /// As the device told it.
    pub status: Status,
    /// When, UTC milliseconds since 1970.
    pub at_ms: i64,
}

impl Registry {
    /// A page of at most `limit` devices after `after`.
    #[must_use]
    pub fn list(&self, filter: &Filter, after: Option<Imei>, limit: usize) -> Page {
        let everything = filter.takes_all();
        let mut page = Page { devices: Vec::new(), next: None, total: 0 };
        // Only what a filter lets through has to be counted, so without one the look begins at the page and ends with it.
        self.in_chunks(after.filter(|_| everything), |state, imeis| {
            for entry in imeis.iter().filter_map(|imei| state.devices.get(imei)) {
                if filter.admits(entry) {
                    page.total += 1;
                    page.add(state, entry, after, limit);
                }
            }
            if everything {
                page.total = state.devices.len();
            }
            if everything && page.next.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        page
    }

    /// One device; `None` when it is not known.
    #[must_use]
    pub fn get(&self, imei: Imei) -> Option<Shown> {
        let state = self.lock();
        state.devices.get(&imei).map(|entry| state.show(entry))
    }
}

impl Page {
    fn add(&mut self, state: &State, entry: &Entry, after: Option<Imei>, limit: usize) {
        if after.is_some_and(|after| entry.device.imei <= after) {
            return;
        }
        if self.devices.len() < limit {
            self.devices.push(state.show(entry));
        } else if self.next.is_none() {
            self.next = self.devices.last().map(|shown| shown.device.imei);
        }
    }
}

impl State {
    fn show(&self, entry: &Entry) -> Shown {
        let mut device = entry.device.clone();
        if let Some(online) = &entry.online {
            device.last_seen_ms = online.presence.last_seen_ms();
        }
        let (online, bounds) = (entry.online.is_some(), self.bounds_of(device.imei));
        Shown { device, online, bounds, report: entry.report.as_deref().cloned() }
    }
}

impl Filter {
    const fn takes_all(&self) -> bool {
        self.online.is_none() && self.dialect.is_none() && self.search.is_none()
    }

    fn admits(&self, entry: &Entry) -> bool {
        let device = &entry.device;
        self.online.is_none_or(|online| online == entry.online.is_some())
            && self.dialect.is_none_or(|dialect| dialect == device.session.dialect)
            && self.search.as_deref().is_none_or(|search| mentions(device, search))
    }
}

fn mentions(device: &Device, search: &str) -> bool {
    let serial = device.certificate.as_ref().map(|certificate| certificate.serial.to_lowercase());
    device.imei.to_string().contains(search)
        || device.session.address.to_string().contains(search)
        || device.agent_version.to_lowercase().contains(search)
        || device.modem.to_lowercase().contains(search)
        || device.app_id_text().is_some_and(|id| id.contains(search))
        || serial.is_some_and(|serial| serial.contains(search))
}
