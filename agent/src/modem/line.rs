//! Lines out of bytes, however they were cut, in a buffer of fixed size. It knows nothing of what a line means.

use heapless::Vec;

/// The longest line that is looked at. Whatever tells an IMEI, a maker or a result is shorter.
const MAX_LINE: usize = 128;

/// XON and XOFF, which a modem may send though nobody asked for them.
const FLOW_CONTROL: [u8; 2] = [0x11, 0x13];

/// Finds lines in bytes. Both CR and LF end one, so that CR LF, CR CR LF and a lone one of them all do.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8, MAX_LINE>,
    /// The line is longer than the buffer; what is left of it is skipped.
    overlong: bool,
    /// The line was lent to the caller; the next call drops it.
    lent: bool,
}

impl Lines {
    /// Takes bytes off the front of `input` until a line is finished, and lends it; `None` once all of `input` is taken.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Option<&[u8]> {
        self.drop_lent();
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            match byte {
                b'\r' | b'\n' if self.line.is_empty() => self.overlong = false,
                b'\r' | b'\n' => {
                    self.lent = true;
                    return Some(&self.line);
                }
                // A break on the line is a NUL, also in the middle of a number.
                0 => {}
                byte if FLOW_CONTROL.contains(&byte) => {}
                byte => self.keep(byte),
            }
        }
        None
    }

    /// The line that has not ended yet, as what is left when nothing more comes.
    pub(super) fn unfinished(&mut self) -> &[u8] {
        self.drop_lent();
        &self.line
    }

    fn drop_lent(&mut self) {
        if self.lent {
            self.lent = false;
            self.line.clear();
        }
    }

    fn keep(&mut self, byte: u8) {
        if !self.overlong && self.line.push(byte).is_err() {
            self.overlong = true;
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> std::vec::Vec<String> {
        let mut lines = Lines::default();
        let mut found = std::vec::Vec::new();
        for mut piece in pieces.iter().copied() {
            while let Some(line) = lines.next(&mut piece) {
                found.push(String::from_utf8_lossy(line).into_owned());
            }
        }
        found
    }

    #[test]
    fn any_line_end_ends_a_line() {
        assert_eq!(lines(&[b"AT\r\r\n1\r2\n3\r\n\r\nunfinished"]), ["AT", "1", "2", "3"]);
    }

    #[test]
    fn pieces_make_the_same_lines() {
        assert_eq!(lines(&[b"\r\nO", b"K\r", b"\nERR", b"OR\r\n"]), ["OK", "ERROR"]);
    }

    #[test]
    fn breaks_and_flow_control_leave_no_trace() {
        assert_eq!(lines(&[b"\0\0O\0K\x11\r\n"]), ["OK"]);
    }

    #[test]
    fn overlong_line_is_skipped_to_its_end() {
        let long = [b"x".repeat(MAX_LINE + 1), b"869731052403821\r\nOK\r\n".to_vec()].concat();
        assert_eq!(lines(&[&long]), ["OK"]);
        let full = [b"x".repeat(MAX_LINE), b"\r\n".to_vec()].concat();
        assert_eq!(lines(&[&full]).len(), 1);
    }
}
