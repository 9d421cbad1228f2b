//! The serial port as a device: which there are, opening, reading, writing, closing. It knows nothing of AT.
//!
//! Two descriptors are open on a port. serialport's holds the locks (TIOCEXCL against ordinary programs, flock against
//! another that asks for it, as TIOCEXCL does not stop root) and sets line and speed. The other one is read, written and
//! polled: serialport's would block. It is opened first, since the lock shuts it out afterwards, and since it tells a
//! missing port from a busy one by its errno.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use heapless::Vec as Bounded;
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{ControlModes, OptionalActions, QueueSelector, SpecialCodeIndex};
use serialport::{SerialPort as _, TTYPort};

use super::at::MAX_TRANSMIT;

/// The ports of `patterns`, in order: those of one pattern sorted, none twice. A pattern without `*`, `?` and `[` is a port
/// whether it exists or not, so that asking it tells why it cannot be asked.
pub(super) fn expand(patterns: &[String]) -> (Vec<PathBuf>, Vec<(PathBuf, OpenError)>) {
    let (mut ports, mut problems) = (Vec::new(), Vec::new());
    for pattern in patterns {
        if !pattern.contains(['*', '?', '[']) {
            ports.push(PathBuf::from(pattern));
            continue;
        }
        let matches: Vec<_> = match glob::glob(pattern) {
            Ok(paths) => paths.filter_map(Result::ok).collect(),
            Err(error) => {
                problems.push((pattern.into(), OpenError::Pattern(error.msg)));
                continue;
            }
        };
        if matches.is_empty() {
            problems.push((pattern.into(), OpenError::NoMatch));
        }
        ports.extend(matches);
    }
    (without_repeats(ports), problems)
}

/// One device may have several names: /dev/serial/by-id holds links.
fn without_repeats(ports: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut devices = Vec::new();
    let mut once = Vec::new();
    for port in ports {
        let device = port.canonicalize().unwrap_or_else(|_| port.clone());
        if !devices.contains(&device) {
            devices.push(device);
            once.push(port);
        }
    }
    once
}

/// An open port.
#[derive(Debug)]
pub(super) struct Port {
    /// `None` only while it is closed.
    open: Option<Descriptors>,
    /// What the port has not taken yet.
    unsent: Bounded<u8, MAX_TRANSMIT>,
}

/// Closed in this order: the locks are given back before the port is closed for good.
#[derive(Debug)]
struct Descriptors {
    lock: TTYPort,
    data: OwnedFd,
}

impl Port {
    /// Opens `path` for us alone, raw, without flow control, DTR and RTS up, and drops what came before.
    fn open(path: &Path, baud: u32) -> Result<Self, OpenError> {
        let name = path.to_str().ok_or(OpenError::NotText)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let data = rustix::fs::open(path, flags, Mode::empty())?;
        if !rustix::termios::isatty(&data) {
            return Err(OpenError::NotATty);
        }
        let mut lock = serialport::new(name, baud).dtr_on_open(true).open_native()?;
        // A pseudo-terminal has no such line.
        let _ = lock.write_request_to_send(true);
        let port = Self { open: Some(Descriptors { lock, data }), unsent: Bounded::new() };
        port.set_modes()?;
        Ok(port)
    }

    fn set_modes(&self) -> Result<(), Errno> {
        let mut modes = rustix::termios::tcgetattr(self)?;
        // With HUPCL closing drops DTR, and some modems hang up or start anew then.
        modes.control_modes.remove(ControlModes::HUPCL);
        // With VMIN 0 a read of nothing would look like the end.
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        rustix::termios::tcsetattr(self, OptionalActions::Now, &modes)?;
        rustix::termios::tcflush(self, QueueSelector::IOFlush)
    }

    /// Reads what is there; `None` when nothing is.
    ///
    /// # Errors
    /// The modem was unplugged: the port gives an end or an error from then on.
    pub(super) fn read<'b>(&self, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>, Unplugged> {
        match rustix::io::read(self, &mut *buffer) {
            Ok(0) => Err(Unplugged),
            Ok(len) => Ok(buffer.get(..len)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(_) => Err(Unplugged),
        }
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> PollFlags {
        if self.unsent.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }

    /// Sends `command`, if there is one, or what is left of the one before. A command that the port has not taken when the
    /// next one is due is not to be sent any more.
    ///
    /// # Errors
    /// The modem was unplugged.
    pub(super) fn send(&mut self, command: Option<&[u8]>) -> Result<(), Unplugged> {
        if let Some(command) = command {
            self.unsent.clear();
            let _ = self.unsent.extend_from_slice(command);
        }
        if self.unsent.is_empty() {
            return Ok(());
        }
        match rustix::io::write(&*self, &self.unsent) {
            Ok(taken) => {
                let _ = self.unsent.drain(..taken.min(self.unsent.len()));
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(_) => Err(Unplugged),
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // Only `drop` empties it.
        self.open.as_ref().expect("a port is open until it is dropped").data.as_fd()
    }
}

impl Drop for Port {
    /// The last close of a port waits up to 30 s for bytes that a dead modem does not take. What can be dropped is dropped;
    /// for the rest, which is already in the hands of the driver, a thread waits that nobody waits for.
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        let _ = rustix::termios::tcflush(&open.data, QueueSelector::IOFlush);
        if open.lock.bytes_to_write().is_ok_and(|left| left > 0) {
            // When there is no thread to be had, it is dropped here.
            let _ = thread::Builder::new().name("close".into()).spawn(move || drop(open));
        }
    }
}

/// The modem is gone while it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unplugged;

/// A port that is being opened, by a thread: a driver that has lost its device takes seconds for that.
#[derive(Debug)]
pub(super) struct Opening {
    result: Receiver<Result<Port, OpenError>>,
    /// Ends when the result is there.
    done: UnixStream,
}

impl Opening {
    pub(super) fn start(path: &Path, baud: u32) -> Result<Self, OpenError> {
        let (done, ends) = UnixStream::pair()?;
        let (sender, result) = sync_channel(1);
        let path = path.to_owned();
        thread::Builder::new().name("open".into()).spawn(move || {
            // When nobody waits any more, the port is closed here.
            let _ = sender.send(Port::open(&path, baud));
            drop(ends);
        })?;
        Ok(Self { result, done })
    }

    /// The result, once.
    pub(super) fn poll(&self) -> Option<Result<Port, OpenError>> {
        match self.result.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(OpenError::Hangs)),
        }
    }
}

