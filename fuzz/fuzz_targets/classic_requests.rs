//! Classic requests: the same come out of a stream however it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moorline_protocol::classic::{ClassicError, Received, RequestDecoder};

fuzz_target!(|input: (u16, &[u8])| {
    let (size, stream) = input;
    assert_eq!(requests(stream, usize::from(size).max(1)), requests(stream, usize::MAX));
});

/// The requests in `stream` when it comes in pieces of `size` bytes, and the fault that ended it.
fn requests(stream: &[u8], size: usize) -> (Vec<Received>, Option<ClassicError>) {
    let (mut decoder, mut requests) = (RequestDecoder::default(), Vec::new());
    for mut piece in stream.chunks(size) {
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break assert!(piece.is_empty()),
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}
