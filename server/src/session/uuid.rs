//! A UUID as classic devices write it.

/// The 8-4-4-4-12 form of RFC 9562 section 4, in either case.
pub(super) fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut nibbles = 0;
    for (place, byte) in text.iter().enumerate() {
        if matches!(place, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        let nibble = char::from(*byte).to_digit(16)? as u8;
        let slot = bytes.get_mut(nibbles / 2)?;
        *slot = *slot << 4 | nibble;
        nibbles += 1;
    }
    (nibbles == 32).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_is_read_in_either_case() {
        let bytes = *b"\x99\x6d\xa3\x8d\xa7\xbe\x49\x47\xaa\x4c\xf8\x20\x8b\x5f\x4a\xde";
        assert_eq!(uuid(b"996da38d-a7be-4947-aa4c-f8208b5f4ade"), Some(bytes));
        assert_eq!(uuid(b"996DA38D-A7BE-4947-AA4C-F8208B5F4ADE"), Some(bytes));
    }

    #[test]
    fn other_texts_are_no_uuid() {
        for text in
            ["", "996da38d", "996da38da7be-4947-aa4c-f8208b5f4ade0", "996da38d-a7be-4947-aa4c-f8208b5f4adg"]
        {
            assert_eq!(uuid(text.as_bytes()), None, "{text}");
        }
    }
}
