//! What a test cannot try as this user or on this machine: said aloud, so that it does not pass in silence.

use std::env;
use std::fs::File;
use std::io::{self, Write as _};
use std::panic::Location;

/// The file that collects such words over a whole run; `tests/run` names it and shows them at its end. A test runner
/// keeps what a passing test prints to itself.
const FILE: &str = "MOORLINE_LEFT_OUT";

/// Says what is left out and why, with the test's place.
///
/// # Panics
/// When the words cannot be written: they must not be lost.
#[track_caller]
pub fn left_out(what: &str) {
    let place = Location::caller();
    let line = format!("{}:{}: {what}\n", place.file(), place.line());
    // Past the test harness, which shows what a test prints only when that fails.
    let _ = write!(io::stderr(), "left out: {line}");
    if let Some(file) = env::var_os(FILE) {
        let written = File::options().append(true).create(true).open(&file);
        let written = written.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}
