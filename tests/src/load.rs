//! A fleet from one process: many thousand mutually authenticated TLS sessions in one loop, as light as rustls lets them
//! be, for it shares the machine with the server that is tried.
//!
//! ```text
//!   Pool ─ a certificate for each device ─► Crowd ─ epoll ─► Line ─ rustls ─ socket
//!                                             │               └ Speech: native, classic, MQTT
//!                                             └► Arrival, Beats: how long everything took
//! ```
//!
//! `Nomads` are a crowd that any of several servers may serve and that comes back by itself.
//!
//! A server is spoken to in its own words, whoever made it; so peers are tried by the same code. It knows no server.

mod crowd;
mod hostile;
mod line;
mod nomads;
mod pool;
mod speech;
mod times;
mod usage;

pub use crowd::{Arrival, Beats, Crowd, Entry};
pub use hostile::{Hostile, Seen};
pub use nomads::{Door, Nomads, Orders, Stay};
pub use pool::{Pool, imei};
pub use speech::Speech;
pub use times::Times;
pub use usage::Usage;

use std::time::Instant;

/// The clock of the whole module.
#[expect(clippy::disallowed_methods, reason = "what is measured is time")]
pub fn now() -> Instant {
    Instant::now()
}
