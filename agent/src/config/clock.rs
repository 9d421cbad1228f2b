//! `[clock]`: what the agent may do to the system clock.

use moorline_config::Section;

/// `[clock]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// The server's time sets the system clock where nothing else keeps it right.
    pub set: bool,
}

/// Reads the section.
pub(super) fn clock(section: &Section<'_>) -> Clock {
    Clock { set: section.boolean("set").unwrap_or(false) }
}
