//! What the tests and the demo are made of: see ARCHITECTURE.md.

pub mod pair;
pub mod relay;
