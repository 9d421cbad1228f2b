//! Streams that arrive in pieces.

use proptest::collection::vec;
use proptest::prelude::*;

/// The sizes of the pieces, to be used in turn: mostly small ones, where cuts hurt.
pub(crate) fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1]),
        Just(vec![usize::MAX]),
        vec(prop_oneof![4 => 1..8_usize, 2 => 8..200_usize, 1 => 200..5000_usize], 1..8),
    ]
}

/// `stream` cut into pieces of these sizes, in turn until it ends.
pub(crate) fn cut<'s>(stream: &'s [u8], sizes: &'s [usize]) -> impl Iterator<Item = &'s [u8]> {
    let mut rest = stream;
    sizes.iter().cycle().map_while(move |size| {
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Everything that `next` finds in `stream` when it comes in pieces of these sizes, and the error that ended it.
///
/// Every call has to take something off its piece, find something, or end: else this panics rather than hangs.
pub(crate) fn drain<T, E>(
    stream: &[u8],
    sizes: &[usize],
    mut next: impl FnMut(&mut &[u8]) -> Result<Option<T>, E>,
) -> (Vec<T>, Option<E>) {
    let mut found = Vec::new();
    for mut piece in cut(stream, sizes) {
        loop {
            let before = piece.len();
            match next(&mut piece) {
                Ok(Some(item)) => {
                    assert!(piece.len() < before, "found something in no bytes");
                    found.push(item);
                }
                Ok(None) => {
                    assert!(piece.is_empty(), "left {} bytes behind", piece.len());
                    break;
                }
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}
