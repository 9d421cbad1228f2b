//! As much of DER (X.690) as it takes to find one's way in a certificate: an element's tag and contents. Lengths are
//! checked, contents are not.

/// The tag of a SEQUENCE.
pub const SEQUENCE: u8 = 0x30;
/// The tag of an INTEGER.
pub const INTEGER: u8 = 0x02;

/// The element at the front, which has to bear this tag: its contents, and what follows it.
#[must_use]
pub fn expect(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    element(der).filter(|(found, ..)| *found == tag).map(|(_, contents, rest)| (contents, rest))
}

/// The element at the front: its tag, its contents, and what follows it.
#[must_use]
pub fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length =
            bytes.iter().try_fold(0_usize, |n, byte| Some(n.checked_mul(256)? | usize::from(*byte)))?;
        (length, rest)
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((*tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_measured() {
        assert_eq!(expect(SEQUENCE, &[0x30, 2, 5, 0, 9]), Some((&[5, 0][..], &[9][..])));
        assert_eq!(expect(SEQUENCE, &[0x30, 0x81, 1, 7]), Some((&[7][..], &[][..])));
        for cut in [&[][..], &[0x30], &[0x30, 3, 1], &[0x30, 0x82, 1], &[0x31, 0], &[0x30, 0xff, 1]] {
            assert_eq!(expect(SEQUENCE, cut), None, "{cut:x?}");
        }
    }
}
