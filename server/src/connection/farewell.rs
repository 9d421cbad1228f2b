//! The last words of a connection, and the manners of closing it.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::scratch;
use crate::clock;

/// How long the last words may take, and how long the peer may then take to go.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Writes all of `bytes`, or as much as the peer takes in time.
pub(super) async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let until = Instant::from_std(clock::now().instant + LAST_WORDS);
    while !bytes.is_empty() {
        timeout_at(until, socket.writable()).await??;
        match socket.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

/// Sends FIN and takes what still comes, until the peer has gone too. A socket that is closed over unread bytes sends a
/// reset instead, and a reset takes back what the peer has not read yet: the alert or the Goodbye that says why.
pub(super) async fn hear_out(socket: &TcpStream) {
    let until = Instant::from_std(clock::now().instant + LAST_WORDS);
    if SockRef::from(socket).shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    while let Ok(Ok(())) = timeout_at(until, socket.readable()).await {
        match scratch::with(|scratch| socket.try_read(&mut scratch.read)) {
            Ok(0) => return,
            Ok(_) => {}
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
