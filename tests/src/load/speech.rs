//! What a device says and what it hears in answer, in each of the protocols that a server may speak. Bytes in and out.

use moorline_protocol::classic::{self, Request};
use moorline_protocol::{ALPN, DeviceMessage, Imei, ServerMessage};

use crate::client::hello;

/// The longest silence that a device asks for: longer than anything that is measured.
const SILENCE_S: u16 = 1800;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// Moorline's own.
    Native,
    /// The older one.
    Classic,
    /// MQTT 3.1.1: CONNECT and PINGREQ.
    Mqtt,
}

/// What a frame means to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is taken in, to the session of this id; 0 where none is told.
    Welcome(u64),
    /// A heartbeat's answer.
    Answer,
    /// Something that nobody waits for.
    Other,
    /// It is not taken in, or sent away.
    Refused,
}

impl Speech {
    /// What is offered by ALPN.
    pub(crate) fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Native => vec![ALPN.to_vec()],
            Self::Classic | Self::Mqtt => Vec::new(),
        }
    }

    /// The first words.
    pub(super) fn greeting(self, imei: Imei) -> Vec<u8> {
        match self {
            Self::Native => {
                let mut hello = hello(imei);
                hello.heartbeat_s = SILENCE_S.into();
                let mut frame = [0; DeviceMessage::MAX_ENCODED];
                let len = DeviceMessage::Hello(hello).encode(&mut frame).unwrap_or(0);
                frame[..len].to_vec()
            }
            Self::Classic => {
                let mut app_id = [b'0'; classic::APP_ID_LEN];
                [8, 13, 18, 23].into_iter().for_each(|place| app_id[place] = b'-');
                let mut text = [0; classic::IMEI_LEN];
                text.copy_from_slice(imei.to_string().as_bytes());
                Request::Register { app_id, imei: text }.encode().to_vec()
            }
            Self::Mqtt => {
                let name = imei.to_string();
                let body = 12 + name.len();
                // A clean session of protocol level 4.
                let mut packet = vec![0x10, body as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2];
                packet.extend(SILENCE_S.to_be_bytes());
                packet.extend((name.len() as u16).to_be_bytes());
                packet.extend(name.as_bytes());
                packet
            }
        }
    }

    /// A heartbeat.
    pub(super) const fn heartbeat(self) -> &'static [u8] {
        match self {
            Self::Native => &[1, 1],
            Self::Classic => &[0, 0, 0, 2, 0, 1],
            Self::Mqtt => &[0xc0, 0],
        }
    }

    /// How long the frame at the front of `bytes` is, if it is whole.
    pub(super) fn frame(self, bytes: &[u8]) -> Option<usize> {
        let whole = match self {
            Self::Native => varint(bytes)?,
            Self::Mqtt => 1 + varint(bytes.get(1..)?)?,
            Self::Classic => 4 + u32::from_be_bytes(*bytes.first_chunk()?) as usize,
        };
        (bytes.len() >= whole).then_some(whole)
    }

    /// What a whole frame means.
    pub(super) fn hear(self, frame: &[u8]) -> Heard {
        match self {
            Self::Native => match ServerMessage::decode(&frame[if frame[0] < 0x80 { 1 } else { 2 }..]) {
                Ok(ServerMessage::Welcome(welcome)) => Heard::Welcome(welcome.session_id),
                Ok(ServerMessage::HeartbeatAck) => Heard::Answer,
                Ok(ServerMessage::Rejected(_) | ServerMessage::Goodbye(_)) => Heard::Refused,
                _ => Heard::Other,
            },
            Self::Classic => match frame {
                [_, _, _, _, 0, 0, ..] => Heard::Welcome(0),
                [_, _, _, _, 1, 0, ..] => Heard::Answer,
                _ => Heard::Refused,
            },
            Self::Mqtt => match frame {
                [0x20, 2, _, 0] => Heard::Welcome(0),
                [0x20, ..] => Heard::Refused,
                [0xd0, ..] => Heard::Answer,
                _ => Heard::Other,
            },
        }
    }
}

/// A frame's length with the varint of one or two bytes that says it.
fn varint(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [short @ 0..=0x7f, ..] => Some(1 + usize::from(*short)),
        [low, high, ..] => Some(2 + usize::from(low & 0x7f) + (usize::from(*high) << 7)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_are_those_of_the_protocol() {
        let mut frame = [0; DeviceMessage::MAX_ENCODED];
        let len = DeviceMessage::Heartbeat.encode(&mut frame).unwrap();
        assert_eq!(Speech::Native.heartbeat(), &frame[..len]);
        assert_eq!(Speech::Classic.heartbeat(), &Request::Heartbeat.encode()[..]);
    }

    #[test]
    fn frames_are_whole_or_none() {
        let mut frame = [0; 200];
        let len = ServerMessage::HeartbeatAck.encode(&mut frame).unwrap();
        let ack = &frame[..len];
        for (speech, frame, heard) in [
            (Speech::Native, ack, Heard::Answer),
            (Speech::Mqtt, &[0x20, 2, 0, 0], Heard::Welcome(0)),
            (Speech::Mqtt, &[0xd0, 0], Heard::Answer),
            (Speech::Classic, &[0, 0, 0, 2, 0, 0], Heard::Welcome(0)),
            (Speech::Classic, &[0, 0, 0, 2, 1, 0], Heard::Answer),
        ] {
            for len in 0..frame.len() {
                assert_eq!(speech.frame(&frame[..len]), None);
            }
            assert_eq!(speech.frame(&[frame, &[7]].concat()), Some(frame.len()));
            assert_eq!(speech.hear(frame), heard, "{speech:?} {frame:?}");
        }
    }
}
