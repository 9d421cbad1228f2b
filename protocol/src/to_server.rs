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
    const KNOWN: u32 = 7;

    /// A buffer of this size holds any frame of this direction: Hello is the longest, its length field included.
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
