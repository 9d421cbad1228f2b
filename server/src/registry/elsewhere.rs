//! Devices whose sessions other nodes hold. A node of several knows the whole fleet: its own devices first hand, the others by
//! the rows that their nodes write.
//!
//! A session's id is its epoch, by `epoch`. Of two sessions of one device the one with the higher id holds, whatever arrives
//! late or twice.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use moorline_protocol::Imei;

use super::{Ending, Entry, Lineage, Registry, State, event_of};
use crate::clock::Now;
use crate::session::Cause;
use crate::store::{Device, Ended, Event, Kind, Queue, Report};

/// What offline events say of sessions whose node was not heard any more.
const NODE_LOST: &str = "node_lost";
/// What online events say of sessions whose node is heard again.
const NODE_BACK: &str = "node_back";

/// Which node holds, or held, the session of this id; of ids that a server without others gave it means nothing.
#[must_use]
pub const fn node_of(session_id: u64) -> u8 {
    session_id.to_le_bytes()[0]
}

impl Registry {
    /// A node has this number and this name.
    pub fn name_node(&self, number: u8, name: &str) {
        self.lock().node_names.insert(number, name.into());
    }

    /// The number of the other node that holds the device's session; `None` when none does, or this one.
    #[must_use]
    pub fn holder(&self, imei: Imei) -> Option<u8> {
        let state = self.lock();
        let entry = state.devices.get(&imei).filter(|entry| entry.online.is_none() && entry.is_online())?;
        Some(node_of(entry.device.session.id))
    }

    /// Takes what the nodes share of a device. What is older than what is known here changes nothing; a session that stands
    /// here and is older than the one told of ends; one that stands here and was taken for lost is told anew.
    pub fn learn(&self, mut row: Device, now: Now) {
        let mut state = self.lock();
        let (imei, id) = (row.imei, row.session.id);
        state.meet(id, now);
        let is_own = state.is_own(id);
        if let Some(entry) = state.devices.get_mut(&imei) {
            let known = entry.device.session.id;
            if id == known && is_own && entry.online.is_some() && row.session.ended.is_some() {
                self.tell_back(entry, now);
            }
            // Of its own sessions this node knows more than any row.
            if id < known || (id == known && is_own) {
                return;
            }
        }
        state.texts.share_in(&mut row);
        self.give_up(&mut state, &row, now);
        state.take_over(row);
    }

    /// What a device told another node of itself.
    pub fn learn_report(&self, imei: Imei, report: Report) {
        if let Some(entry) = self.lock().devices.get_mut(&imei).filter(|entry| entry.online.is_none()) {
            entry.report = Some(Box::new(report));
        }
    }

    /// Tells again of a device whose latest session is, or was, here.
    pub fn tell_again_of(&self, imei: Imei) {
        let state = self.lock();
        let device = state.devices.get(&imei).map(|entry| &entry.device);
        if let Some(device) = device.filter(|device| state.is_own(device.session.id)) {
            self.queue.put_device(device.clone());
        }
    }

    /// Tells again of the devices whose sessions here began or ended within this time: what was told of them may be lost.
    pub fn tell_again(&self, within: Duration, now: Now) {
        let since_ms = now.utc_ms - i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
        self.in_chunks(None, |state, imeis| {
            for device in imeis.iter().filter_map(|imei| state.devices.get(imei)).map(|entry| &entry.device) {
                let ended_ms = device.session.ended.as_ref().map_or(i64::MIN, |ended| ended.at_ms);
                if state.is_own(device.session.id) && device.session.connected_at_ms.max(ended_ms) >= since_ms
                {
                    self.queue.put_device(device.clone());
                }
            }
            ControlFlow::Continue(())
        });
    }

    /// A node is not heard any more: its sessions are taken for lost. Returns how many there were.
    pub fn lose_node(&self, number: u8, now: Now) -> usize {
        let mut state = self.lock();
        let state = &mut *state;
        if state.elsewhere.get(&number).is_none_or(|held| *held == 0) {
            return 0;
        }
        let cause = state.texts.share(NODE_LOST);
        let name = state.node_names.get(&number).cloned().unwrap_or_else(|| number.to_string().into());
        let lost = state.devices.values_mut().filter(|entry| {
            entry.online.is_none() && entry.is_online() && node_of(entry.device.session.id) == number
        });
        let mut count = 0;
        for entry in lost {
            entry.device.session.ended = Some(Ended { at_ms: now.utc_ms, cause: Arc::clone(&cause) });
            let text = format!("the node {name} is not heard any more");
            self.queue.put_event(event_of(
                &entry.device,
                Kind::Offline,
                Some((Arc::clone(&cause), text)),
                now,
            ));
            self.queue.put_device(entry.device.clone());
            count += 1;
        }
        state.elsewhere.remove(&number);
        state.slot.went = state.slot.went.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        count
    }

