//! The wire between `moorline-agent` and `moorline-server`, and nothing else: no time, no sockets, no TLS, no memory of
//! its own beyond what its types hold.
//!
//! ```text
//!              native (ALPN moorline/1)                      classic (no ALPN)
//!
//!   +--------+---------------------------+      +------------+-------------------------------+
//!   | LEB128 | body: discriminant,fields |      | u32 length | body: ids, payload            |
//!   +--------+---------------------------+      +------------+-------------------------------+
//!     frame      to_server / to_device             classic
//! ```
//!
//! A device sends a [`DeviceMessage`], a server a [`ServerMessage`]; [`classic`] holds their older relatives.
//! [`Imei`] is who a device is, in both. [`version`] says how the wire may change.

#![forbid(unsafe_code)]
#![no_std]
// A peer's bytes must not end a program, whatever they are.
#![cfg_attr(
    not(test),
    warn(
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::panic,
        clippy::expect_used,
        clippy::unreachable
    )
)]
#![warn(clippy::std_instead_of_core, clippy::alloc_instead_of_core)]

#[cfg(test)]
extern crate std;

pub mod classic;
pub mod frame;
mod imei;
mod message;
mod to_device;
mod to_server;
pub mod version;

pub use imei::{Imei, ImeiError};
pub use message::{EncodeError, MessageError};
pub use to_device::{Rejected, ServerGoodbye, ServerMessage, Time, Welcome, rejection, server_goodbye};
pub use to_server::{DeviceMessage, Hello, Status, Usage, UsageBytes, Used, device_goodbye, usage_level};
pub use version::ALPN;
