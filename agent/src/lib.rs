//! `moorline-agent` as a library, so that tests can join its pure parts with the server's: see ARCHITECTURE.md.

pub mod address;
pub mod arguments;
pub mod backoff;
pub mod check;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod dns;
pub mod environment;
pub mod exit;
pub mod fault;
pub mod file;
pub mod floor;
pub mod identification;
pub mod imei;
pub mod link;
pub mod log;
pub mod modem;
pub mod notify;
pub mod outq;
pub mod refusal;
pub mod round;
pub mod round_trip;
pub mod run;
pub mod session;
pub mod signals;
pub mod state_dir;
pub mod status;
pub mod tcp;
pub mod tls;
pub mod uplink;

pub use arguments::{Command, HELP, parse};
pub use environment::Environment;
pub use exit::Exit;
