//! Asks the kernel whether TCP still holds bytes that the peer's host has not acknowledged.
//!
//! One of the agent's two unsafe expressions, beside that of `adjtimex.rs`. Neither the standard library nor rustix offers
//! `SIOCOUTQ` (tcp(7)) or `TCP_INFO` safely, and without it a lost heartbeat cannot be told from a slow server: see
//! `Session::handle_timeout`.

#![expect(unsafe_code, reason = "SIOCOUTQ has no safe binding")]

use std::ffi::c_int;
use std::os::fd::AsFd;

use rustix::ioctl::{Getter, Opcode, ioctl};

/// `TIOCOUTQ` and `SIOCOUTQ` share a number, which is this one on every architecture of `asm-generic/ioctls.h`.
#[cfg(not(any(
    target_arch = "mips",
    target_arch = "mips64",
    target_arch = "powerpc",
    target_arch = "powerpc64",
    target_arch = "sparc64"
)))]
const SIOCOUTQ: Opcode = 0x5411;
#[cfg(any(target_arch = "mips", target_arch = "mips64"))]
const SIOCOUTQ: Opcode = 0x7472;
#[cfg(any(target_arch = "powerpc", target_arch = "powerpc64", target_arch = "sparc64"))]
const SIOCOUTQ: Opcode = 0x4004_7473;

/// Whether bytes are unacknowledged; a socket that cannot tell has none.
pub fn unacknowledged(socket: impl AsFd) -> bool {
    // SAFETY: SIOCOUTQ reads nothing and writes one int through the pointer it is given (include/uapi/linux/sockios.h),
    // which is what a Getter of c_int provides.
    let queued = unsafe { ioctl(socket, Getter::<SIOCOUTQ, c_int>::new()) };
    queued.is_ok_and(|bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "two real sockets are what is tested")]
    fn bytes_that_the_peer_has_no_room_for_are_unacknowledged() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!unacknowledged(&stream));
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65_536]).is_ok() {}
        assert!(unacknowledged(&stream));
    }
}
