//! Why the tool did not do what it was asked: in words that say what to do, and as an exit code.

use std::fmt;
use std::io;

/// Why not.
#[derive(Debug)]
pub enum Failure {
    /// The server's address makes no sense.
    Address(String),
    /// The server cannot be reached.
    Unreachable(String),
    /// The server answered, but not with what was asked for.
    Answer(String),
    /// There is no such device.
    NotFound(String),
    /// A file on this side cannot be used.
    File(String),
    /// The answer cannot be written.
    Output(io::Error),
}

impl Failure {
    /// Nobody reads any more.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(fault) if fault.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What the program ends with.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable(_) | Self::Answer(_) | Self::File(_) | Self::Output(_) => 1,
            Self::Address(_) => 2,
            Self::NotFound(_) => 3,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(text)
            | Self::Unreachable(text)
            | Self::Answer(text)
            | Self::NotFound(text)
            | Self::File(text) => f.write_str(text),
            Self::Output(fault) => write!(f, "the answer cannot be written: {fault}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(fault: io::Error) -> Self {
        Self::Output(fault)
    }
}
