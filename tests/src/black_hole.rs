//! A port whose host drops every SYN: its listener's queue is full and nobody empties it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, listen, socket};

use crate::failure::Failure;

/// It ends with the value.
pub struct BlackHole {
    /// Where it is.
    pub address: SocketAddr,
    _listener: OwnedFd,
    _queued: OwnedFd,
}

impl BlackHole {
    /// A new one.
    ///
    /// # Errors
    /// No sockets can be had.
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "a connection to itself fills the queue")]
    pub fn new() -> Result<Self, Failure> {
        let open = || socket(AddressFamily::INET, SocketType::STREAM, None);
        let (listener, queued) = (open()?, open()?);
        bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        listen(&listener, 0)?;
        let address = SocketAddr::try_from(getsockname(&listener)?)?;
        // A queue of length 0 holds one connection.
        connect(&queued, &address)?;
        Ok(Self { address, _listener: listener, _queued: queued })
    }
}
