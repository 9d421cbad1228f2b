//! What a ClientHello offers (RFC 8446 section 4.1.2): its cipher suites, its extensions, and of those the tickets in
//! pre_shared_key (section 4.2.11).

/// The identities that a client's first record offers, most wanted first; none when it is no ClientHello or offers none.
#[must_use]
pub fn offered_tickets(record: &[u8]) -> Vec<Vec<u8>> {
    extension(record, PRE_SHARED_KEY).and_then(|body| Bytes(body).vector(2)).map_or_else(Vec::new, identities)
}

/// The numbers of the cipher suites, most wanted first.
#[must_use]
pub fn cipher_suites(record: &[u8]) -> Vec<u16> {
    let suites = parts(record).map(|(suites, _)| suites).unwrap_or_default();
    suites.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

/// The body of the extension of this number.
#[must_use]
pub fn extension(record: &[u8], number: usize) -> Option<&[u8]> {
    let (_, extensions) = parts(record)?;
    extensions.into_iter().find(|(kind, _)| *kind == number).map(|(_, body)| body)
}

const PRE_SHARED_KEY: usize = 41;
const RECORD_AND_HANDSHAKE_HEADER: usize = 5 + 4;
const VERSION_AND_RANDOM: usize = 2 + 32;

/// Cipher suites, and extensions with their numbers.
type Parts<'a> = (&'a [u8], Vec<(usize, &'a [u8])>);

fn parts(record: &[u8]) -> Option<Parts<'_>> {
    let mut hello = Bytes(record);
    hello.take(RECORD_AND_HANDSHAKE_HEADER + VERSION_AND_RANDOM)?;
    let _session_id = hello.vector(1)?;
    let suites = hello.vector(2)?;
    let _compression = hello.vector(1)?;
    let mut rest = Bytes(hello.vector(2)?);
    let mut found = Vec::new();
    while !rest.0.is_empty() {
        found.push((rest.number(2)?, rest.vector(2)?));
    }
    Some((suites, found))
}

fn identities(list: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = Bytes(list);
    std::iter::from_fn(|| {
        let identity = rest.vector(2)?.to_vec();
        // The obfuscated age.
        rest.take(4)?;
        Some(identity)
    })
    .collect()
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A vector behind its length of so many bytes.
    fn vector(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = self.number(width)?;
        self.take(length)
    }
}
