//! What holds for every message and for every stream, however it arrives.

mod classic;
mod frames;
mod imei;
mod messages;
mod stream;

use proptest::test_runner::Config;

/// Miri is some hundred times slower, and keeps the files away in which failures are remembered.
fn cases() -> Config {
    if cfg!(miri) {
        Config { cases: 1, failure_persistence: None, ..Config::default() }
    } else {
        Config::default()
    }
}

/// A stream of arbitrary bytes, which has to be longer than some frames.
const LONG: usize = if cfg!(miri) { 40 } else { 3000 };
