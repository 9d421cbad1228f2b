//! What the server says to a device.

use heapless::String;
use serde::{Deserialize, Serialize};

use crate::message::{self, EncodeError, MessageError};

/// A server's message; the discriminant is the variant's place, from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerMessage {
    /// 0: the device is registered. The answer to Hello.
    Welcome(Welcome),
    /// 1: the answer to Heartbeat.
    HeartbeatAck,
    /// 2: the answer to `TimeRequest`.
    Time(Time),
    /// 3: the device is not admitted; the server ends the session after it.
    Rejected(Rejected),
    /// 4: the server ends the session.
    Goodbye(ServerGoodbye),
    /// 5: asks whether the way down works. Answered by `EchoAck`; but a device that told its silence by Interval, and said
    /// something in the one that this ends, may leave it to TCP to acknowledge.
    Echo {
        /// Comes back in the answer.
        token: u32,
    },
}

/// What the session is to be like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Names this session in the server's log and events.
    pub session_id: u64,
    /// The heartbeat interval granted, seconds.
    pub heartbeat_s: u32,
    /// The server's clock, UTC milliseconds since 1970.
    pub server_time_ms: i64,
    /// The window over which to spread a return when the server is lost, seconds.
    pub spread_s: u32,
}

/// Three of the four stamps of an NTP exchange (RFC 5905 section 8), UTC milliseconds since 1970.
///
/// With `t4`, the device's clock at arrival: offset = ((t2 - t1) + (t3 - t4)) / 2, round trip = (t4 - t1) - (t3 - t2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// The device's clock when it asked, as it said.
    pub t1: i64,
    /// The server's clock when the request came.
    pub t2: i64,
    /// The server's clock when this was sent.
    pub t3: i64,
}

/// Why the device is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// One of [`rejection`].
    pub code: u8,
    /// The same for people.
    pub text: String<96>,
}

/// The server ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerGoodbye {
    /// One of [`server_goodbye`].
    pub reason: u8,
    /// The device is not to come back sooner than this, seconds.
    pub retry_after_s: u32,
}

/// Codes of [`Rejected`]; any other number is "other".
pub mod rejection {
    /// Nothing of the below.
    pub const OTHER: u8 = 0;
    /// The number in Hello is not an IMEI.
    pub const BAD_IMEI: u8 = 1;
    /// The certificate names another IMEI than Hello, or names none where one is required.
    pub const IDENTITY: u8 = 2;
    /// The device never registered here, and new ones are not admitted.
    pub const UNKNOWN_DEVICE: u8 = 3;
    /// The device is blocked by an operator.
    pub const BLOCKED: u8 = 4;
    /// The certificate is revoked or has expired.
    pub const CERTIFICATE: u8 = 5;
    /// The device does not follow the protocol.
    pub const PROTOCOL_ERROR: u8 = 6;
}

/// Reasons of [`ServerGoodbye`]; any other number is "other".
pub mod server_goodbye {
    /// Nothing of the below.
    pub const OTHER: u8 = 0;
    /// The server stops or restarts.
    pub const STOPPING: u8 = 1;
    /// A newer session of the same device took over.
    pub const REPLACED: u8 = 2;
    /// The device was silent for too long.
    pub const IDLE: u8 = 3;
    /// The device does not follow the protocol.
    pub const PROTOCOL_ERROR: u8 = 4;
    /// An operator ended the session.
    pub const DROPPED: u8 = 5;
    /// The certificate was revoked or has expired.
    pub const CERTIFICATE: u8 = 6;
}

impl ServerMessage {
    /// How many discriminants this version knows.
    const KNOWN: u32 = 6;

    /// A buffer of this size holds any frame of this direction: Rejected is the longest, its length field included.
    pub const MAX_ENCODED: usize = 128;

    /// Reads one message from a frame's whole body.
    ///
    /// # Errors
    /// [`MessageError::Unknown`] is to be skipped; any other ends the session.
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        message::decode(body, Self::KNOWN)
    }

    /// Writes the message as a whole frame to the front of `out` and returns its length.
    ///
    /// # Errors
    /// `out` is too short; [`Self::MAX_ENCODED`] bytes are always enough.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        message::encode(self, out)
    }
}
