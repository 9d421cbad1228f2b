//! Native frames: the same come out of a stream however it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moorline_protocol::frame::{Decoder, FrameError, MAX_FRAME};

type Spill = heapless::Vec<u8, MAX_FRAME>;

fuzz_target!(|input: (u16, &[u8])| {
    let (size, stream) = input;
    assert_eq!(frames(stream, usize::from(size).max(1)), frames(stream, usize::MAX));
});

/// The bodies in `stream` when it comes in pieces of `size` bytes, and the fault that ended it.
fn frames(stream: &[u8], size: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut decoder, mut bodies) = (Decoder::<Spill>::default(), Vec::new());
    for mut piece in stream.chunks(size) {
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(body)) => bodies.push(body.to_vec()),
                Ok(None) => break assert!(piece.is_empty()),
                Err(error) => return (bodies, Some(error)),
            }
        }
    }
    (bodies, None)
}
