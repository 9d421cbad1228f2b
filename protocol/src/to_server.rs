//! What a device says to the server.

use heapless::String;
use serde::{Deserialize, Serialize};

use crate::message::{self, EncodeError, MessageError};

/// A device's message; the discriminant is the variant's place, from 0.
///
/// A server may meet any of these at any time after [`Hello`], and nothing but Hello before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceMessage {
    /// 0: the first message of a session, and sent once.
    Hello(Hello),
    /// 1: the device is there. Answered by `HeartbeatAck`.
    Heartbeat,
    /// 2: asks for the time. Answered by Time with the same `t1`.
    TimeRequest {
        /// The device's clock when it sent this, UTC milliseconds since 1970.
        t1: i64,
    },
    /// 3: how the device and its line are.
    Status(Status),
    /// 4: the device ends the session.
    Goodbye {
        /// One of [`device_goodbye`].
        reason: u8,
    },
    /// 5: tells how long the device may be silent from now on.
    Interval {
        /// The longest silence, seconds.
        seconds: u32,
    },
    /// 6: answers an Echo.
    EchoAck {
        /// The token of that Echo.
        token: u32,
    },
    /// 7: what the device has used of its budget. A server that does not know it skips it.
    Usage(Usage),
}

/// Who the device is and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The IMEI as a number. Not yet an [`Imei`](crate::Imei): the server checks it.
    pub imei: u64,
    /// The product or application, a UUID's 16 bytes.
    pub app_id: [u8; 16],
    /// The agent's version, as `0.1.0`.
    pub agent_version: String<16>,
    /// The kernel's boot id: another one means that the device restarted.
    pub boot_id: [u8; 16],
    /// The heartbeat interval the device wants, seconds.
    pub heartbeat_s: u32,
    /// The modem's maker and model as it gave them; empty when there is none.
    pub modem: String<48>,
}

/// What the device can tell of itself; what it cannot is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Received signal strength, dBm (from +CSQ, 3GPP TS 27.007 section 8.5).
    pub signal_dbm: Option<i16>,
    /// Network registration, `<stat>` of +CREG (3GPP TS 27.007 section 7.2).
    pub registration: Option<u8>,
    /// The operator as MCC-MNC, `262-01`.
    pub operator: Option<String<8>>,
    /// Seconds since boot.
    pub uptime_s: Option<u32>,
    /// Memory available, KiB.
    pub memory_kb: Option<u32>,
    /// One-minute load average, hundredths.
    pub load: Option<u16>,
    /// Temperature, tenths of a degree Celsius.
    pub temperature: Option<i16>,
}

/// What a device has used of what it may ask of its network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The bytes of its month.
    pub bytes: UsageBytes,
    /// Connections begun in its hour.
    pub hour: Used,
    /// Connections begun in its day.
    pub day: Used,
    /// Bytes in its month, which has 30 days.
    pub month: Used,
}

/// Bytes by what they were for: both ways, with headers. What is too large for its field is as large as fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageBytes {
    /// Connections up to the server's Welcome, with a full TLS handshake; and those that came to nothing.
    pub full: u32,
    /// The same, resumed.
    pub resumed: u32,
    /// Heartbeats, Echoes, and their answers.
    pub heartbeats: u32,
    /// Status and Usage.
    pub reports: u32,
    /// Time questions and their answers.
    pub time: u32,
    /// All else.
    pub other: u32,
    /// Of all of these, the headers of IP and TCP: an estimate.
    pub headers: u32,
}

/// What is used of one bound in the period that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// So much.
    pub amount: u64,
    /// The bound, where there is one.
    pub limit: Option<u64>,
    /// How near it is: one of [`usage_level`].
    pub level: u8,
    /// The nearest it has been since the device told last, as it may be free again by the time there is somebody to tell.
    pub peak: u8,
    /// Seconds until the period is over.
    pub left_s: u32,
}

/// How near a bound is; any other number is "other".
pub mod usage_level {
    /// There is enough left.
    pub const FREE: u8 = 0;
    /// The rest has to last until the period is over, so the device stretches it.
    pub const NEAR: u8 = 1;
    /// Nothing is left.
    pub const SPENT: u8 = 2;
}

/// Why a device says [`DeviceMessage::Goodbye`]; any other number is "other".
pub mod device_goodbye {
    /// Nothing of the below.
    pub const OTHER: u8 = 0;
    /// The agent was asked to stop.
    pub const STOPPING: u8 = 1;
    /// The agent reads its configuration anew and comes back.
    pub const RELOADING: u8 = 2;
    /// The server's answers do not follow the protocol.
    pub const PROTOCOL_ERROR: u8 = 3;
    /// The month's bytes come near their bound, and the device comes back with rarer heartbeats; or they are spent, and it
    /// comes back when the month is over.
    pub const BUDGET: u8 = 4;
}

impl DeviceMessage {
    /// How many discriminants this version knows.
    const KNOWN: u32 = 8;

    /// A buffer of this size holds any frame of this direction: Usage is the longest, its length field included.
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
