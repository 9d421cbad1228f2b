//! `moorline-agent` as a library, so that tests can join its pure parts with the server's: see ARCHITECTURE.md.

pub mod backoff;
pub mod clock;
pub mod session;
