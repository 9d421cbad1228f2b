//! Who is online, and what is known of every device. It decides who is taken in: the newest session of a device is the one.
//!
//! It holds the truth in memory and tells the store through a queue, so it never waits for a disk. It knows no socket and
//! no TLS; a session is told to go through its [`Exit`].
//!
//! One mutex guards it all: an entry changes in well under a microsecond, devices come and go a few thousand times a second
//! at the most, and two locks could disagree about who is online. It is a plain `std` one, for nothing inside waits, and
//! the lock is never held across an await. Heartbeats do not take it: see [`Presence::heard`].
//!
//! Memory: a known device costs about 390 bytes (its [`Device`], its [`Lineage`], the serial's text and their share of the map), one that is online 56 more (its
//! [`Presence`], shared with its connection), one that reported how it is 64 more, one
//! that told what it has used 200 more.

mod certificates;
mod decisions;
mod elsewhere;
mod epoch;
mod history;
mod lineage;
mod listing;
mod refused;
mod search;
mod shared_text;
mod usage;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moorline_protocol::Imei;

use crate::clock::Now;
use crate::config::Register;
use crate::exit::Exit;
use crate::identity::Certificate;
use crate::metrics::Metrics;
use crate::session::{Bounds, Cause, Dialect, Registration, Rejection};
use crate::store::{Device, Ended, Event, Fleet, Kind, LastSession, Queue, Report, Settings, Slot};
pub use certificates::ByRemaining;
pub use decisions::Outdated;
use decisions::marks;
pub use elsewhere::{back, node_of};
use epoch::Epoch;
use lineage::Lineage;
pub use listing::{Counts, Earlier, Filter, Page, Shown, Standing};
pub use refused::Refused;
use shared_text::SharedTexts;
use usage::Account;
pub use usage::{Level, UsageReport};

/// What offline events say of sessions that a server did not live to see the end of.
const SERVER_STOPPED: &str = "server_stopped";

/// How far ahead session ids are reserved in the store: more than sessions can begin before a reservation is stored.
const RESERVED_IDS: u64 = 100_000;

/// How many entries are looked at under one lock.
const CHUNK: usize = 1024;

/// The registry: see the module.
pub struct Registry {
    state: Mutex<State>,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
}

struct State {
    /// Boxed, for a node of the map is half empty when devices come in their order.
    devices: BTreeMap<Imei, Box<Entry>>,
    /// What was decided of single devices, also of those that never came.
    settings: BTreeMap<Imei, Settings>,
    register: Register,
    /// Which node this is, where there are several.
    node: Option<u8>,
    /// What gives ids to sessions then.
    epoch: Option<Epoch>,
    /// What the nodes are called.
    node_names: BTreeMap<u8, Arc<str>>,
    online: usize,
    /// How many sessions each other node holds.
    elsewhere: BTreeMap<u8, usize>,
    blocked: usize,
    quarantined: usize,
    never_seen: usize,
    /// No certificate of a device that is online expires before this, UTC milliseconds since 1970.
    soonest_expiry_ms: i64,
    /// What happened since the last [`Slot`] was stored.
    slot: Slot,
    /// The most that were online at once, those that the last server left included.
    most_online: usize,
    next_session_id: u64,
    /// Ids below this one are reserved in the store. Among several nodes none are: see [`node_of`].
    reserved: u64,
    texts: SharedTexts,
}

struct Entry {
    device: Device,
    online: Option<Online>,
    lineage: Lineage,
    /// What it last told of itself.
    report: Option<Box<Report>>,
    /// When that was last stored.
    report_stored_ms: i64,
    /// What it last told of its budget.
    account: Option<Box<Account>>,
}

struct Online {
    presence: Arc<Presence>,
    exit: Arc<Exit>,
}

/// How a session ended.
struct Ending {
    kind: Kind,
    /// A stable name from a fixed list.
    cause: &'static str,
    text: String,
}

impl Ending {
    const fn new(kind: Kind, cause: &'static str, text: String) -> Self {
        Self { kind, cause, text }
    }
}

/// A device's being online, shared by the registry and its connection.
#[derive(Debug)]
pub struct Presence {
    /// Names the session.
    pub session_id: u64,
    /// The device.
    pub imei: Imei,
    last_seen_ms: AtomicI64,
}

impl Presence {
    /// Something came from the device. Lock-free: this is called for every message.
    pub fn heard(&self, now: Now) {
        // Nothing else is ordered by it, and the latest of two writers is as good as the other.
        self.last_seen_ms.store(now.utc_ms, Ordering::Relaxed);
    }

