//! Makes a program for libFuzzer of a target of the testbed: what it reads and what has to hold is in `tests/src/hostile`, where
//! the stable compiler runs the same.

pub use libfuzzer_sys::fuzz_target;
pub use moorline_testbed::hostile::Target;

/// The program of the target of this name.
#[macro_export]
macro_rules! hostile {
    ($name:literal) => {
        $crate::fuzz_target!(|bytes: &[u8]| {
            $crate::Target::named($name).expect("a target of this name").run(bytes);
        });
    };
}
