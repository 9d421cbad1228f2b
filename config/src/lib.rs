//! The files that people write for Moorline, read so that every mistake is reported at once, with its line: TOML with file and
//! key, and tables of devices.
//!
//! ```text
//!   Document::read(file) -> root() -> section("server") -> string("name"), duration("timeout"), …
//!                        -> finish(): mistakes so far, and every key that nobody asked for
//! ```
//!
//! The programs ask for the keys they know, in plain code; what they do not ask for is a mistake of the file. Knows
//! nothing of what the keys mean, and needs no serde: the agent is an embedded program, and its bytes are counted.

#![forbid(unsafe_code)]

mod document;
mod duration;
mod mistakes;
mod nearest;
mod section;
mod size;
mod table;
mod tree;

pub use document::{Document, MAX_FILE};
pub use duration::{DurationError, HumanDuration, parse_duration};
pub use mistakes::{Mistake, Mistakes};
pub use section::Section;
pub use size::Size;
pub use table::{BadLine, Row, count_lines, read_table};
