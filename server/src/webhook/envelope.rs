//! Events as CloudEvents 1.0, in the JSON batch format: an array, however few they are.

use serde_json::{Value, json};

use crate::admin::EventView;
use crate::store::StoredEvent;

/// The media type of a batch.
pub(super) const CONTENT_TYPE: &str = "application/cloudevents-batch+json";

/// What is posted at once.
pub(super) struct Message {
    /// Names the request: the ids of its first and last event.
    pub(super) id: String,
    pub(super) body: Vec<u8>,
}

/// Events in their envelopes; `source` names this server.
pub(super) fn of(events: &[StoredEvent], source: &str) -> Message {
    let id = match events {
        [first, .., last] => format!("{}-{}", first.id, last.id),
        [only] => only.id.to_string(),
        [] => String::new(),
    };
    let events: Vec<Value> = events.iter().map(|stored| envelope(stored, source)).collect();
    Message { id, body: Value::from(events).to_string().into_bytes() }
}

fn envelope(stored: &StoredEvent, source: &str) -> Value {
    // Just what /api/events shows.
    let data = serde_json::to_value(EventView::from(stored.clone())).unwrap_or_default();
    let mut event = json!({
        "specversion": "1.0",
        "id": stored.id.to_string(),
        "source": source,
        "type": format!("io.moorline.device.{}", stored.event.kind.as_str()),
        "time": data["at"],
        "datacontenttype": "application/json",
        "data": data,
    });
    if let Some(imei) = stored.event.imei {
        event["subject"] = imei.to_string().into();
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Kind;
    use crate::store::samples::event;

    #[test]
    fn batch_is_an_array_of_cloud_events() {
        let events = [
            StoredEvent { id: 7, event: event(1, Kind::Offline) },
            StoredEvent { id: 9, event: event(0, Kind::Refused) },
        ];
        let message = of(&events, "urn:x");
        assert_eq!(message.id, "7-9");
        let batch: Value = serde_json::from_slice(&message.body).unwrap();
        let first = &batch[0];
        assert_eq!(first["specversion"], "1.0");
        assert_eq!(first["id"], "7");
        assert_eq!(first["source"], "urn:x");
        assert_eq!(first["type"], "io.moorline.device.offline");
        assert_eq!(first["subject"], "015184008301272");
        assert_eq!(first["time"], "2025-11-24T16:00:00.000Z");
        assert_eq!(first["data"]["text"], "it was silent for too long");
        assert_eq!(first["data"]["session_id"], 7);
        // An attribute without a value is left out.
        assert!(batch[1].as_object().unwrap().get("subject").is_none());
        assert_eq!(of(&events[..1], "urn:x").id, "7");
    }
}
