//! What a ClientHello offers to resume: the tickets in its pre_shared_key extension (RFC 8446 sections 4.1.2 and 4.2.11).

/// The identities that a client's first record offers, most wanted first; none when it is no ClientHello or offers none.
#[must_use]
pub fn offered_tickets(record: &[u8]) -> Vec<Vec<u8>> {
    extensions(record)
        .and_then(|extensions| extensions.into_iter().find(|(kind, _)| *kind == PRE_SHARED_KEY))
        .and_then(|(_, body)| Bytes(body).vector(2))
        .map_or_else(Vec::new, identities)
}

const PRE_SHARED_KEY: usize = 41;
const RECORD_AND_HANDSHAKE_HEADER: usize = 5 + 4;
const VERSION_AND_RANDOM: usize = 2 + 32;

fn extensions(record: &[u8]) -> Option<Vec<(usize, &[u8])>> {
    let mut hello = Bytes(record);
    hello.take(RECORD_AND_HANDSHAKE_HEADER + VERSION_AND_RANDOM)?;
    // Session id, cipher suites, compression methods.
    for width in [1, 2, 1] {
        hello.vector(width)?;
    }
    let mut rest = Bytes(hello.vector(2)?);
    let mut found = Vec::new();
    while !rest.0.is_empty() {
        found.push((rest.number(2)?, rest.vector(2)?));
    }
    Some(found)
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
