//! Native frames: a LEB128 length of 1 or 2 bytes, then the body of 1 to 4096 bytes.
//!
//! [`Decoder`] finds the frames in a stream however it was cut; what a body means is the messages' matter.

use core::fmt;

use heapless::Vec;

/// The longest body a frame may have. Grows when a message needs more, never shrinks.
pub const MAX_BODY: usize = 4096;

/// The longest unfinished frame, head included, that a decoder keeps in itself.
pub const HEAD: usize = 64;

/// The longest length field: two bytes hold 14 bits, enough for [`MAX_BODY`].
pub const MAX_LENGTH_FIELD: usize = 2;

/// The longest frame, length field and body.
pub const MAX_FRAME: usize = MAX_LENGTH_FIELD + MAX_BODY;

/// Where a [`Decoder`] puts an unfinished frame that is longer than [`HEAD`].
///
/// It holds something only while such a frame is unfinished; [`Spill::release`] gives its memory back.
pub trait Spill: Default {
    /// Appends `bytes`; never more than [`MAX_FRAME`] between two releases.
    fn append(&mut self, bytes: &[u8]);
    /// All that was appended since the last release.
    fn bytes(&self) -> &[u8];
    /// Empties it and gives back what memory it can.
    fn release(&mut self);
}

impl Spill for Vec<u8, MAX_FRAME> {
    fn append(&mut self, bytes: &[u8]) {
        // The decoder appends at most MAX_FRAME bytes, which is the capacity.
        let _ = self.extend_from_slice(bytes);
    }

    fn bytes(&self) -> &[u8] {
        self
    }

    fn release(&mut self) {
        self.clear();
    }
}

/// Finds frames in a stream that arrives in pieces of any size.
///
/// A frame that lies whole in the caller's buffer is lent from there and never copied. One that is cut waits in a head of
/// [`HEAD`] bytes, or in `S` when it is longer.
#[derive(Debug, Default)]
pub struct Decoder<S> {
    head: Vec<u8, HEAD, u8>,
    spill: S,
    /// The kept frame is finished and was lent to the caller; the next call drops it.
    lent: bool,
}

impl<S: Spill> Decoder<S> {
    /// Takes the next frame off the front of `input` and returns its body; `None` once all of `input` is taken and no
    /// frame is finished.
    ///
    /// # Errors
    /// A length that is zero, not in its shortest form, or over [`MAX_BODY`]. Nothing after it can be trusted, so the
    /// session has to end.
    pub fn next<'d, 'i>(&'d mut self, input: &mut &'i [u8]) -> Result<Option<&'d [u8]>, FrameError>
    where
        'i: 'd,
    {
        if self.lent {
            self.head.clear();
            self.spill.release();
            self.lent = false;
        }
        if self.kept().is_empty()
            && let Some((field, body)) = length(input)?
            && let Some((frame, rest)) = input.split_at_checked(field + body)
        {
            *input = rest;
            return Ok(frame.get(field..));
        }
        loop {
            let (field, lacking) = match length(self.kept())? {
                Some((field, body)) => (field, field + body - self.kept().len()),
                None => (0, 1),
            };
            if lacking == 0 {
                self.lent = true;
                return Ok(self.kept().get(field..));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let (taken, rest) = input.split_at(lacking.min(input.len()));
            *input = rest;
            self.keep(taken);
        }
    }

    /// Whether nothing of an unfinished frame is kept: a new decoder is as good as this one.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lent || self.kept().is_empty()
    }

    /// The unfinished frame, from its first byte.
    fn kept(&self) -> &[u8] {
        match self.spill.bytes() {
            [] => &self.head,
            spilled => spilled,
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.spill.bytes().is_empty() {
            if self.head.extend_from_slice(bytes).is_ok() {
                return;
            }
            self.spill.append(&self.head);
            self.head.clear();
        }
        self.spill.append(bytes);
    }
}

/// The length of the length field and of the body; `None` while the field is unfinished.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
    let (field, body) = match *bytes {
        [] | [0x80..=0xff] => return Ok(None),
        [0, ..] => return Err(FrameError::Empty),
        [low @ ..0x80, ..] => (1, usize::from(low)),
        [_, 0, ..] => return Err(FrameError::NonMinimal),
        [low, high @ ..0x80, ..] => (2, usize::from(low & 0x7f) | usize::from(high) << 7),
        [..] => return Err(FrameError::TooLong),
    };
    if body > MAX_BODY { Err(FrameError::TooLong) } else { Ok(Some((field, body))) }
}

/// Writes the length field of a body of `body` bytes, at most [`MAX_BODY`], and returns how many bytes it took.
pub(crate) fn write_length(body: usize, out: &mut [u8; MAX_LENGTH_FIELD]) -> usize {
    let (low, high) = ((body & 0x7f) as u8, (body >> 7) as u8);
    *out = if high == 0 { [low, 0] } else { [low | 0x80, high] };
    if high == 0 { 1 } else { 2 }
}

/// Why a stream holds no more frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The length is zero; every message has at least its discriminant.
    Empty,
    /// The length is over [`MAX_BODY`].
    TooLong,
    /// The length is written in more bytes than it needs.
    NonMinimal,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a frame of length 0"),
            Self::TooLong => write!(f, "a frame longer than {MAX_BODY} bytes"),
            Self::NonMinimal => f.write_str("a frame length that is not in its shortest form"),
        }
    }
}

impl core::error::Error for FrameError {}
