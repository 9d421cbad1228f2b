//! A bar that shows how far a long work is: on standard error, and only to a person at a terminal.

use std::io::{self, IsTerminal as _, Write as _};

const WIDTH: usize = 40;

/// The bar of one work.
pub(crate) struct Bar {
    all: usize,
    /// How many thousandths it shows; `None` where nobody looks, or nothing is shown yet.
    shown: Option<usize>,
    is_seen: bool,
}

impl Bar {
    pub(crate) fn new(all: usize) -> Self {
        Self { all, shown: None, is_seen: io::stderr().is_terminal() }
    }

    /// So many are done.
    pub(crate) fn show(&mut self, done: usize) {
        let thousandths = done.saturating_mul(1000).checked_div(self.all).unwrap_or(1000);
        // A terminal is not to be asked more than a thousand times, however many there are.
        if !self.is_seen || self.shown == Some(thousandths) {
            return;
        }
        self.shown = Some(thousandths);
        // A terminal that is gone stops no work.
        let _ = write!(io::stderr(), "\r{}", drawn(done, self.all, thousandths));
    }

    /// Leaves the bar as it is and goes on to the next line.
    pub(crate) fn end(&mut self) {
        if self.shown.take().is_some() {
            let _ = writeln!(io::stderr());
        }
    }
}

fn drawn(done: usize, all: usize, thousandths: usize) -> String {
    let full = thousandths * WIDTH / 1000;
    format!("[{}{}] {done} of {all}, {}%", "#".repeat(full), "-".repeat(WIDTH - full), thousandths / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_fills_from_nothing_to_all() {
        assert_eq!(drawn(0, 200, 0), format!("[{}] 0 of 200, 0%", "-".repeat(40)));
        assert_eq!(drawn(100, 200, 500), format!("[{}{}] 100 of 200, 50%", "#".repeat(20), "-".repeat(20)));
        assert_eq!(drawn(200, 200, 1000), format!("[{}] 200 of 200, 100%", "#".repeat(40)));
    }
}
