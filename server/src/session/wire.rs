//! The two dialects of one conversation: bytes become what the session hears, and what it says becomes bytes here.

use std::fmt;

use jiff::{Timestamp, tz::TimeZone};
use moorline_protocol::{
    DeviceMessage, Hello, MessageError, Rejected, ServerGoodbye, ServerMessage, Status, Time, Usage, Welcome,
    classic::{self, ClassicError, Received, Reply, Request, RequestDecoder},
    frame::{Decoder, FrameError, Spill},
};

use super::Rejection;
use crate::clock::Now;

/// What is spoken inside TLS; the ALPN of the handshake decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `moorline/1` was agreed on.
    Native,
    /// The device offered no ALPN.
    Classic,
}

impl Dialect {
    /// The name in the API, the metrics and the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Classic => "classic",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a session hears.
#[derive(Debug)]
pub(super) enum Heard {
    Hello(Hello),
    Register {
        app_id: [u8; classic::APP_ID_LEN],
        imei: [u8; classic::IMEI_LEN],
    },
    Heartbeat,
    TimeRequest {
        t1: i64,
    },
    Status(Status),
    Goodbye {
        reason: u8,
    },
    Interval {
        seconds: u32,
    },
    EchoAck {
        token: u32,
    },
    Usage(Usage),
    /// Skipped, as the wire's version rules have it.
    Unknown {
        message: u32,
    },
    /// Skipped and answered with an error, as classic peers expect an answer to everything.
    ClassicUnknown {
        message: i8,
    },
}

/// What a session has to say.
#[derive(Clone, Copy, Debug)]
pub(super) enum Say {
    Welcome { session_id: u64, heartbeat_s: u32, spread_s: u32 },
    HeartbeatAck,
    Time { t1: i64, t2: i64 },
    Rejected(Rejection),
    Goodbye { reason: u8, retry_after_s: u32 },
    Echo { token: u32 },
    ClassicError { message: i8 },
}

/// How a device broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// The stream holds no frames any more.
    Frame(FrameError),
    /// The same, classic.
    Classic(ClassicError),
    /// A body is no message.
    Message(MessageError),
    /// Something other than Hello came first.
    BeforeHello,
    /// A second Hello.
    SecondHello,
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(fault) => fault.fmt(f),
            Self::Classic(fault) => fault.fmt(f),
            Self::Message(fault) => fault.fmt(f),
            Self::BeforeHello => f.write_str("a message before Hello"),
            Self::SecondHello => f.write_str("a second Hello"),
        }
    }
}

/// A long unfinished frame's memory: nothing while there is none.
#[derive(Debug, Default)]
pub(super) struct HeapSpill(Vec<u8>);

impl Spill for HeapSpill {
    fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn release(&mut self) {
        self.0 = Vec::new();
    }
}

/// One dialect's decoder, which is there only while a frame is unfinished: hardly ever.
#[derive(Debug)]
pub(super) enum Wire {
    Native(Option<Box<Decoder<HeapSpill>>>),
    Classic(Option<Box<RequestDecoder>>),
}

impl Wire {
    pub(super) fn new(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Native => Self::Native(None),
            Dialect::Classic => Self::Classic(None),
        }
    }

    pub(super) const fn dialect(&self) -> Dialect {
        match self {
            Self::Native(_) => Dialect::Native,
            Self::Classic(_) => Dialect::Classic,
        }
    }

    /// Takes the next message off the front of `input`; `None` once all of it is taken and none is finished.
    pub(super) fn hear(&mut self, input: &mut &[u8]) -> Result<Option<Heard>, PeerError> {
        match self {
            Self::Native(unfinished) => {
                let mut decoder = unfinished.take().map_or_else(Decoder::default, |kept| *kept);
                let heard = decoder.next(input).map_err(PeerError::Frame)?.map(hear_native).transpose()?;
                *unfinished = (!decoder.is_idle()).then(|| Box::new(decoder));
                Ok(heard)
            }
            Self::Classic(unfinished) => {
                let mut decoder = unfinished.take().map_or_else(RequestDecoder::default, |kept| *kept);
                let heard = decoder.next(input).map_err(PeerError::Classic)?.map(hear_classic);
                *unfinished = (!decoder.is_idle()).then(|| Box::new(decoder));
                Ok(heard)
            }
        }
    }

    /// Writes what is said to the front of `out`; `None` when this dialect has no words for it.
    pub(super) fn say(&self, say: Say, zone: &TimeZone, now: Now, out: &mut [u8]) -> Option<usize> {
        match self {
            Self::Native(_) => native(say, now)?.encode(out).ok(),
            Self::Classic(_) => {
                let text = local_time(zone, now);
                let frame = classic(say, text.as_bytes())?.encode();
                out.get_mut(..frame.len())?.copy_from_slice(&frame);
                Some(frame.len())
            }
        }
    }
}

