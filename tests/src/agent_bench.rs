//! The benchmark of docs/benchmarks-agent.md: Moorline's agent and what else one would keep a device reachable with, all in one run,
//! each with a certificate of its own, over TLS 1.3 and a relay that counts.

mod client;
mod figures;
mod heap;
mod picture;
mod report;

pub use client::{Client, Kind, lacking};
pub use figures::{Figures, measure, watch_all};
pub use report::write;