    /// When the device was last heard, UTC milliseconds since 1970.
    #[must_use]
    pub fn last_seen_ms(&self) -> i64 {
        self.last_seen_ms.load(Ordering::Relaxed)
    }
}

/// Where a device comes from and how it speaks.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// What it speaks.
    pub dialect: Dialect,
    /// The version of TLS, as `1.3`.
    pub tls: &'static str,
    /// What it showed.
    pub certificate: Certificate,
}

impl Registry {
    /// Takes over what the store knows. Devices that were online when the last server died go offline now.
    #[must_use]
    pub fn new(
        mut fleet: Fleet,
        register: Register,
        queue: Arc<Queue>,
        metrics: Arc<Metrics>,
        now: Now,
    ) -> Self {
        let mut state = State {
            devices: BTreeMap::new(),
            settings: BTreeMap::new(),
            register,
            node: fleet.node,
            epoch: fleet.node.map(|node| Epoch::new(node, now)),
            node_names: BTreeMap::new(),
            online: 0,
            elsewhere: BTreeMap::new(),
            blocked: 0,
            quarantined: 0,
            never_seen: 0,
            soonest_expiry_ms: i64::MAX,
            slot: Slot::default(),
            most_online: 0,
            next_session_id: fleet.next_session_id.max(1),
            reserved: 0,
            texts: SharedTexts::default(),
        };
        for mut device in fleet.devices {
            state.texts.share_in(&mut device);
            state.meet(device.session.id, now);
            if state.is_own(device.session.id) {
                if was_left(&device) {
                    state.most_online += 1;
                }
                if device.session.ended.is_none() {
                    end_ghost(&mut device, &mut state.texts, &queue, now);
                }
            } else if device.session.ended.is_none() {
                state.count_elsewhere(device.session.id);
            }
            let report = fleet.reports.remove(&device.imei).map(Box::new);
            let lineage = Lineage::default();
            let entry = Entry { device, online: None, lineage, report, report_stored_ms: 0, account: None };
            state.devices.insert(entry.device.imei, Box::new(entry));
        }
        for (imei, settings) in fleet.settings {
            state.settle(imei, settings);
        }
        state.reserve_ids(&queue);
        Self { state: Mutex::new(state), queue, metrics }
    }

    /// Takes a device in, and ends an older session of it. `former` is what the same connection holds already: a classic
    /// device that was known by its certificate and registers now. It is given up, whatever comes of this.
    ///
    /// A rejection is not noted here: whoever ends the connection tells it by [`Self::refused`].
    ///
    /// # Errors
    /// The device is kept out, or not known where only known ones are taken in, or cannot be the one that came before.
    pub fn register(
        &self,
        registration: Registration,
        peer: Peer,
        exit: Arc<Exit>,
        former: Option<Arc<Presence>>,
        now: Now,
    ) -> Result<Arc<Presence>, Rejection> {
        let mut state = self.lock();
        if let Some(former) = former {
            if former.imei == registration.imei && state.is_current(&former) {
                self.fill_in(&mut state, &former, &registration, now);
                return Ok(former);
            }
            let text = format!("its connection registered as {} instead", registration.imei);
            self.take_off(
                &mut state,
                &former,
                Ending::new(Kind::Offline, "registered_as_another", text),
                now,
            );
        }
        let imei = registration.imei;
        if let Some(rejection) = state.held(imei) {
            return Err(rejection);
        }
        if state.register == Register::Known && !state.is_known(imei) {
            return Err(Rejection::UnknownDevice);
        }
        if let Some(reason) = state.contradiction(&registration, &peer, now) {
            self.quarantine(&mut state, imei, reason, now);
            return Err(Rejection::Quarantined);
        }
        self.replace(&mut state, imei, peer.address, now);
        Ok(self.take_in(&mut state, registration, peer, exit, now))
    }

    /// Takes this policy for sessions to come; those that stand stay.
    pub fn set_register(&self, register: Register) {
        self.lock().register = register;
    }

    /// A session is over. Does nothing when the device has a newer one.
    pub fn leave(&self, presence: &Presence, cause: Cause, now: Now) {
        let ending = Ending::new(Kind::Offline, cause.as_str(), cause.to_string());
        self.take_off(&mut self.lock(), presence, ending, now);
    }

    /// A device tells how long it may be silent from now on. The store hears of it with whatever comes next of the device.
    pub fn silence(&self, presence: &Presence, longest: Duration) {
        let mut state = self.lock();
        if state.is_current(presence)
            && let Some(entry) = state.devices.get_mut(&presence.imei)
        {
            entry.device.session.heartbeat_s = Some(whole_seconds(longest));
        }
    }