fn hear_native(body: &[u8]) -> Result<Heard, PeerError> {
    Ok(match DeviceMessage::decode(body) {
        Ok(DeviceMessage::Hello(hello)) => Heard::Hello(hello),
        Ok(DeviceMessage::Heartbeat) => Heard::Heartbeat,
        Ok(DeviceMessage::TimeRequest { t1 }) => Heard::TimeRequest { t1 },
        Ok(DeviceMessage::Status(status)) => Heard::Status(status),
        Ok(DeviceMessage::Goodbye { reason }) => Heard::Goodbye { reason },
        Ok(DeviceMessage::Interval { seconds }) => Heard::Interval { seconds },
        Ok(DeviceMessage::EchoAck { token }) => Heard::EchoAck { token },
        Ok(DeviceMessage::Usage(usage)) => Heard::Usage(usage),
        Err(MessageError::Unknown(message)) => Heard::Unknown { message },
        Err(fault) => return Err(PeerError::Message(fault)),
    })
}

fn hear_classic(received: Received) -> Heard {
    match received {
        Received::Request(Request::Register { app_id, imei }) => Heard::Register { app_id, imei },
        Received::Request(Request::Heartbeat) => Heard::Heartbeat,
        // Classic requests carry no time of their own.
        Received::Request(Request::DateTime) => Heard::TimeRequest { t1: 0 },
        Received::Refused { message } => Heard::ClassicUnknown { message },
    }
}

fn native(say: Say, now: Now) -> Option<ServerMessage> {
    Some(match say {
        Say::Welcome { session_id, heartbeat_s, spread_s } => {
            ServerMessage::Welcome(Welcome { session_id, heartbeat_s, server_time_ms: now.utc_ms, spread_s })
        }
        Say::HeartbeatAck => ServerMessage::HeartbeatAck,
        Say::Time { t1, t2 } => ServerMessage::Time(Time { t1, t2, t3: now.utc_ms }),
        Say::Rejected(rejection) => {
            ServerMessage::Rejected(Rejected { code: rejection.code(), text: rejection.text() })
        }
        Say::Goodbye { reason, retry_after_s } => {
            ServerMessage::Goodbye(ServerGoodbye { reason, retry_after_s })
        }
        Say::Echo { token } => ServerMessage::Echo { token },
        Say::ClassicError { .. } => return None,
    })
}

fn classic(say: Say, time: &[u8]) -> Option<Reply<'_>> {
    use classic::{code, id};
    let (message, error, payload): (_, _, &[u8]) = match say {
        Say::Welcome { .. } => (id::REGISTER, code::OK, &[]),
        Say::Rejected(_) => (id::REGISTER, code::ERROR, &[]),
        Say::HeartbeatAck => (id::HEARTBEAT, code::OK, &[]),
        Say::Time { .. } => (id::DATETIME, code::OK, time),
        Say::ClassicError { message } => (message, code::ERROR, &[]),
        Say::Goodbye { .. } | Say::Echo { .. } => return None,
    };
    Some(Reply { message, error, payload })
}

/// `YYYY-MM-DD HH:MM:SS` in the server's zone, which is what classic devices expect.
fn local_time(zone: &TimeZone, now: Now) -> String {
    let at = Timestamp::from_millisecond(now.utc_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    zone.to_datetime(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
}
