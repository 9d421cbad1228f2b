//! Signals as readable ends of pipes: the handler writes a byte, the loop polls. What they mean is `run.rs`'s matter.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// What the agent listens for.
#[derive(Debug)]
pub struct Signals {
    /// SIGTERM and SIGINT: stop.
    pub stop: UnixStream,
    /// SIGHUP: read configuration and certificates anew.
    pub reload: UnixStream,
}

impl Signals {
    /// Takes the signals over from their defaults.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { stop: listen(&[SIGTERM, SIGINT])?, reload: listen(&[SIGHUP])? })
    }
}

fn listen(signals: &[i32]) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    for signal in signals {
        // The handler's own write never blocks: signal-hook sends with MSG_DONTWAIT.
        pipe::register(*signal, write.try_clone()?)?;
    }
    Ok(read)
}

/// Empties a pipe; several signals that came together count as one.
pub fn take(mut pipe: &UnixStream) -> bool {
    let mut bytes = [0; 16];
    let mut came = false;
    while pipe.read(&mut bytes).is_ok_and(|count| count > 0) {
        came = true;
    }
    came
}
