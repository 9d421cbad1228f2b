//! What the store is told of those who were not taken in.

use std::net::SocketAddr;

use moorline_protocol::Imei;

use super::Registry;
use crate::clock::Now;
use crate::identity::Certificate;
use crate::store::{Event, Kind};

/// Somebody who was not taken in.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// Where it came from.
    pub address: SocketAddr,
    /// Who it said it is.
    pub imei: Option<Imei>,
    /// What it showed.
    pub certificate: Option<&'a Certificate>,
    /// The stable name of the reason.
    pub reason: &'static str,
    /// The same in words for people.
    pub text: &'a str,
}

impl Registry {
    /// Notes that somebody was not taken in.
    pub fn refused(&self, refused: Refused<'_>, now: Now) {
        let mismatch = refused.reason == "identity_mismatch";
        let mut state = self.lock();
        state.slot.refused = state.slot.refused.saturating_add(1);
        let cause = state.texts.share(refused.reason);
        drop(state);
        self.queue.put_event(Event {
            at_ms: now.utc_ms,
            kind: if mismatch { Kind::IdentityMismatch } else { Kind::Refused },
            imei: refused.imei,
            session_id: None,
            address: Some(refused.address),
            certificate: refused.certificate.map(|certificate| certificate.serial.as_str().into()),
            cause: Some(cause),
            text: Some(refused.text.into()),
        });
    }
}
