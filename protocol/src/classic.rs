//! The classic protocol: the fixed layout that older fleets speak. All integers are big-endian.
//!
//! ```text
//!   to the server:  | u32 length | i8 client id | i8 message id | payload |
//!   to the device:  | u32 length | i8 message id | i8 error code | payload |
//! ```

use core::fmt;

use heapless::Vec;

/// A body over this ends the session.
pub const MAX_BODY: u32 = 64 * 1024;

/// The length field.
const FIELD: usize = 4;
/// What stands before the payload, in both directions.
const IDS: usize = 2;
/// The application id's text in REGISTER, a UUID with its hyphens.
pub const APP_ID_LEN: usize = 36;
/// The IMEI's text in REGISTER.
pub const IMEI_LEN: usize = 15;
const REGISTER_BODY: usize = IDS + APP_ID_LEN + IMEI_LEN;
/// `YYYY-MM-DD HH:MM:SS`.
pub const DATETIME_LEN: usize = 19;

/// The longest request's frame.
pub const MAX_REQUEST: usize = FIELD + REGISTER_BODY;
/// The longest reply's frame.
pub const MAX_REPLY: usize = FIELD + IDS + DATETIME_LEN;

/// The client id that devices send.
const CLIENT_ID: u8 = 0;

/// Message ids, the same in both directions.
pub mod id {
    /// A device says who it is.
    pub const REGISTER: i8 = 0;
    /// A device is there.
    pub const HEARTBEAT: i8 = 1;
    /// A device asks for the time.
    pub const DATETIME: i8 = 2;
}

/// Error codes of a reply.
pub mod code {
    /// Done.
    pub const OK: i8 = 0;
    /// Refused.
    pub const ERROR: i8 = -1;
}

/// What a device asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Who it is; texts as they came, not yet checked.
    Register {
        /// A UUID's text.
        app_id: [u8; APP_ID_LEN],
        /// 15 digits.
        imei: [u8; IMEI_LEN],
    },
    /// It is there.
    Heartbeat,
    /// It asks for the time.
    DateTime,
}

impl Request {
    /// The request as a whole frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8, MAX_REQUEST> {
        let message = match self {
            Self::Register { .. } => id::REGISTER,
            Self::Heartbeat => id::HEARTBEAT,
            Self::DateTime => id::DATETIME,
        };
        let (app_id, imei): (&[u8], &[u8]) = match self {
            Self::Register { app_id, imei } => (app_id, imei),
            Self::Heartbeat | Self::DateTime => (&[], &[]),
        };
        frame([CLIENT_ID, message.cast_unsigned()], app_id, imei)
    }
}

/// What the server answers: one for each request, in the order asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The id of the request it answers.
    pub message: i8,
    /// One of [`code`].
    pub error: i8,
    /// DATETIME's text; else empty.
    pub payload: &'a [u8],
}

impl Reply<'_> {
    /// The reply as a whole frame. A payload longer than [`DATETIME_LEN`] is cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8, MAX_REPLY> {
        let payload = self.payload.get(..DATETIME_LEN).unwrap_or(self.payload);
        frame([self.message.cast_unsigned(), self.error.cast_unsigned()], payload, &[])
    }
}

/// One frame; `N` is its direction's longest, so that every push fits.
fn frame<const N: usize>(ids: [u8; IDS], first: &[u8], second: &[u8]) -> Vec<u8, N> {
    let length = (IDS + first.len() + second.len()) as u32;
    let mut frame = Vec::new();
    for part in [length.to_be_bytes().as_slice(), &ids, first, second] {
        let _ = frame.extend_from_slice(part);
    }
    frame
}

/// What [`RequestDecoder`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A request to be answered.
    Request(Request),
    /// A frame that is no request known here: to be answered with [`code::ERROR`] under this id.
    Refused {
        /// The message id that the frame carries.
        message: i8,
    },
}

/// Finds requests in a stream that arrives in pieces of any size: the server's side.
#[derive(Debug, Default)]
pub struct RequestDecoder(BodyDecoder<REGISTER_BODY>);

