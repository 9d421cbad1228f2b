//! How the process may end.

use std::process;

/// What the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: it was asked to stop, or did what it was asked.
    Asked,
    /// 1: anything else.
    Failure,
    /// 78, `EX_CONFIG` of sysexits.h: the configuration or the command line is wrong.
    Config,
}

impl Exit {
    /// Ends the process at once. A thread that is still in the system's resolver is not waited for.
    pub fn now(self) -> ! {
        process::exit(match self {
            Self::Asked => 0,
            Self::Failure => 1,
            Self::Config => 78,
        })
    }
}
