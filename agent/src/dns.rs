//! Names to addresses. The system's resolver blocks for as long as it likes, so it runs in a thread of its own that
//! nobody waits for: neither a deadline nor the end of the process.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use heapless::Vec;

/// The most addresses of one name that are tried.
pub const MAX_ADDRESSES: usize = 8;

/// What a name stands for, in the order the system's resolver prefers (RFC 6724).
pub type Addresses = Vec<SocketAddr, MAX_ADDRESSES>;

/// Threads that may be stuck in the resolver at a time, each with [`STACK`]. With no name server in reach, every one
/// takes the resolver's own time-outs, which can be longer than ours.
const MAX_STUCK: usize = 4;

/// glibc's resolver keeps its answers on the stack: this is eight times what it was seen to use.
const STACK: usize = 256 * 1024;

/// Starts lookups, and counts those that have not come back.
#[derive(Debug, Default)]
pub struct Resolver {
    running: Arc<()>,
}

impl Resolver {
    /// Begins to look a name up.
    ///
    /// # Errors
    /// No thread can be started, or too many are still stuck.
    pub fn look_up(&self, host: &str, port: u16) -> io::Result<Lookup> {
        if Arc::strong_count(&self.running) > MAX_STUCK {
            return Err(io::Error::other("earlier lookups have not come back from the system's resolver"));
        }
        let (host, running) = (host.to_owned(), Arc::clone(&self.running));
        let (sender, receiver) = mpsc::channel();
        let (waker, woken) = UnixStream::pair()?;
        thread::Builder::new().name("resolver".to_owned()).stack_size(STACK).spawn(move || {
            // Nobody listens any more when the deadline has passed.
            let _ = sender.send(resolve(&host, port));
            // The end of the stream wakes the loop, also when the resolver panics.
            drop(waker);
            drop(running);
        })?;
        Ok(Lookup { receiver, woken })
    }
}

fn resolve(host: &str, port: u16) -> io::Result<Addresses> {
    let addresses: Addresses = (host, port).to_socket_addrs()?.take(MAX_ADDRESSES).collect();
    if addresses.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(addresses) }
}

/// A lookup under way. Dropping it leaves the thread to itself.
#[derive(Debug)]
pub struct Lookup {
    receiver: Receiver<io::Result<Addresses>>,
    woken: UnixStream,
}

impl Lookup {
    /// The outcome, once [`AsFd`] is readable.
    pub fn poll(&self) -> Option<io::Result<Addresses>> {
        match self.receiver.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(io::Error::other("the system's resolver failed"))),
        }
    }
}

impl AsFd for Lookup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn lookup_wakes_with_the_addresses() {
        let mut lookup = Resolver::default().look_up("localhost", 9089).unwrap();
        // Ends when the thread is done.
        lookup.woken.read_to_end(&mut std::vec::Vec::new()).unwrap();
        let addresses = lookup.poll().unwrap().unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 9089));
    }

    #[test]
    fn stuck_lookups_are_bounded() {
        let resolver = Resolver::default();
        let _stuck: std::vec::Vec<_> = (0..MAX_STUCK).map(|_| Arc::clone(&resolver.running)).collect();
        assert!(resolver.look_up("localhost", 1).is_err());
    }
}