impl AsFd for Opening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}

/// Why a port cannot be asked.
#[derive(Debug)]
pub enum OpenError {
    /// The pattern is none.
    Pattern(&'static str),
    /// The pattern matches nothing.
    NoMatch,
    /// No such file.
    Missing,
    /// Somebody else has it.
    Busy,
    /// We may not open it.
    Permission,
    /// A file of another kind.
    NotATty,
    /// The node is there, the device behind it is not.
    Gone,
    /// The driver does not come back.
    Hangs,
    /// The name is no UTF-8.
    NotText,
    /// Anything else, such as a speed that the port cannot do.
    Other(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pattern(what) => return write!(f, "not a valid pattern: {what}"),
            Self::Other(error) => return write!(f, "cannot open it: {error}"),
            Self::NoMatch => "no port matches: is the modem plugged in and switched on?",
            Self::Missing => "there is no such port: is the modem plugged in and switched on?",
            Self::Busy => {
                "another program has it open, often ModemManager: end that program, or keep ModemManager away from \
                 the port with the udev property ID_MM_PORT_IGNORE=1"
            }
            Self::Permission => {
                "permission denied: serial ports are root's and the group's that owns them, most often dialout; add \
                 this user to it"
            }
            Self::NotATty => "it is not a serial port",
            Self::Gone => "the port is there, but no modem is behind it: plug it in anew",
            Self::Hangs => "the driver does not open it: plug the modem in anew",
            Self::NotText => "its name is not valid UTF-8",
        })
    }
}

impl From<Errno> for OpenError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR => Self::Missing,
            Errno::BUSY => Self::Busy,
            Errno::ACCESS | Errno::PERM => Self::Permission,
            // A folder or a read-only file can be no port either.
            Errno::NOTTY | Errno::ISDIR | Errno::ROFS => Self::NotATty,
            Errno::IO | Errno::NODEV | Errno::NXIO => Self::Gone,
            other => Self::Other(other.into()),
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Other(error)
    }
}

impl From<serialport::Error> for OpenError {
    fn from(error: serialport::Error) -> Self {
        match error.kind() {
            // What serialport makes of a lock that another program holds.
            serialport::ErrorKind::NoDevice => Self::Busy,
            _ => Self::Other(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_without_match_is_told_and_plain_path_is_kept() {
        let patterns = ["/nowhere/ttyUSB*", "/nowhere/ttyUSB2", "/nowhere/[", "/nowhere/ttyUSB2"];
        let (ports, problems) = expand(&patterns.map(String::from));
        assert_eq!(ports, [Path::new("/nowhere/ttyUSB2")]);
        assert!(matches!(problems.as_slice(), [(_, OpenError::NoMatch), (_, OpenError::Pattern(_))]));
    }

    #[test]
    fn pattern_gives_sorted_ports_and_no_device_twice() {
        let folder = std::env::temp_dir().join(format!("moorline-ports-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        for name in ["tty2", "tty1"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink(folder.join("tty2"), folder.join("by-id")).unwrap();
        let patterns = ["by-id", "tty*"].map(|name| folder.join(name).to_str().unwrap().to_owned());
        let (ports, problems) = expand(&patterns);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(ports, [folder.join("by-id"), folder.join("tty1")]);
        assert!(problems.is_empty());
    }

    #[test]
    fn every_errno_has_its_words() {
        for (errno, words) in [
            (Errno::NOENT, "no such port"),
            (Errno::BUSY, "ModemManager"),
            (Errno::ACCESS, "dialout"),
            (Errno::NOTTY, "not a serial port"),
            (Errno::NODEV, "no modem is behind it"),
            (Errno::INVAL, "Invalid argument"),
        ] {
            assert!(OpenError::from(errno).to_string().contains(words), "{errno:?}");
        }
    }

    #[test]
    fn file_is_not_a_serial_port() {
        assert!(matches!(Port::open(Path::new("/dev/null"), 9600), Err(OpenError::NotATty)));
        assert!(matches!(Port::open(Path::new("/nowhere/tty"), 9600), Err(OpenError::Missing)));
    }
}
