//! The PROXY protocol, version 2: how a load balancer says, before anything else, whose connection it passes on. Pure: it is
//! given bytes.
//!
//! ```text
//!   12 bytes   1                  1                   2        length
//!   signature  version, command   family, transport   length   addresses, then TLVs
//! ```
//!
//! Whoever is believed can be anybody: so only the listed networks are (see [`Networks`]), and from those nothing else is
//! taken. TLVs are skipped.

mod networks;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use networks::{NetworkError, Networks};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with, which is text.
const VERSION_1: &[u8] = b"PROXY ";
/// Up to the length.
const FIXED: usize = 16;
/// The longest header. Addresses take 36 bytes; the rest is for TLVs, of which a certificate's names are the longest.
pub const MAX_HEADER: usize = 4096;

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It takes at least so many bytes in all.
    Unfinished(usize),
    /// It is whole, and ends where the bytes do.
    Whole(Introduced),
}

/// Whom the balancer introduces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introduced {
    /// A device that comes from there.
    Device(SocketAddr),
    /// Itself, as for a health check; or somebody whose address it does not know.
    Itself,
}

/// Why this is no header to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// Something else begins here.
    Absent,
    /// The older version, as text.
    Version1,
    /// A version that is not 2.
    Version(u8),
    /// Neither LOCAL nor PROXY.
    Command(u8),
    /// Neither TCP over IPv4 nor TCP over IPv6.
    Transport(u8),
    /// There is no room for the addresses.
    Short(usize),
    /// It is longer than [`MAX_HEADER`].
    Long(usize),
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str(
                "no PROXY protocol header begins the connection, and listen.proxy_from has its sender: have the balancer send version 2",
            ),
            Self::Version1 => {
                f.write_str("this is version 1 of the PROXY protocol: have the balancer send version 2")
            }
            Self::Version(version) => write!(f, "version {version} of the PROXY protocol is not known here"),
            Self::Command(command) => write!(f, "the PROXY protocol has no command {command}"),
            Self::Transport(byte) => {
                write!(f, "the PROXY protocol's header is for no TCP connection (family and transport {byte:#04x})")
            }
            Self::Short(length) => {
                write!(f, "the PROXY protocol's header says {length} bytes, which is too short for its addresses")
            }
            Self::Long(length) => {
                write!(f, "the PROXY protocol's header says {length} bytes, more than {MAX_HEADER} in all")
            }
        }
    }
}

impl std::error::Error for ProxyError {}

/// Reads a header. Give it never more bytes than it said it takes, so that none behind the header are lost; begin with none.
///
/// # Errors
/// As soon as it is certain that this is none.
pub fn read(bytes: &[u8]) -> Result<Progress, ProxyError> {
    let Some((fixed, behind)) = bytes.split_first_chunk::<FIXED>() else {
        return begins(bytes).map(|()| Progress::Unfinished(FIXED));
    };
    begins(fixed)?;
    let [.., version_command, transport, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (version, command) = (version_command >> 4, version_command & 0xf);
    match (version, command) {
        (2, 0 | 1) => {}
        (2, other) => return Err(ProxyError::Command(other)),
        (other, _) => return Err(ProxyError::Version(other)),
    }
    if FIXED + length > MAX_HEADER {
        return Err(ProxyError::Long(length));
    }
    // What the addresses take; LOCAL and an unspecified family have none that count.
    let wanted = match (command, transport) {
        (0, _) | (1, 0) => 0,
        (_, 0x11) => 12,
        (_, 0x21) => 36,
        (_, other) => return Err(ProxyError::Transport(other)),
    };
    if length < wanted {
        return Err(ProxyError::Short(length));
    }
    if behind.len() < length {
        return Ok(Progress::Unfinished(FIXED + length));
    }
    let device = match wanted {
        12 => source::<4>(behind, 8).map(|(ip, port)| (IpAddr::V4(Ipv4Addr::from(ip)), port)),
        36 => source::<16>(behind, 32).map(|(ip, port)| (Ipv6Addr::from(ip).to_canonical(), port)),
        _ => None,
    };
    Ok(Progress::Whole(device.map_or(Introduced::Itself, |address| Introduced::Device(address.into()))))
}

/// Whether a header begins so.
fn begins(bytes: &[u8]) -> Result<(), ProxyError> {
    let same = |expected: &[u8]| bytes.iter().zip(expected).all(|(byte, expected)| byte == expected);
    match () {
        () if same(&SIGNATURE) => Ok(()),
        () if !same(VERSION_1) => Err(ProxyError::Absent),
        // What so few bytes become, the next ones tell.
        () if bytes.len() < VERSION_1.len() => Ok(()),
        () => Err(ProxyError::Version1),
    }
}

/// The source's address, which comes first, and its port.
fn source<const N: usize>(addresses: &[u8], port_at: usize) -> Option<([u8; N], u16)> {
    let ip = addresses.first_chunk::<N>()?;
    let port = addresses.get(port_at..)?.first_chunk::<2>()?;
    Some((*ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests;
