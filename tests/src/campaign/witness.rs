//! What every server tells operators: its devices and its events. All have to tell the same.

use moorline_protocol::Imei;
use serde_json::Value;

use super::check::{Event, Told};
use crate::failure::Failure;
use crate::http::Operators;
use crate::load::Stay;
use crate::several::NAMES;

/// See the module.
pub(super) struct Witness {
    servers: Vec<Operators>,
    /// What each told so far, under its ids.
    told: Vec<Vec<Value>>,
    /// How many of those all of them told alike.
    agreed: usize,
    /// What these say of sessions.
    events: Vec<Event>,
}

impl Witness {
    pub(super) fn new(servers: Vec<Operators>) -> Self {
        let told = servers.iter().map(|_| Vec::new()).collect();
        Self { servers, told, agreed: 0, events: Vec::new() }
    }

    /// The events that all servers told alike, the oldest first.
    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    /// Asks every server, and holds what it shows against what the devices saw last. What differs.
    pub(super) fn look(&mut self, fleet: &[(Imei, &[Stay])]) -> Vec<String> {
        let mut wrong = Vec::new();
        for (server, told) in self.servers.iter().zip(&mut self.told) {
            let last = told.last().map_or(0, |event| event["id"].as_i64().unwrap_or(0));
            match server.events_after(last) {
                Ok(more) => told.extend(more),
                Err(failure) => wrong.push(format!("events: {failure}")),
            }
        }
        self.agree(&mut wrong);
        for (server, name) in self.servers.iter().zip(NAMES) {
            match devices(*server) {
                Ok(shown) => hold(name, &shown, fleet, &mut wrong),
                Err(failure) => wrong.push(format!("devices at {name}: {failure}")),
            }
        }
        wrong
    }

    /// Takes over what all tell alike.
    fn agree(&mut self, wrong: &mut Vec<String>) {
        let most = self.told.iter().map(Vec::len).max().unwrap_or(0);
        for place in self.agreed..most {
            let first = self.told[0].get(place);
            for (told, name) in self.told.iter().zip(NAMES) {
                if told.get(place) != first || first.is_none() {
                    let told = told.get(place).map(Value::to_string).unwrap_or_default();
                    wrong.push(format!("{name} tells {told:?} as number {place}, and a does not"));
                    return;
                }
            }
            self.agreed = place + 1;
            self.events.extend(first.and_then(Event::read));
        }
    }
}

fn devices(server: Operators) -> Result<Vec<Value>, Failure> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let after = all.last().and_then(|device| device["imei"].as_str());
        let after = after.map(|imei| format!("&after={imei}")).unwrap_or_default();
        let page = server.json(&format!("/api/devices?limit=1000{after}"))?;
        let page = page["devices"].as_array().cloned().unwrap_or_default();
        let is_last = page.len() < 1000;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

/// Who has a session is shown with it, at its server; who has none is not online.
fn hold(name: &str, shown: &[Value], fleet: &[(Imei, &[Stay])], wrong: &mut Vec<String>) {
    for (imei, diary) in fleet {
        let imei = imei.to_string();
        let device = shown.binary_search_by(|device| device["imei"].as_str().unwrap_or("").cmp(&imei));
        let device = device.ok().map(|place| &shown[place]);
        let online = device.filter(|device| device["online"] == true);
        let told = online.map(|device| Told {
            session: device["session_id"].as_u64().unwrap_or(0),
            node: device["node"].as_str().unwrap_or("").to_owned(),
        });
        let seen = diary.last().filter(|stay| stay.ended.is_none());
        let seen = seen.map(|stay| Told { session: stay.session, node: NAMES[stay.server].to_owned() });
        if told != seen {
            wrong.push(format!("{name} shows {imei} with {told:?}, and the device has {seen:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_no_session_makes_nothing_else_told_twice() {
        let event = |id, kind| serde_json::json!({ "id": id, "imei": "004999010640000", "kind": kind, "session_id": 7 });
        let mut witness = Witness::new(vec![Operators("127.0.0.1:1".parse().unwrap()); NAMES.len()]);
        let mut wrong = Vec::new();
        for more in [event(1, "refused"), event(2, "online"), event(3, "offline")] {
            witness.told.iter_mut().for_each(|told| told.push(more.clone()));
            witness.agree(&mut wrong);
        }
        assert_eq!((witness.events().len(), wrong), (2, Vec::new()));
    }
}
