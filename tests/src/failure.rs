//! What a tale ends with when something did not happen: what was awaited, where in the tale, and what was seen.

use std::fmt;
use std::panic::Location;

/// An unmet expectation, or any error on the way to it.
///
/// It is no [`std::error::Error`] itself, so that `?` turns every error into one; the place it names is that of the `?`
/// or of the call that failed.
pub struct Failure {
    text: String,
    place: &'static Location<'static>,
}

impl Failure {
    /// A failure of the caller's.
    #[track_caller]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), place: Location::caller() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a test that returns it prints.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}
