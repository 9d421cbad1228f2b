//! A TUN device: whole IP packets, one a read and one a write (Linux, Documentation/networking/tuntap.rst).
//!
//! The testbed's one unsafe expression: neither the standard library nor rustix offers `TUNSETIFF`.

#![expect(unsafe_code, reason = "TUNSETIFF has no safe binding")]

use std::fs::File;
use std::io;

use rustix::ioctl::{Setter, ioctl, opcode};

/// Opened anew for each device.
pub(super) const CLONE_DEVICE: &str = "/dev/net/tun";

/// `struct ifreq`: a name and a union, of which these flags are the first two bytes.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// IP packets without a header of the device's own.
const IFF_TUN_NO_PI: u16 = 0x0001 | 0x1000;

/// A new device in the calling thread's network namespace; it goes with the file. Reads block.
pub(super) fn open(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open(CLONE_DEVICE)?;
    let mut request = Request { name: [0; 16], flags: IFF_TUN_NO_PI, rest: [0; 22] };
    // The kernel wants a zero at the end.
    for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: TUNSETIFF reads a struct ifreq (include/uapi/linux/if_tun.h, if.h), which is 40 bytes where pointers have
    // 64 bits and 32 otherwise; Request has its layout and at least its size.
    unsafe { ioctl(&file, Setter::<{ opcode::write::<i32>(b'T', 202) }, Request>::new(request))? };
    Ok(file)
}
