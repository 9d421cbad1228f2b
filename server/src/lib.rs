//! `moorline-server` as a library, so that tests can join its pure parts with the agent's: see ARCHITECTURE.md.

pub mod admission;
pub mod client_hello;
pub mod clock;
pub mod config;
pub mod exit;
pub mod identity;
pub mod log;
pub mod metrics;
pub mod registry;
pub mod session;
pub mod store;
pub mod tls;
