//! Inputs made of others, by a seed alone: the same seed gives the same inputs on every machine.

/// Numbers that look like chance (splitmix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    /// One of them, if there are any.
    pub(super) fn of<'t, T>(&mut self, items: &'t [T]) -> Option<&'t T> {
        (!items.is_empty()).then(|| &items[self.below(items.len())])
    }

    /// A part of `bytes`, which may be empty.
    fn part(&mut self, bytes: &[u8]) -> (usize, usize) {
        let from = self.below(bytes.len() + 1);
        // Mostly short ones: what is small is looked at more closely.
        let most = if self.below(4) == 0 { bytes.len() - from } else { (bytes.len() - from).min(16) };
        (from, from + self.below(most + 1))
    }
}

/// So many changes are made to an input at most.
const CHANGES: usize = 6;

/// Lengths and numbers about which decoders go wrong.
const EDGES: [u64; 16] =
    [0, 1, 2, 4, 0x7f, 0x80, 0xff, 0x100, 0xfff, 0x1000, 0x1001, 0x3fff, 0x4000, 0xffff, 0x1_0000, u64::MAX];

/// An input out of one of `corpus`, no longer than `longest`.
pub(super) fn mutated(dice: &mut Dice, corpus: &[Vec<u8>], words: &[&[u8]], longest: usize) -> Vec<u8> {
    let mut bytes = dice.of(corpus).cloned().unwrap_or_default();
    for _ in 0..=dice.below(CHANGES) {
        change(dice, &mut bytes, corpus, words);
        bytes.truncate(longest);
    }
    bytes
}

fn change(dice: &mut Dice, bytes: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&[u8]]) {
    let at = dice.below(bytes.len() + 1);
    match dice.below(9) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        1 => {
            let byte = dice.below(256) as u8;
            bytes.insert(at, byte);
        }
        2 => {
            let (from, to) = dice.part(bytes);
            bytes.drain(from..to);
        }
        3 => {
            let (from, to) = dice.part(bytes);
            let part = bytes[from..to].to_vec();
            bytes.splice(at..at, part);
        }
        4 => bytes.truncate(at),
        5 => {
            let word = dice.of(words).copied().unwrap_or_default();
            bytes.splice(at..at, word.iter().copied());
        }
        6 => {
            let word = dice.of(words).copied().unwrap_or_default();
            let end = (at + word.len()).min(bytes.len());
            bytes.splice(at..end, word.iter().copied());
        }
        7 => {
            // A length field, of whatever kind, says something else than what follows it.
            let number = dice.of(&EDGES).copied().unwrap_or_default();
            let field = field(dice, number);
            let end = (at + field.len()).min(bytes.len());
            bytes.splice(at..end, field);
        }
        _ => {
            if let Some(other) = dice.of(corpus) {
                let (from, to) = dice.part(other);
                bytes.splice(at.., other[from..to].iter().copied());
            }
        }
    }
}

/// A number as length fields have it: LEB128, big-endian in 1, 2 and 4 bytes, or in digits.
fn field(dice: &mut Dice, number: u64) -> Vec<u8> {
    let big_endian = number.to_be_bytes();
    match dice.below(5) {
        0 => {
            let (mut field, mut rest) = (Vec::new(), number);
            while rest > 0x7f {
                field.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            field.push(rest as u8);
            field
        }
        1 => big_endian[7..].to_vec(),
        2 => big_endian[6..].to_vec(),
        3 => big_endian[4..].to_vec(),
        _ => number.to_string().into_bytes(),
    }
}
