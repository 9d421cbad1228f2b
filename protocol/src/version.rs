//! How the wire may change without leaving a device behind.
//!
//! - The ALPN name is the version. A change that an older peer could misread gets a new name, offered beside the old one
//!   for as long as devices in the field speak it; the server picks the newest both know.
//! - Within a version the enums only grow. A discriminant is never reused and a variant never changes its fields: a new
//!   field means a new variant.
//! - A body whose discriminant the receiver does not know is skipped and counted. So a newer peer may send a new message
//!   to an older one, and must not depend on its being understood. Of the device's, Usage is such a message: the first
//!   servers of `moorline/1` know the discriminants up to 6.
//! - Codes and reasons are plain numbers, and one that is not known is read as "other".
//! - `protocol/tests/wire/` pins every byte. Those files are added to and never edited.

/// The native protocol's name in TLS's Application-Layer Protocol Negotiation (RFC 7301).
///
/// A peer that negotiates no ALPN speaks the classic protocol.
pub const ALPN: &[u8] = b"moorline/1";