    /// How many devices are online.
    #[must_use]
    pub fn online(&self) -> usize {
        self.lock().online
    }

    /// The most devices that were online at once, and no fewer than the last server left behind: so many return, should
    /// this one be lost.
    #[must_use]
    pub fn most_online(&self) -> usize {
        self.lock().most_online
    }

    /// Gives the ids back that were reserved and not used: for the end, when no more sessions begin.
    pub fn release_ids(&self) {
        let mut state = self.lock();
        if state.node.is_some() {
            return;
        }
        // Should one begin all the same, it reserves anew.
        state.reserved = state.next_session_id;
        self.queue.put_next_session_id(state.next_session_id);
    }

    /// Gives `visit` all devices after `after`, a lock and some IMEIs at a time, so that registrations get their turn;
    /// until it breaks off.
    fn in_chunks(&self, after: Option<Imei>, mut visit: impl FnMut(&mut State, &[Imei]) -> ControlFlow<()>) {
        let mut after = after;
        loop {
            let mut state = self.lock();
            let imeis: Vec<Imei> = state.known_after(after).take(CHUNK).collect();
            if visit(&mut state, &imeis).is_break() || imeis.len() < CHUNK {
                return;
            }
            after = imeis.last().copied();
        }
    }

    /// The device said more of itself than its certificate did.
    fn fill_in(&self, state: &mut State, presence: &Presence, registration: &Registration, now: Now) {
        presence.heard(now);
        if let Some(entry) = state.devices.get_mut(&presence.imei) {
            entry.device.app_id = registration.app_id.or(entry.device.app_id);
            self.queue.put_device(entry.device.clone());
        }
    }

    /// Ends the session that a new one takes over from.
    fn replace(&self, state: &mut State, imei: Imei, newcomer: SocketAddr, now: Now) {
        let Some(entry) = state.devices.get_mut(&imei) else { return };
        let text = format!("a newer session from {} took over", newcomer);
        match entry.online.take() {
            Some(older) => {
                older.exit.order(Cause::Replaced, Duration::ZERO);
                state.online -= 1;
                let ending = Ending::new(Kind::Replaced, Cause::Replaced.as_str(), text);
                self.end_session(state, &older.presence, ending, now);
            }
            None if entry.is_online() => self.replace_elsewhere(state, imei, text, now),
            None => {}
        }
    }

    fn take_off(&self, state: &mut State, presence: &Presence, ending: Ending, now: Now) {
        if !state.is_current(presence) {
            return;
        }
        if let Some(entry) = state.devices.get_mut(&presence.imei) {
            entry.online = None;
            state.online -= 1;
        }
        self.end_session(state, presence, ending, now);
    }

    fn end_session(&self, state: &mut State, presence: &Presence, ending: Ending, now: Now) {
        let Ending { kind, cause, text } = ending;
        let name = state.texts.share(cause);
        let Some(entry) = state.devices.get_mut(&presence.imei) else { return };
        let device = &mut entry.device;
        state.slot.went = state.slot.went.saturating_add(1);
        device.last_seen_ms = presence.last_seen_ms();
        device.session.ended = Some(Ended { at_ms: now.utc_ms, cause: Arc::clone(&name) });
        self.metrics.session_ended(device.session.dialect, cause);
        let mut event = event_of(device, kind, Some((name, text)), now);
        event.certificate = certificates::blamed(device, cause);
        self.queue.put_event(event);
        self.queue.put_device(device.clone());
    }

    fn take_in(
        &self,
        state: &mut State,
        registration: Registration,
        peer: Peer,
        exit: Arc<Exit>,
        now: Now,
    ) -> Arc<Presence> {
        let (imei, dialect) = (registration.imei, peer.dialect);
        let id = state.new_session_id(&self.queue, now);
        let presence = Arc::new(Presence { session_id: id, imei, last_seen_ms: AtomicI64::new(now.utc_ms) });
        let online = Some(Online { presence: Arc::clone(&presence), exit });
        let former = state.devices.remove(&imei).map(|entry| *entry);
        if former.is_none() && state.settings.contains_key(&imei) {
            state.never_seen -= 1;
        }
        let (former, lineage, report, report_stored_ms, account) = match former {
            Some(Entry { device, online: _, lineage, report, report_stored_ms, account }) => {
                (Some(device), lineage, report, report_stored_ms, account)
            }
            None => (None, Lineage::begun(marks(&registration, &peer, None)), None, 0, None),
        };
        let bounds = state.bounds_of(imei);
        state.soonest_expiry_ms = state.soonest_expiry_ms.min(peer.certificate.not_after_ms);
        let mut device = device_of(registration, bounds, peer, id, former.as_ref(), &mut state.texts, now);
        self.queue.put_event(event_of(&device, Kind::Online, None, now));
        self.tell_expiry(&mut device, &mut state.texts, now);
        self.queue.put_device(device.clone());
        let entry = Entry { device, online, lineage, report, report_stored_ms, account };
        state.devices.insert(imei, Box::new(entry));
        state.online += 1;
        state.slot.came = state.slot.came.saturating_add(1);
        state.most_online = state.most_online.max(state.online);
        self.metrics.session_began(dialect);
        presence
    }

