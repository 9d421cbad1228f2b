//! What the messages of both directions share: reading the discriminant before postcard does, and telling faults apart.

use core::fmt;

use serde::{Serialize, de::DeserializeOwned};

use crate::frame::{MAX_LENGTH_FIELD, write_length};

/// Reads one message from a frame's whole body.
///
/// postcard reports an unknown discriminant and an unknown inner enum alike, takes discriminants that are not in their
/// shortest form, and leaves what follows a message; so the discriminant is looked at first and the rest last.
pub(crate) fn decode<M: DeserializeOwned>(body: &[u8], known: u32) -> Result<M, MessageError> {
    let discriminant = discriminant(body)?;
    if discriminant >= known {
        return Err(MessageError::Unknown(discriminant));
    }
    let (message, rest) =
        postcard::take_from_bytes(body).map_err(|_| MessageError::Malformed(discriminant))?;
    if !rest.is_empty() {
        return Err(MessageError::Trailing { discriminant, bytes: rest.len() });
    }
    Ok(message)
}

/// Writes one message as a whole frame to the front of `out` and returns its length.
pub(crate) fn encode<M: Serialize>(message: &M, out: &mut [u8]) -> Result<usize, EncodeError> {
    let (field, rest) = out.split_first_chunk_mut::<MAX_LENGTH_FIELD>().ok_or(EncodeError)?;
    let body = postcard::to_slice(message, rest).map_err(|_| EncodeError)?.len();
    let field_len = write_length(body, field);
    // The body stands behind the longest length field and moves up against the one it got.
    out.copy_within(MAX_LENGTH_FIELD..MAX_LENGTH_FIELD + body, field_len);
    Ok(field_len + body)
}

/// The leading varint, which must be in its shortest form and fit 32 bits.
fn discriminant(body: &[u8]) -> Result<u32, MessageError> {
    let mut value = 0_u64;
    for (index, byte) in body.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let shortest = index == 0 || *byte != 0;
            return u32::try_from(value).ok().filter(|_| shortest).ok_or(MessageError::Discriminant);
        }
    }
    Err(MessageError::Discriminant)
}

/// Why a body is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// The discriminant belongs to no message of this version: skip the body and go on.
    Unknown(u32),
    /// The body does not begin with a discriminant in its shortest form.
    Discriminant,
    /// The fields do not fit the message that this discriminant names.
    Malformed(u32),
    /// Bytes are left over after a message that is known.
    Trailing {
        /// The message.
        discriminant: u32,
        /// How many bytes follow it.
        bytes: usize,
    },
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(discriminant) => write!(f, "message {discriminant} is not known here"),
            Self::Discriminant => f.write_str("a body that begins with no valid discriminant"),
            Self::Malformed(discriminant) => write!(f, "the fields of message {discriminant} do not fit it"),
            Self::Trailing { discriminant, bytes } => {
                write!(f, "{bytes} bytes left over after message {discriminant}")
            }
        }
    }
}

impl core::error::Error for MessageError {}

/// The buffer is too short for the frame: see [`MAX_ENCODED`](crate::DeviceMessage::MAX_ENCODED) of the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeError;

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer is too short for the frame")
    }
}

impl core::error::Error for EncodeError {}
