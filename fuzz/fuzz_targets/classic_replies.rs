//! Classic replies: the same come out of a stream however it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moorline_protocol::classic::{ClassicError, Reply, ReplyDecoder};

fuzz_target!(|input: (u16, &[u8])| {
    let (size, stream) = input;
    assert_eq!(replies(stream, usize::from(size).max(1)), replies(stream, usize::MAX));
});

/// The replies in `stream` when it comes in pieces of `size` bytes, as frames, and the fault that ended it.
fn replies(stream: &[u8], size: usize) -> (Vec<Vec<u8>>, Option<ClassicError>) {
    let (mut decoder, mut replies) = (ReplyDecoder::default(), Vec::new());
    for mut piece in stream.chunks(size) {
        loop {
            match decoder.next(&mut piece).map(|reply| reply.as_ref().map(Reply::encode)) {
                Ok(Some(reply)) => replies.push(reply.to_vec()),
                Ok(None) => break assert!(piece.is_empty()),
                Err(error) => return (replies, Some(error)),
            }
        }
    }
    (replies, None)
}
