//! The benchmarks of docs/benchmarks.md: Moorline's server and what else one would run, tried in one run by the same crowd.
//!
//! Machines differ and are shared; so what counts is the servers' own processor time and memory, and their ratios.

mod floor;
mod growth;
mod heartbeats;
mod machine;
mod mosquitto;
mod picture;
mod report;
mod siege;
mod soak;
mod start;
mod storm;
mod subject;

pub use floor::{Floor, floor};
pub use growth::{Growth, Step, grow};
pub use heartbeats::{Turns, in_turns};
pub use machine::Machine;
pub use report::Report;
pub use siege::{Siege, besiege};
pub use soak::{Soak, soak};
pub use start::{Start, start_with_known};
pub use storm::{Return, Storm, come_back, storm};
pub use subject::{Kind, Subject};
