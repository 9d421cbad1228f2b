//! Whether a new connection has sent a complete ClientHello. Pure.
//!
//! Handshakes cost the server its time, so only as many run at once as there are cores; and a place among them is given
//! for a complete ClientHello, never for a connection that may not send one. rustls tells this only by working on it, so the
//! record layer (RFC 8446 section 5.1) and the handshake header (section 4) are read here first.

/// The most a ClientHello may take, record headers included. Real ones take 200 to 2,000 bytes; RFC 8446 allows more than
/// anybody sends.
pub const MAX: usize = 16 * 1024;

const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// The most that a plaintext record may hold (RFC 8446 section 5.1).
const MAX_RECORD: usize = 1 << 14;

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The beginning of one, as far as it goes.
    Unfinished,
    /// A whole one, perhaps with more behind it.
    Complete,
    /// No TLS: these are not the bytes of a handshake that begins.
    NotTls,
    /// Over [`MAX`].
    TooLong,
}

/// Looks at all bytes that a connection has sent so far.
#[must_use]
pub fn progress(bytes: &[u8]) -> Progress {
    let (mut rest, mut message) = (bytes, Message::default());
    while !rest.is_empty() {
        let Some((header, behind)) = rest.split_first_chunk::<RECORD_HEADER>() else {
            return if plausible(rest) { unfinished(bytes) } else { Progress::NotTls };
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if !plausible(header) || length == 0 || length > MAX_RECORD {
            return Progress::NotTls;
        }
        let (payload, next) = behind.split_at(length.min(behind.len()));
        match message.take(payload) {
            Progress::Unfinished => rest = next,
            // TLS takes nothing out of a record before its end, which may be far behind the message's.
            Progress::Complete if payload.len() < length => return unfinished(bytes),
            decided => return decided,
        }
    }
    unfinished(bytes)
}

fn unfinished(bytes: &[u8]) -> Progress {
    if bytes.len() > MAX { Progress::TooLong } else { Progress::Unfinished }
}

/// Whether a record header, or the part of it that is there, can begin a handshake.
fn plausible(header: &[u8]) -> bool {
    // legacy_record_version is 0x0301 or 0x0303; all that ever was is 3.x.
    [HANDSHAKE, 3].iter().zip(header).all(|(wanted, found)| wanted == found)
}

/// The handshake message as it comes in records of any size.
#[derive(Default)]
struct Message {
    header: heapless::Vec<u8, HANDSHAKE_HEADER>,
    body: usize,
}

impl Message {
    fn take(&mut self, payload: &[u8]) -> Progress {
        let lacking = HANDSHAKE_HEADER - self.header.len();
        let (header, body) = payload.split_at(lacking.min(payload.len()));
        // No more than what it lacks, so it fits.
        let _ = self.header.extend_from_slice(header);
        self.body += body.len();
        match *self.header {
            [CLIENT_HELLO, a, b, c] => {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                match length {
                    0 => Progress::NotTls,
                    long if long > MAX => Progress::TooLong,
                    length if self.body >= length => Progress::Complete,
                    _ => Progress::Unfinished,
                }
            }
            [] | [CLIENT_HELLO, ..] => Progress::Unfinished,
            [..] => Progress::NotTls,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ClientHello of `body` bytes in records of `record`.
    fn hello(body: usize, record: usize) -> Vec<u8> {
        let length = u32::try_from(body).unwrap().to_be_bytes();
        let message = [&[CLIENT_HELLO], &length[1..], &vec![7; body]].concat();
        let records = message.chunks(record).map(|payload| {
            let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
            [&[HANDSHAKE, 3, 1], length.as_slice(), payload].concat()
        });
        records.collect::<Vec<_>>().concat()
    }

    #[test]
    fn only_the_last_byte_completes_it() {
        for record in [1, 3, 4, 5, 100, 1000] {
            let hello = hello(300, record);
            let (last, whole) = (hello.len() - 1, hello.len());
            for len in 0..=last {
                assert_eq!(progress(&hello[..len]), Progress::Unfinished, "{len} of {whole}");
            }
            assert_eq!(progress(&hello), Progress::Complete);
            assert_eq!(progress(&[hello.as_slice(), b"more"].concat()), Progress::Complete);
        }
    }

    /// Who sends no more of it would else hold a place that the honest wait for.
    #[test]
    fn record_that_is_longer_than_the_message_is_waited_for() {
        let mut hello = hello(300, 1000);
        hello[3..5].copy_from_slice(&500_u16.to_be_bytes());
        assert_eq!(progress(&hello), Progress::Unfinished);
        hello.resize(RECORD_HEADER + 500, 7);
        assert_eq!(progress(&hello), Progress::Complete);
    }

    #[test]
    fn other_protocols_are_told_at_once() {
        for bytes in [
            b"GET / HTTP/1.1\r\n".as_slice(),
            b"SSH-2.0-OpenSSH_9.2\r\n",
            &[0, 0, 0, 2, 0, 1],
            &[22, 4],
            &[22, 3, 1, 0, 0],
            &[22, 3, 1, 0xff, 0xff],
            &[22, 3, 1, 0, 4, 2, 0, 0, 1],
            &[21, 3, 3, 0, 2, 1, 0],
        ] {
            assert_eq!(progress(bytes), Progress::NotTls, "{bytes:?}");
        }
    }

    #[test]
    fn endless_ones_are_too_long() {
        assert_eq!(progress(&hello(MAX + 1, 1 << 14)[..20]), Progress::TooLong);
        assert_eq!(progress(&hello(MAX - 1, 1)[..MAX + 10]), Progress::TooLong);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = progress(&bytes);
            let _ = progress(&[&[22, 3, 1, 0, 50, 1, 0, 0], bytes.as_slice()].concat());
        }
    }
}
