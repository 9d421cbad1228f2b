//! Why a session ends or a device is not taken in: one name for each, in words for people, as a stable name for events
//! and metrics, and as the code that goes over the wire.

use std::fmt::{self, Write as _};

use heapless::String;
use moorline_protocol::{Imei, ImeiError, device_goodbye, rejection, server_goodbye};

use super::PeerError;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The device said goodbye.
    Goodbye {
        /// One of [`moorline_protocol::device_goodbye`].
        reason: u8,
    },
    /// The device closed TLS in good order.
    Closed,
    /// The connection ended without a word: reset, cut, or timed out by TCP.
    Lost,
    /// The device did not take what was sent to it.
    Stalled,
    /// The device was silent for too long.
    Idle,
    /// The first message did not come in time.
    NoHello,
    /// The device broke the protocol.
    Protocol(PeerError),
    /// The device was not taken in.
    Refused(Rejection),
    /// A newer session of the same device took over.
    Replaced,
    /// An operator ended it.
    Dropped,
    /// The device is blocked or quarantined.
    Held,
    /// Its certificate was revoked.
    Revoked,
    /// Its certificate has expired.
    Expired,
    /// Its certificate is no longer accepted, for another reason: its CA is not trusted any more.
    Certificate,
    /// The server stops.
    Stopping,
    /// The server failed at this session: a defect of its own.
    Internal,
}

impl Cause {
    /// The name in events and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Goodbye { .. } => "goodbye",
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::Stalled => "stalled",
            Self::Idle => "idle",
            Self::NoHello => "no_hello",
            Self::Protocol(_) => "protocol_error",
            Self::Refused(rejection) => rejection.as_str(),
            Self::Replaced => "replaced",
            Self::Dropped => "dropped",
            Self::Held => "held",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Certificate => "certificate",
            Self::Stopping => "server_stopping",
            Self::Internal => "internal",
        }
    }

    /// The reason of the Goodbye that the device is sent; `None` where there is nothing to say or nobody to hear it.
    pub(super) const fn goodbye(self) -> Option<u8> {
        match self {
            Self::Goodbye { .. } | Self::Closed | Self::Lost | Self::Stalled | Self::Refused(_) => None,
            Self::Idle => Some(server_goodbye::IDLE),
            Self::NoHello | Self::Protocol(_) => Some(server_goodbye::PROTOCOL_ERROR),
            Self::Replaced => Some(server_goodbye::REPLACED),
            // Why, it is told when it comes back.
            Self::Dropped | Self::Held => Some(server_goodbye::DROPPED),
            Self::Revoked | Self::Expired | Self::Certificate => Some(server_goodbye::CERTIFICATE),
            Self::Stopping => Some(server_goodbye::STOPPING),
            Self::Internal => Some(server_goodbye::OTHER),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Goodbye { reason } if super::is_planned(*reason) => f.write_str("it said goodbye"),
            Self::Goodbye { reason: device_goodbye::BUDGET } => {
                f.write_str("it said goodbye, as its month's bytes are spent or nearly so")
            }
            Self::Goodbye { reason } => write!(f, "it said goodbye with reason {reason}"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Lost => f.write_str("the connection was lost"),
            Self::Stalled => f.write_str("it did not take what was sent to it"),
            Self::Idle => f.write_str("it was silent for too long"),
            Self::NoHello => f.write_str("its first message did not come in time"),
            Self::Protocol(fault) => write!(f, "it broke the protocol: {fault}"),
            Self::Refused(rejection) => write!(f, "it was refused: {rejection}"),
            Self::Replaced => f.write_str("a newer session of the same device took over"),
            Self::Dropped => f.write_str("an operator ended the session"),
            Self::Held => f.write_str("it is blocked or quarantined"),
            Self::Revoked => f.write_str("its certificate was revoked"),
            Self::Expired => f.write_str("its certificate has expired"),
            Self::Certificate => f.write_str("its certificate is no longer accepted"),
            Self::Stopping => f.write_str("the server stops"),
            Self::Internal => f.write_str("the server failed at this session"),
        }
    }
}

/// Why a device is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// What it registered is no IMEI.
    BadImei(ImeiError),
    /// What it registered as application id is no UUID.
    BadAppId,
    /// Its certificate names no IMEI, and one is required.
    NoIdentity,
    /// Its certificate names another IMEI.
    Mismatch {
        /// The certificate's.
        certified: Imei,
        /// The device's own word.
        claimed: Imei,
    },
    /// Only devices that were taken in before or added are admitted, and it was not.
    UnknownDevice,
    /// An operator blocked it.
    Blocked,
    /// What comes under its IMEI cannot be one device, or an operator says so.
    Quarantined,
    /// Its certificate is revoked or has expired.
    Certificate,
}

impl Rejection {
    /// The name in events and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadImei(_) => "bad_imei",
            Self::BadAppId => "bad_app_id",
            Self::NoIdentity => "no_identity",
            Self::Mismatch { .. } => "identity_mismatch",
            Self::UnknownDevice => "unknown_device",
            Self::Blocked => "blocked",
            Self::Quarantined => "quarantined",
            Self::Certificate => "certificate",
        }
    }

    /// The code on the wire.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::BadImei(_) => rejection::BAD_IMEI,
            Self::BadAppId => rejection::PROTOCOL_ERROR,
            Self::NoIdentity | Self::Mismatch { .. } => rejection::IDENTITY,
            Self::UnknownDevice => rejection::UNKNOWN_DEVICE,
            Self::Blocked | Self::Quarantined => rejection::BLOCKED,
            Self::Certificate => rejection::CERTIFICATE,
        }
    }

    /// The words on the wire. A device is told its own claim only, not whose certificate it holds.
    pub(super) fn text(self) -> String<96> {
        let mut text = String::new();
        // What does not fit is cut off at the end of the last piece that does.
        let _ = match self {
            Self::Mismatch { claimed, .. } => {
                write!(text, "the certificate does not belong to IMEI {claimed}")
            }
            other => write!(text, "{other}"),
        };
        text
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadImei(fault) => write!(f, "the number is not an IMEI: {fault}"),
            Self::BadAppId => f.write_str("the application id is not a UUID"),
            Self::NoIdentity => f.write_str("the certificate names no IMEI"),
            Self::Mismatch { certified, claimed } => {
                write!(f, "the certificate names IMEI {certified}, the device says {claimed}")
            }
            Self::UnknownDevice => f.write_str("the device is not known here, and new ones are not admitted"),
            Self::Blocked => f.write_str("the device is blocked"),
            Self::Quarantined => f.write_str("the device is quarantined until an operator looks"),
            Self::Certificate => f.write_str("the certificate is revoked or has expired"),
        }
    }
}