    /// The session that another node holds is replaced by one that begins here.
    pub(super) fn replace_elsewhere(&self, state: &mut State, imei: Imei, text: String, now: Now) {
        let cause = state.texts.share(Cause::Replaced.as_str());
        let Some(entry) = state.devices.get(&imei) else { return };
        let id = entry.device.session.id;
        self.queue.put_event(event_of(&entry.device, Kind::Replaced, Some((cause, text)), now));
        state.slot.went = state.slot.went.saturating_add(1);
        state.discount_elsewhere(id);
    }

    /// Ends the session that stands here, of which a row tells a newer one.
    fn give_up(&self, state: &mut State, row: &Device, now: Now) {
        let Some(online) = state.devices.get_mut(&row.imei).and_then(|entry| entry.online.take()) else {
            return;
        };
        online.exit.order(Cause::Replaced, Duration::ZERO);
        state.online -= 1;
        let text = match state.node_names.get(&node_of(row.session.id)) {
            Some(name) => format!("a newer session at node {name} took over"),
            None => "a newer session at another node took over".to_owned(),
        };
        let ending = Ending::new(Kind::Replaced, Cause::Replaced.as_str(), text);
        self.end_session(state, &online.presence, ending, now);
    }

    /// Others took the session for lost, and it stands.
    fn tell_back(&self, entry: &Entry, now: Now) {
        self.queue.put_event(back(&entry.device, now));
        self.queue.put_device(entry.device.clone());
    }
}

/// What is told of a session that others took for lost and that stands.
pub fn back(device: &Device, now: Now) -> Event {
    let text = "its session stood while its node was not heard".to_owned();
    let event = event_of(device, Kind::Online, Some((NODE_BACK.into(), text)), now);
    Event { session_id: Some(device.session.id), ..event }
}

impl State {
    /// Whether this server gave the id, or would have: where there is no other, it is the one that did.
    pub(super) fn is_own(&self, session_id: u64) -> bool {
        self.node.is_none_or(|node| node == node_of(session_id))
    }

    /// Ids that are given from now on are higher than this one.
    pub(super) fn meet(&mut self, session_id: u64, now: Now) {
        if let Some(epoch) = &mut self.epoch {
            epoch.meet(session_id, now);
        }
    }

    pub(super) fn new_session_id(&mut self, queue: &Queue, now: Now) -> u64 {
        if let Some(epoch) = &mut self.epoch {
            return epoch.give(now);
        }
        let id = self.next_session_id;
        self.next_session_id += 1;
        self.reserve_ids(queue);
        id
    }

    pub(super) fn online_anywhere(&self) -> usize {
        self.online + self.elsewhere.values().sum::<usize>()
    }

    pub(super) fn node_name(&self, entry: &Entry) -> Option<Arc<str>> {
        self.node?;
        self.node_names.get(&node_of(entry.device.session.id)).filter(|_| entry.is_online()).cloned()
    }

    pub(super) fn count_elsewhere(&mut self, session_id: u64) {
        *self.elsewhere.entry(node_of(session_id)).or_default() += 1;
    }

    fn discount_elsewhere(&mut self, session_id: u64) {
        if let Some(count) = self.elsewhere.get_mut(&node_of(session_id)) {
            *count = count.saturating_sub(1);
        }
    }

    /// A row takes the place of what is known; no session stands here.
    fn take_over(&mut self, row: Device) {
        let (imei, id, is_online) = (row.imei, row.session.id, row.session.ended.is_none());
        let former = self.devices.get(&imei).map(|entry| (entry.device.session.id, entry.is_online()));
        if let Some((former, true)) = former {
            self.discount_elsewhere(former);
        }
        if is_online {
            self.count_elsewhere(id);
        }
        let begins = former.is_none_or(|(former, _)| former != id);
        let ends = former.is_some_and(|(_, was_online)| was_online) && (begins || !is_online);
        self.slot.came = self.slot.came.saturating_add(u32::from(begins));
        self.slot.went = self.slot.went.saturating_add(u32::from(ends));
        match self.devices.get_mut(&imei) {
            Some(entry) => entry.device = row,
            None => {
                if self.settings.contains_key(&imei) {
                    self.never_seen -= 1;
                }
                let entry = Entry {
                    device: row,
                    online: None,
                    lineage: Lineage::default(),
                    report: None,
                    report_stored_ms: 0,
                    account: None,
                };
                self.devices.insert(imei, Box::new(entry));
            }
        }
    }
}

#[cfg(test)]
mod tests;
