//! Finds the name that was probably meant.

/// The name nearest to `wrong`, when it is at most two edits away and not mostly another word.
pub(crate) fn nearest<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|name| (distance(wrong, name), name))
        .filter(|(distance, name)| *distance <= 2 && distance * 2 <= name.len().max(wrong.len()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein's distance in bytes: how many insertions, removals and replacements turn one into the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, byte) in from.bytes().enumerate() {
        let (mut diagonal, mut left) = (index, index + 1);
        for (above, other) in row.iter_mut().skip(1).zip(to.bytes()) {
            let replaced = diagonal + usize::from(byte != other);
            diagonal = *above;
            left = replaced.min(left + 1).min(diagonal + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (from, to, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("adress", "address", 1),
            ("port", "prot", 2),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("same", "same", 0),
        ] {
            assert_eq!(distance(from, to), edits, "{from} {to}");
        }
    }

    #[test]
    fn nearest_is_a_slip_of_the_same_word() {
        let names = ["address", "ca", "crl", "name", "port"];
        let near = |wrong| nearest(wrong, names.into_iter());
        assert_eq!(near("adress"), Some("address"));
        assert_eq!(near("prot"), Some("port"));
        assert_eq!(near("adres"), Some("address"));
        assert_eq!(near("adre"), None);
        assert_eq!(near("x"), None);
        assert_eq!(near("xx"), None);
        assert_eq!(near("cal"), Some("ca"));
    }
}
