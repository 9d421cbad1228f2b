//! A TCP relay between an agent and its server: counts what passes, and fails as cellular lines do.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::failure::Failure;
use crate::field::Namespace;

/// Bytes of TCP payload that passed, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From the device.
    pub up: u64,
    /// To the device.
    pub down: u64,
}

impl Bytes {
    /// What passed since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self { up: self.up - earlier.up, down: self.down - earlier.down }
    }

    /// Both directions.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.up + self.down
    }
}

/// The relay; it ends with the value.
pub struct Relay {
    address: SocketAddr,
    line: Arc<Line>,
}

/// What the relay's threads share.
struct Line {
    target: Mutex<SocketAddr>,
    up: AtomicU64,
    down: AtomicU64,
    accepted: AtomicUsize,
    /// The most that is passed on in one write.
    piece: usize,
    /// Bytes are taken and go nowhere.
    dark: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    /// What the latest connection's device said first.
    first: Mutex<Vec<u8>>,
    passed: (Mutex<()>, Condvar),
    over: AtomicBool,
}

impl Relay {
    /// Listens on a free port and relays to `target`.
    ///
    /// # Panics
    /// When loopback has no free port.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        Self::in_pieces(target, PIECE)
    }

    /// As [`Self::start`], and each write passes on at most `piece` bytes, as a packet of its own.
    ///
    /// # Panics
    /// When loopback has no free port.
    #[must_use]
    pub fn in_pieces(target: SocketAddr, piece: usize) -> Self {
        let (listener, address) = listen(Ipv4Addr::LOCALHOST.into()).expect("loopback has a free port");
        let (relay, shared) = Self::new(address, target, piece);
        thread::spawn(move || shared.accept(&listener));
        relay
    }

    /// Listens at `from` in one network namespace and relays to `target` in another; `None` is the caller's.
    ///
    /// # Errors
    /// A namespace cannot be entered, or `from` is not there.
    #[track_caller]
    pub fn across(
        (outer, from): (Option<&Namespace>, IpAddr),
        (inner, target): (Option<&Namespace>, SocketAddr),
    ) -> Result<Self, Failure> {
        let (listener, address) = within(outer, || Ok(listen(from)?))?;
        let (relay, shared) = Self::new(address, target, PIECE);
        within(inner, || {
            // The thread stays where it is made.
            thread::spawn(move || shared.accept(&listener));
            Ok(())
        })?;
        Ok(relay)
    }

    fn new(address: SocketAddr, target: SocketAddr, piece: usize) -> (Self, Arc<Line>) {
        let line = Arc::new(Line {
            target: Mutex::new(target),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            piece,
            accepted: AtomicUsize::new(0),
            dark: AtomicBool::new(false),
            open: Mutex::default(),
            first: Mutex::default(),
            passed: (Mutex::new(()), Condvar::new()),
            over: AtomicBool::new(false),
        });
        let shared = Arc::clone(&line);
        (Self { address, line }, shared)
    }

    /// Where the device connects to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go here from now on.
    pub fn retarget(&self, target: SocketAddr) {
        *lock(&self.line.target) = target;
    }

    /// What has passed so far.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        Bytes { up: self.line.up.load(Ordering::SeqCst), down: self.line.down.load(Ordering::SeqCst) }
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.line.accepted.load(Ordering::SeqCst)
    }

    /// The first bytes of the latest connection's device: its ClientHello and perhaps more.
    #[must_use]
    pub fn first_bytes(&self) -> Vec<u8> {
        lock(&self.line.first).clone()
    }

    /// Resets every open connection.
    pub fn cut(&self) {
        for stream in lock(&self.line.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// From now on bytes are taken and go nowhere, or flow again; nobody is told.
    pub fn set_dark(&self, dark: bool) {
        self.line.dark.store(dark, Ordering::SeqCst);
    }

    /// Waits until `enough` is true of what has passed and says whether it became so within `most`.
    #[must_use]
    pub fn wait_for(&self, most: Duration, enough: impl Fn(Bytes) -> bool) -> bool {
        let guard = lock(&self.line.passed.0);
        let waited = self.line.passed.1.wait_timeout_while(guard, most, |()| !enough(self.bytes()));
        waited.is_ok_and(|(_, result)| !result.timed_out())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.line.over.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the thread in accept.
        #[expect(clippy::disallowed_methods, reason = "the relay's own listener is woken")]
        let _ = TcpStream::connect(self.address);
    }
}

impl Line {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for device in listener.incoming() {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let Ok(device) = device else { continue };
            self.accepted.fetch_add(1, Ordering::SeqCst);
            lock(&self.first).clear();
            let target = *lock(&self.target);
            #[expect(clippy::disallowed_methods, reason = "the relay's way to its target")]
            let Ok(server) = TcpStream::connect(target) else { continue };
            self.join(device, server);
        }
    }

    fn join(self: &Arc<Self>, device: TcpStream, server: TcpStream) {
        let copies = [&device, &server].map(TcpStream::try_clone);
        let [Ok(device_copy), Ok(server_copy)] = copies else { return };
        for stream in [&device, &server] {
            let _ = stream.set_nodelay(true);
            lock(&self.open).extend(stream.try_clone());
        }
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        thread::spawn(move || up.pass(device, server_copy, &up.up));
        thread::spawn(move || down.pass(server, device_copy, &down.down));
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
        let mut buffer = vec![0; self.piece];
        loop {
            let len = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(fault) if fault.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            // Counted first, so that whoever has received something finds it counted.
            count.fetch_add(len as u64, Ordering::SeqCst);
            if std::ptr::eq(count, &self.up) {
                let mut first = lock(&self.first);
                let room = MOST_FIRST.saturating_sub(first.len());
                first.extend(&buffer[..len.min(room)]);
            }
            if !self.dark.load(Ordering::SeqCst) && to.write_all(&buffer[..len]).is_err() {
                break;
            }
            let _guard = lock(&self.passed.0);
            self.passed.1.notify_all();
        }
        if !self.dark.load(Ordering::SeqCst) {
            let _ = to.shutdown(Shutdown::Both);
        }
    }
}

fn listen(at: IpAddr) -> io::Result<(TcpListener, SocketAddr)> {
    #[expect(clippy::disallowed_methods, reason = "the relay's one listener")]
    let listener = TcpListener::bind((at, 0))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn within<T: Send>(
    namespace: Option<&Namespace>,
    what: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    match namespace {
        Some(namespace) => namespace.within(what),
        None => what(),
    }
}

/// The most that is passed on in one write, where nobody counts packets.
const PIECE: usize = 16 * 1024;
/// A ClientHello that resumes takes less than half of it.
const MOST_FIRST: usize = 1024;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
