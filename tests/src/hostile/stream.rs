//! Streams of frames, native and classic, and the messages in them.

use moorline_protocol::classic::{DATETIME_LEN, Received, Reply, ReplyDecoder, RequestDecoder};
use moorline_protocol::frame::{Decoder, MAX_BODY, MAX_FRAME};
use moorline_protocol::{DeviceMessage, ServerMessage};

/// Frames as they are, heads that promise much, and lengths about every limit.
pub(super) const NATIVE: &[&[u8]] = &[
    &[1, 1],
    &[9, 2, 0, 0, 0, 0, 0, 0, 0, 0],
    &[1, 0x7f],
    &[0x80, 0x20],
    &[0x81, 0x20],
    &[0x80, 0x00],
    &[0xff, 0x7f],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    b"262-01",
];

/// The same of the classic layout.
pub(super) const CLASSIC: &[&[u8]] = &[
    &[0, 0, 0, 2, 0, 1],
    &[0, 0, 0, 2, 0, 2],
    &[0, 0, 0, 0x35, 0, 0],
    &[0, 0, 0, 0x15, 2, 0],
    &[0, 0, 0, 2, 1, 0xff],
    &[0, 0, 0, 1],
    &[0, 1, 0, 0],
    &[0, 1, 0, 1],
    &[0xff, 0xff, 0xff, 0xff],
    b"996da38d-a7be-4947-aa4c-f8208b5f4ade490154203237518",
    b"2026-01-01 00:00:00",
];

pub(super) fn frames(stream: &[u8]) {
    type Spill = heapless::Vec<u8, MAX_FRAME>;
    same_however_cut(stream, |pieces| {
        let mut decoder = Decoder::<Spill>::default();
        found(pieces, |piece| {
            let body = decoder.next(piece).map_err(|error| error.to_string())?;
            assert!(body.is_none_or(|body| (1..=MAX_BODY).contains(&body.len())));
            Ok(body.map(<[u8]>::to_vec))
        })
    });
}

pub(super) fn classic_requests(stream: &[u8]) {
    same_however_cut(stream, |pieces| {
        let mut decoder = RequestDecoder::default();
        found(pieces, |piece| {
            let received = decoder.next(piece).map_err(|error| error.to_string())?;
            if let Some(Received::Request(request)) = received {
                let frame = request.encode();
                let again = RequestDecoder::default().next(&mut frame.as_slice());
                assert_eq!(again, Ok(Some(Received::Request(request))));
            }
            Ok(received)
        })
    });
}

pub(super) fn classic_replies(stream: &[u8]) {
    same_however_cut(stream, |pieces| {
        let mut decoder = ReplyDecoder::default();
        found(pieces, |piece| {
            let Some(reply) = decoder.next(piece).map_err(|error| error.to_string())? else {
                return Ok(None);
            };
            assert!(reply.payload.len() <= DATETIME_LEN);
            let frame = reply.encode();
            assert_eq!(ReplyDecoder::default().next(&mut frame.as_slice()), Ok(Some(reply)));
            Ok(Some(Reply::encode(&reply)))
        })
    });
}

/// A body, read as a message of either direction.
pub(super) fn messages(body: &[u8]) {
    let mut out = [0; 128];
    match DeviceMessage::decode(body) {
        Ok(message) => {
            let written = message.encode(&mut out).expect("MAX_ENCODED is enough");
            // No message reaches 128 bytes, so its length takes one.
            assert_eq!(DeviceMessage::decode(&out[1..written]), Ok(message));
        }
        Err(fault) => assert!(fault.to_string().len() < 80),
    }
    match ServerMessage::decode(body) {
        Ok(message) => {
            let written = message.encode(&mut out).expect("MAX_ENCODED is enough");
            assert_eq!(ServerMessage::decode(&out[1..written]), Ok(message));
        }
        Err(fault) => assert!(fault.to_string().len() < 80),
    }
}

const _: () = assert!(DeviceMessage::MAX_ENCODED <= 128 && ServerMessage::MAX_ENCODED <= 128);

/// What `read` makes of a stream must not hang on where the stream is cut.
pub(super) fn same_however_cut<T: PartialEq + std::fmt::Debug>(
    stream: &[u8],
    read: impl Fn(&mut dyn Iterator<Item = &[u8]>) -> T,
) {
    let whole = read(&mut std::iter::once(stream));
    for sizes in [[1, 1, 1], [2, 3, 5], [1, 60, 7], [63, 64, 65], [4095, 2, 1]] {
        assert_eq!(read(&mut cut(stream, sizes)), whole, "in pieces of {sizes:?}");
    }
}

/// Pieces of these sizes, in turn.
fn cut(stream: &[u8], sizes: [usize; 3]) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut sizes) = (stream, sizes.into_iter().cycle());
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(sizes.next()?.min(rest.len()));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Everything that `next` finds in the pieces, and the fault that ended it. Each call has to take something, find something, or
/// end.
fn found<T>(
    pieces: &mut dyn Iterator<Item = &[u8]>,
    mut next: impl FnMut(&mut &[u8]) -> Result<Option<T>, String>,
) -> (Vec<T>, Option<String>) {
    let mut found = Vec::new();
    for mut piece in pieces {
        loop {
            let before = piece.len();
            match next(&mut piece) {
                Ok(Some(item)) => {
                    assert!(piece.len() < before, "found something in no bytes");
                    found.push(item);
                }
                Ok(None) => break assert!(piece.is_empty(), "left {} bytes behind", piece.len()),
                Err(fault) => {
                    assert!(fault.len() < 100, "{fault}");
                    return (found, Some(fault));
                }
            }
        }
    }
    (found, None)
}
