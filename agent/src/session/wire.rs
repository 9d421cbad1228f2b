//! The two dialects of one conversation: what the session says becomes bytes here, and bytes become what it heard.

use std::fmt;

use heapless::{String, Vec};
use moorline_protocol::{
    DeviceMessage, Hello, MessageError, Rejected, ServerGoodbye, ServerMessage, Status, Time, Usage, Welcome,
    classic::{self, ClassicError, Reply, ReplyDecoder, Request},
    frame::{self, Decoder, FrameError},
};

use super::Greeting;
use crate::budget::Purpose;

/// What is spoken inside TLS; the ALPN of the handshake decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `moorline/1` was agreed on.
    Native,
    /// No ALPN was agreed on.
    Classic,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Classic => "classic",
        })
    }
}

/// What a session has to say.
#[derive(Debug)]
pub(super) enum Say {
    Greeting { heartbeat_s: u32 },
    Heartbeat,
    TimeRequest { t1: i64 },
    Status(Status),
    Usage(Usage),
    Interval { seconds: u32 },
    EchoAck { token: u32 },
    Goodbye { reason: u8 },
}

impl Say {
    pub(super) const fn purpose(&self) -> Option<Purpose> {
        match self {
            Self::Greeting { .. } => None,
            Self::Heartbeat | Self::Interval { .. } | Self::EchoAck { .. } => Some(Purpose::Heartbeat),
            Self::TimeRequest { .. } => Some(Purpose::Time),
            Self::Status(_) | Self::Usage(_) => Some(Purpose::Status),
            Self::Goodbye { .. } => Some(Purpose::Other),
        }
    }
}

/// What a session hears.
#[derive(Debug)]
pub(super) enum Heard {
    Welcome(Welcome),
    /// REGISTER's answer: there is nothing in it.
    ClassicWelcome,
    HeartbeatAck,
    Time(Time),
    /// DATETIME's answer: the server's local time, as if it were UTC, milliseconds since 1970.
    ClassicTime(i64),
    Rejected(Rejected),
    Goodbye(ServerGoodbye),
    /// A classic server does not know the device any more.
    Forgotten,
    Echo {
        token: u32,
    },
    /// An answer that says nothing more than that the server is there.
    Nothing,
    Unknown {
        message: u32,
    },
}

/// How the server broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// The stream holds no frames any more.
    Frame(FrameError),
    /// The same, classic.
    Classic(ClassicError),
    /// A body is no message.
    Message(MessageError),
    /// A message that has no place here, such as a second Welcome.
    Unexpected(&'static str),
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(fault) => fault.fmt(f),
            Self::Classic(fault) => fault.fmt(f),
            Self::Message(fault) => fault.fmt(f),
            Self::Unexpected(message) => write!(f, "{message} where it has no place"),
        }
    }
}

/// One dialect's decoder.
// A session is the agent's only one, so the difference in size costs nothing.
#[expect(clippy::large_enum_variant, reason = "there is one of these in the process")]
#[derive(Debug)]
pub(super) enum Wire {
    Native(Decoder<Vec<u8, { frame::MAX_FRAME }>>),
    Classic(ReplyDecoder),
}

impl Wire {
    pub(super) fn new(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Native => Self::Native(Decoder::default()),
            Dialect::Classic => Self::Classic(ReplyDecoder::default()),
        }
    }

    /// Takes the next message off the front of `input`; `None` once all of it is taken and none is finished.
    pub(super) fn hear(&mut self, input: &mut &[u8]) -> Result<Option<Heard>, PeerError> {
        Ok(match self {
            Self::Native(decoder) => {
                decoder.next(input).map_err(PeerError::Frame)?.map(hear_native).transpose()?
            }
            Self::Classic(decoder) => {
                decoder.next(input).map_err(PeerError::Classic)?.map(|reply| hear_classic(&reply))
            }
        })
    }

    /// Writes what is said to the front of `out`; `None` when this dialect has no words for it.
    pub(super) fn say(&self, say: &Say, greeting: &Greeting, out: &mut [u8]) -> Option<usize> {
        match self {
            Self::Native(_) => native(say, greeting).encode(out).ok(),
            Self::Classic(_) => {
                let frame = classic(say, greeting)?.encode();
                out.get_mut(..frame.len())?.copy_from_slice(&frame);
                Some(frame.len())
            }
        }
    }
}

fn hear_native(body: &[u8]) -> Result<Heard, PeerError> {
    Ok(match ServerMessage::decode(body) {
        Ok(ServerMessage::Welcome(welcome)) => Heard::Welcome(welcome),
        Ok(ServerMessage::HeartbeatAck) => Heard::HeartbeatAck,
        Ok(ServerMessage::Time(time)) => Heard::Time(time),
        Ok(ServerMessage::Rejected(rejected)) => Heard::Rejected(rejected),
        Ok(ServerMessage::Goodbye(goodbye)) => Heard::Goodbye(goodbye),
        Ok(ServerMessage::Echo { token }) => Heard::Echo { token },
        Err(MessageError::Unknown(message)) => Heard::Unknown { message },
        Err(fault) => return Err(PeerError::Message(fault)),
    })
}

