//! Makes a fleet's certificates: its CA, the server's, each device's, and the revocation list.
//!
//! [`Authority`] signs and knows nothing of files or clocks; [`Folder`] is the directory in which the program
//! `moorline-certs` keeps a CA, what it issued and what it revoked. Whoever calls brings the time.

#![forbid(unsafe_code)]

mod authority;
mod bulk;
mod files;
mod folder;
mod index;
mod issue;
mod key;
mod list;
mod names;
mod reason;
mod revoke;
mod serial;
mod validity;

pub use authority::{Authority, AuthorityError, Issued, Revoked};
pub use bulk::{BulkError, Issue};
pub use folder::{Folder, FolderError};
pub use index::{IndexError, IndexFault};
pub use issue::Written;
pub use key::{KeyError, PrivateKey, PublicKey};
pub use moorline_config::{BadLine, Row, read_table};
pub use names::ServerNames;
pub use reason::{Reason, UnknownReason};
pub use revoke::{List, Revocation, Target};
pub use serial::{Serial, SerialError};
pub use validity::Validity;
