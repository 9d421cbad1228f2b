//! Makes a fleet's certificates: its CA, the server's, each device's, and the revocation list.
//!
//! [`Authority`] signs and knows nothing of files or clocks. Whoever calls brings the time.

mod authority;
mod key;
mod reason;
mod serial;
mod validity;

pub use authority::{Authority, AuthorityError, Issued, Revoked, ServerNames};
pub use key::{KeyError, PrivateKey, PublicKey};
pub use reason::{Reason, UnknownReason};
pub use serial::{Serial, SerialError};
pub use validity::Validity;