fn hear_classic(reply: &Reply<'_>) -> Heard {
    use classic::id;
    let refused = reply.error != classic::code::OK;
    match reply.message {
        id::REGISTER if refused => Heard::Rejected(classic_rejection()),
        id::HEARTBEAT if refused => Heard::Forgotten,
        id::DATETIME if refused => Heard::Nothing,
        id::REGISTER => Heard::ClassicWelcome,
        id::HEARTBEAT => Heard::HeartbeatAck,
        id::DATETIME => datetime(reply.payload).map_or(Heard::Nothing, Heard::ClassicTime),
        other => Heard::Unknown { message: u32::from(other.cast_unsigned()) },
    }
}

/// A classic server gives no reason.
fn classic_rejection() -> Rejected {
    let mut text = String::new();
    // Shorter than the capacity.
    let _ = text.push_str("REGISTER was answered with an error");
    Rejected { code: moorline_protocol::rejection::OTHER, text }
}

/// `YYYY-MM-DD HH:MM:SS` to milliseconds since 1970, as if it were UTC.
fn datetime(text: &[u8]) -> Option<i64> {
    if text.len() != classic::DATETIME_LEN {
        return None;
    }
    let (mut fields, mut index) = ([0_i64; 6], 0);
    for (place, byte) in text.iter().enumerate() {
        match (place, byte) {
            (4 | 7, b'-') | (10, b' ') | (13 | 16, b':') => index += 1,
            (4 | 7 | 10 | 13 | 16, _) => return None,
            (_, b'0'..=b'9') => fields[index] = fields[index] * 10 + i64::from(byte - b'0'),
            _ => return None,
        }
    }
    let [year, month, day, hour, minute, second] = fields;
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        // 60 is a leap second.
        && second <= 60;
    in_range
        .then(|| (days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000)
}

/// Days since 1970-01-01 of a date in the Gregorian calendar (Howard Hinnant's `days_from_civil`).
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn native(say: &Say, greeting: &Greeting) -> DeviceMessage {
    match *say {
        Say::Greeting { heartbeat_s } => DeviceMessage::Hello(Hello {
            imei: greeting.imei.as_u64(),
            app_id: greeting.app_id,
            agent_version: greeting.agent_version.clone(),
            boot_id: greeting.boot_id,
            heartbeat_s,
            modem: greeting.modem.clone(),
        }),
        Say::Heartbeat => DeviceMessage::Heartbeat,
        Say::TimeRequest { t1 } => DeviceMessage::TimeRequest { t1 },
        Say::Status(ref status) => DeviceMessage::Status(status.clone()),
        Say::Usage(ref usage) => DeviceMessage::Usage(usage.clone()),
        Say::Interval { seconds } => DeviceMessage::Interval { seconds },
        Say::EchoAck { token } => DeviceMessage::EchoAck { token },
        Say::Goodbye { reason } => DeviceMessage::Goodbye { reason },
    }
}

fn classic(say: &Say, greeting: &Greeting) -> Option<Request> {
    match *say {
        Say::Greeting { .. } => Some(Request::Register {
            app_id: uuid_text(&greeting.app_id),
            imei: decimal(greeting.imei.as_u64()),
        }),
        Say::Heartbeat => Some(Request::Heartbeat),
        Say::TimeRequest { .. } => Some(Request::DateTime),
        Say::Status(_) | Say::Usage(_) | Say::Interval { .. } | Say::EchoAck { .. } | Say::Goodbye { .. } => {
            None
        }
    }
}

/// The 8-4-4-4-12 form of RFC 9562 section 4.
fn uuid_text(bytes: &[u8; 16]) -> [u8; classic::APP_ID_LEN] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut nibbles = bytes.iter().flat_map(|b| [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
    std::array::from_fn(|place| match place {
        8 | 13 | 18 | 23 => b'-',
        _ => nibbles.next().unwrap_or(b'0'),
    })
}

fn decimal(number: u64) -> [u8; classic::IMEI_LEN] {
    std::array::from_fn(|place| {
        let power = 10_u64.pow((classic::IMEI_LEN - 1 - place) as u32);
        b'0' + (number / power % 10) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datetime_is_read() {
        assert_eq!(datetime(b"1970-01-01 00:00:00"), Some(0));
        assert_eq!(datetime(b"2026-11-24 15:02:31"), Some(1_795_532_551_000));
        assert_eq!(datetime(b"2024-02-29 23:59:59"), Some(1_709_251_199_000));
    }

    #[test]
    fn other_texts_are_no_datetime() {
        for text in [
            "",
            "2026-11-24",
            "2026-11-24T15:02:31",
            "2026-13-24 15:02:31",
            "2026-11-24 24:02:31",
            "2026-1x-24 15:02:31",
        ] {
            assert_eq!(datetime(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn uuid_and_imei_are_written_in_full() {
        let bytes = *b"\x99\x6d\xa3\x8d\xa7\xbe\x49\x47\xaa\x4c\xf8\x20\x8b\x5f\x4a\xde";
        assert_eq!(&uuid_text(&bytes), b"996da38d-a7be-4947-aa4c-f8208b5f4ade");
        assert_eq!(&decimal(4_999_010_640_000), b"004999010640000");
    }
}
