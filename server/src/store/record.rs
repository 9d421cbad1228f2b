//! What is kept of a device and of what happened to it: plain values, known to the registry, every store and the API.

use std::net::SocketAddr;
use std::sync::Arc;

use moorline_protocol::Imei;

use crate::expiry::Remaining;
use crate::session::Dialect;

/// A device and its latest session.
///
/// The registry keeps one of these for every device it knows: about 230 bytes on a 64-bit machine, and the serial's text.
/// Texts that many devices share (versions, modems, issuers) are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Who it is.
    pub imei: Imei,
    /// The product or application it registered as; `None` when it never said.
    pub app_id: Option<[u8; 16]>,
    /// The agent's version; empty from a classic device.
    pub agent_version: Arc<str>,
    /// The modem's maker and model; empty when unknown.
    pub modem: Arc<str>,
    /// When it was first taken in, UTC milliseconds since 1970.
    pub first_seen_ms: i64,
    /// When it was last heard.
    pub last_seen_ms: i64,
    /// The latest session.
    pub session: LastSession,
    /// The certificate shown in it.
    pub certificate: Option<Credential>,
}

impl Device {
    /// The application id in the form of RFC 9562 section 4.
    #[must_use]
    pub fn app_id_text(&self) -> Option<String> {
        let id = u128::from_be_bytes(self.app_id?);
        let (a, b, c, d, e) =
            (id >> 96, id >> 80 & 0xffff, id >> 64 & 0xffff, id >> 48 & 0xffff, id & 0xffff_ffff_ffff);
        Some(format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}"))
    }
}

/// A device's latest session, which may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastSession {
    /// Names it in the log and in events.
    pub id: u64,
    /// When the device was taken in.
    pub connected_at_ms: i64,
    /// Where it came from.
    pub address: SocketAddr,
    /// What it spoke.
    pub dialect: Dialect,
    /// The version of TLS, as `1.3`.
    pub tls: Arc<str>,
    /// The longest silence, seconds: as granted, or as the device told since; a classic device keeps its own.
    pub heartbeat_s: Option<u32>,
    /// When and why it ended; `None` while the device is online.
    pub ended: Option<Ended>,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at_ms: i64,
    /// The stable name of the cause.
    pub cause: Arc<str>,
}

/// What is kept of a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The serial number, hexadecimal.
    pub serial: Box<str>,
    /// Who issued it.
    pub issuer: Arc<str>,
    /// When it expires.
    pub not_after_ms: i64,
    /// How near that was when operators were told last.
    pub told: Remaining,
}

/// What can happen to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A device was taken in.
    Online,
    /// Its session ended.
    Offline,
    /// Its session ended because a newer one of the same device took over.
    Replaced,
    /// Somebody was not taken in.
    Refused,
    /// Somebody was not taken in because certificate and IMEI do not belong together.
    IdentityMismatch,
    /// An operator set what its longest silence is granted.
    HeartbeatSet,
    /// Operators added devices that are to come.
    Added,
    /// An operator named it.
    Labelled,
    /// An operator keeps it out.
    Blocked,
    /// The server keeps it out, until an operator looks.
    Quarantined,
    /// An operator lets it in again.
    Released,
    /// A bound of its budget came near, was spent, or is free again.
    Budget,
    /// The time of its certificate is nearly up.
    CertificateExpiring,
}

impl Kind {
    pub(crate) const ALL: [Self; 13] = [
        Self::Online,
        Self::Offline,
        Self::Replaced,
        Self::Refused,
        Self::IdentityMismatch,
        Self::HeartbeatSet,
        Self::Added,
        Self::Labelled,
        Self::Blocked,
        Self::Quarantined,
        Self::Released,
        Self::Budget,
        Self::CertificateExpiring,
    ];

    /// The stable name in the API and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Replaced => "replaced",
            Self::Refused => "refused",
            Self::IdentityMismatch => "identity_mismatch",
            Self::HeartbeatSet => "heartbeat_set",
            Self::Added => "added",
            Self::Labelled => "labelled",
            Self::Blocked => "blocked",
            Self::Quarantined => "quarantined",
            Self::Released => "released",
            Self::Budget => "budget",
            Self::CertificateExpiring => "certificate_expiring",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether anybody can bring it about, without a certificate that the CA issued for this IMEI.
    ///
    /// Such events are kept and queued apart, so that a flood of them cannot push out what happened to real devices.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::Refused | Self::IdentityMismatch)
    }
}

/// Something that happened, as the store takes it in. The store gives it its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, UTC milliseconds since 1970.
    pub at_ms: i64,
    /// What.
    pub kind: Kind,
    /// The device, where it is known which.
    pub imei: Option<Imei>,
    /// The session; a refused device has none.
    pub session_id: Option<u64>,
    /// Where the device came from.
    pub address: Option<SocketAddr>,
    /// The serial of the certificate shown, where it matters.
    pub certificate: Option<Box<str>>,
    /// The stable name of the cause.
    pub cause: Option<Arc<str>>,
    /// The same in words for people.
    pub text: Option<Box<str>>,
}

/// An event with the id that the store gave it: ids grow, and are never used twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// The place in the order of events.
    pub id: i64,
    /// What happened.
    pub event: Event,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_is_as_lean_as_its_comment_says() {
        assert!(size_of::<Device>() <= 232, "{}", size_of::<Device>());
    }

    #[test]
    fn kinds_are_found_by_their_names() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.as_str()), Some(kind));
        }
        assert_eq!(Kind::from_name("asleep"), None);
    }
}
