//! Native messages of both directions: a body that is one comes back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moorline_protocol::{DeviceMessage, ServerMessage};

fuzz_target!(|body: &[u8]| {
    if let Ok(message) = DeviceMessage::decode(body) {
        let mut out = [0; DeviceMessage::MAX_ENCODED];
        let written = message.encode(&mut out).expect("MAX_ENCODED is enough");
        assert_eq!(DeviceMessage::decode(&out[1..written]), Ok(message));
    }
    if let Ok(message) = ServerMessage::decode(body) {
        let mut out = [0; ServerMessage::MAX_ENCODED];
        let written = message.encode(&mut out).expect("MAX_ENCODED is enough");
        assert_eq!(ServerMessage::decode(&out[1..written]), Ok(message));
    }
});
