//! What the tests and the demo are made of: see ARCHITECTURE.md.

pub mod certs;
pub mod failure;
pub mod http;
pub mod pair;
pub mod process;
pub mod programs;
pub mod relay;
pub mod rig;
pub mod settings;