    /// A panic under the lock would leave at worst one entry stale; to go on is better than to lose everybody.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("online", &self.online()).finish_non_exhaustive()
    }
}

impl Entry {
    /// Here or at another node.
    const fn is_online(&self) -> bool {
        self.device.session.ended.is_none()
    }
}

impl State {
    fn is_current(&self, presence: &Presence) -> bool {
        let online = self.devices.get(&presence.imei).and_then(|entry| entry.online.as_ref());
        online.is_some_and(|online| online.presence.session_id == presence.session_id)
    }

    /// Whether it came before, or was decided of before it came.
    fn is_known(&self, imei: Imei) -> bool {
        self.devices.contains_key(&imei) || self.settings.contains_key(&imei)
    }

    /// Keeps the reservation ahead of the ids in use, in steps, so that a crash never lets an id be used twice.
    fn reserve_ids(&mut self, queue: &Queue) {
        if self.node.is_none() && self.reserved < self.next_session_id + RESERVED_IDS / 2 {
            self.reserved = self.next_session_id + RESERVED_IDS;
            queue.put_next_session_id(self.reserved);
        }
    }
}

/// Whether the last server died or stopped while the device was online.
fn was_left(device: &Device) -> bool {
    let ended = device.session.ended.as_ref();
    ended.is_none_or(|ended| *ended.cause == *SERVER_STOPPED || *ended.cause == *Cause::Stopping.as_str())
}

/// A device is online in the store and no server is there: the last one died.
fn end_ghost(device: &mut Device, texts: &mut SharedTexts, queue: &Queue, now: Now) {
    queue.put_event(end_unseen(device, now));
    texts.share_in(device);
    queue.put_device(device.clone());
}

/// The session ended when the server that held it did.
pub(crate) fn end_unseen(device: &mut Device, now: Now) -> Event {
    let cause: Arc<str> = SERVER_STOPPED.into();
    device.session.ended = Some(Ended { at_ms: now.utc_ms, cause: Arc::clone(&cause) });
    let text = "the server stopped without seeing the end of this session".to_owned();
    event_of(device, Kind::Offline, Some((cause, text)), now)
}

fn event_of(device: &Device, kind: Kind, why: Option<(Arc<str>, String)>, now: Now) -> Event {
    let (cause, text) = why.unzip();
    Event {
        at_ms: now.utc_ms,
        kind,
        imei: Some(device.imei),
        session_id: Some(device.session.id),
        address: Some(device.session.address),
        certificate: None,
        cause,
        text: text.map(Into::into),
    }
}

/// What is known of a device now that it has registered.
fn device_of(
    registration: Registration,
    bounds: Bounds,
    peer: Peer,
    session_id: u64,
    former: Option<&Device>,
    texts: &mut SharedTexts,
    now: Now,
) -> Device {
    let Registration { imei, app_id, agent_version, modem, heartbeat, boot_id: _ } = registration;
    Device {
        imei,
        // A classic device that is known by its certificate has not said it in this session.
        app_id: app_id.or_else(|| former.and_then(|former| former.app_id)),
        agent_version: texts.share(&agent_version),
        modem: texts.share(&modem),
        first_seen_ms: former.map_or(now.utc_ms, |former| former.first_seen_ms),
        last_seen_ms: now.utc_ms,
        session: LastSession {
            id: session_id,
            connected_at_ms: now.utc_ms,
            address: peer.address,
            dialect: peer.dialect,
            tls: texts.share(peer.tls),
            heartbeat_s: heartbeat.map(|wish| whole_seconds(wish.granted(bounds))),
            ended: None,
        },
        certificate: Some(certificates::shown(peer.certificate, former, texts)),
    }
}

fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
