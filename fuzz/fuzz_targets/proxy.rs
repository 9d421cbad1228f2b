//! The PROXY protocol's header: the same comes of it however it is cut, and nothing behind it is taken.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moorline_server::proxy::{Introduced, MAX_HEADER, Progress, ProxyError, read};

fuzz_target!(|input: (u16, bool, &[u8])| {
    let (size, signed, bytes) = input;
    let begin: &[u8] = if signed { b"\r\n\r\n\0\r\nQUIT\n" } else { b"" };
    let stream = [begin, bytes].concat();
    assert_eq!(introduced(&stream, usize::from(size).max(1)), introduced(&stream, usize::MAX));
});

/// What a stream that comes in pieces of `size` bytes introduces, and how many bytes that took; `None` when it ends before.
fn introduced(stream: &[u8], size: usize) -> Option<Result<(Introduced, usize), ProxyError>> {
    let mut taken = 0;
    loop {
        match read(&stream[..taken]) {
            Ok(Progress::Whole(introduced)) => return Some(Ok((introduced, taken))),
            Err(error) => return Some(Err(error)),
            Ok(Progress::Unfinished(wanted)) => {
                assert!(taken < wanted && wanted <= MAX_HEADER);
                if taken == stream.len() {
                    return None;
                }
                taken += (wanted - taken).min(size).min(stream.len() - taken);
            }
        }
    }
}