impl RequestDecoder {
    /// Takes the next request off the front of `input`; `None` once all of `input` is taken and none is finished.
    ///
    /// An unknown message is reported as soon as its whole body has passed by; its payload is never kept.
    ///
    /// # Errors
    /// The length can't be a frame's. Nothing after it can be trusted, so the session has to end.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Received>, ClassicError> {
        let Some(body) = self.0.next(input)? else { return Ok(None) };
        let [_client, message] = body.ids.map(u8::cast_signed);
        let request = match (message, body.payload, body.passed_by) {
            (id::REGISTER, payload, 0) => payload.split_at_checked(APP_ID_LEN).and_then(|(app_id, imei)| {
                Some(Request::Register { app_id: app_id.try_into().ok()?, imei: imei.try_into().ok()? })
            }),
            (id::HEARTBEAT, [], 0) => Some(Request::Heartbeat),
            (id::DATETIME, [], 0) => Some(Request::DateTime),
            _ => None,
        };
        Ok(Some(request.map_or(Received::Refused { message }, Received::Request)))
    }

    /// Whether nothing of an unfinished request is kept: a new decoder is as good as this one.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.0.lent || self.0.field.is_empty()
    }
}

/// Finds replies in a stream that arrives in pieces of any size: the device's side.
#[derive(Debug, Default)]
pub struct ReplyDecoder(BodyDecoder<{ IDS + DATETIME_LEN }>);

impl ReplyDecoder {
    /// Takes the next reply off the front of `input`; `None` once all of `input` is taken and none is finished. Of a
    /// longer payload than any known only the first [`DATETIME_LEN`] bytes are there.
    ///
    /// # Errors
    /// The length can't be a frame's. Nothing after it can be trusted, so the session has to end.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Reply<'_>>, ClassicError> {
        let Some(body) = self.0.next(input)? else { return Ok(None) };
        let [message, error] = body.ids.map(u8::cast_signed);
        Ok(Some(Reply { message, error, payload: body.payload }))
    }
}

/// A finished body.
struct Body<'a> {
    ids: [u8; IDS],
    payload: &'a [u8],
    /// How many bytes of the payload were not kept.
    passed_by: usize,
}

/// One body at a time, of which the first `N` bytes are kept and the rest passes by.
#[derive(Debug, Default)]
struct BodyDecoder<const N: usize> {
    field: Vec<u8, FIELD>,
    kept: Vec<u8, N>,
    passed_by: usize,
    /// The body is finished and was lent to the caller; the next call drops it.
    lent: bool,
}

impl<const N: usize> BodyDecoder<N> {
    fn next(&mut self, input: &mut &[u8]) -> Result<Option<Body<'_>>, ClassicError> {
        if self.lent {
            *self = Self::default();
        }
        loop {
            let lacking = match self.length()? {
                Some(length) => length - self.passed_by - self.kept.len(),
                None => FIELD - self.field.len(),
            };
            if lacking == 0 {
                self.lent = true;
                let passed_by = self.passed_by;
                // A finished body has its ids: `length` lets none shorter pass.
                let split = self.kept.split_first_chunk();
                return Ok(split.map(|(&ids, payload)| Body { ids, payload, passed_by }));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let (taken, rest) = input.split_at(lacking.min(input.len()));
            *input = rest;
            self.keep(taken);
        }
    }

    /// The body's length; `None` while the field is unfinished.
    fn length(&self) -> Result<Option<usize>, ClassicError> {
        let Ok(field) = <[u8; FIELD]>::try_from(self.field.as_slice()) else { return Ok(None) };
        match u32::from_be_bytes(field) {
            short if short < IDS as u32 => Err(ClassicError::TooShort(short)),
            long if long > MAX_BODY => Err(ClassicError::TooLong(long)),
            length => Ok(Some(length as usize)),
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.field.len() < FIELD {
            let _ = self.field.extend_from_slice(bytes);
            return;
        }
        let (kept, passed_by) = bytes.split_at(bytes.len().min(N - self.kept.len()));
        let _ = self.kept.extend_from_slice(kept);
        self.passed_by += passed_by.len();
    }
}

/// Why a stream holds no more frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassicError {
    /// The body has no room for the two ids.
    TooShort(u32),
    /// The body is over [`MAX_BODY`].
    TooLong(u32),
}

impl fmt::Display for ClassicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(length) => write!(f, "a classic frame of length {length}, the shortest is {IDS}"),
            Self::TooLong(length) => {
                write!(f, "a classic frame of length {length}, the longest is {MAX_BODY}")
            }
        }
    }
}

impl core::error::Error for ClassicError {}
