//! The line between device and carrier: a pair of TUN devices and what carries packets between them, as well or as badly
//! as a test says.

use std::fs::File;
use std::io::{self, PipeWriter, Read as _, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::{LINE, Namespace, tun};
use crate::failure::Failure;

/// The carrier's end.
pub(super) const CARRIERS_END: &str = "ran0";

/// What a base station holds for one device; what comes on top is lost.
const QUEUE: usize = 64;

/// What the line is like, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// What each packet takes on its way.
    pub latency: Duration,
    /// Bits per second, or as many as there are.
    pub bandwidth: Option<u64>,
    /// Of a thousand packets, so many are lost.
    pub loss: u16,
    /// Packets that end a TCP connection (FIN and RST) are lost.
    pub endings_lost: bool,
}

impl Quality {
    /// As a cable is.
    pub const CABLE: Self = Self { latency: Duration::ZERO, bandwidth: None, loss: 0, endings_lost: false };
    /// 2G at its better.
    pub const EDGE: Self =
        Self { latency: Duration::from_millis(350), bandwidth: Some(50_000), ..Self::CABLE };
    /// 2G at the cell's edge.
    pub const WEAK: Self =
        Self { latency: Duration::from_millis(1500), bandwidth: Some(30_000), ..Self::CABLE };
    /// No coverage: nobody is told.
    pub const DARK: Self = Self { loss: 1000, ..Self::CABLE };
}

/// What passed on the line, or was lost on it, with IP's and TCP's headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets from the device.
    pub up_packets: u64,
    /// Their bytes.
    pub up_bytes: u64,
    /// Packets to the device.
    pub down_packets: u64,
    /// Their bytes.
    pub down_bytes: u64,
}

impl Traffic {
    /// What passed since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            up_packets: self.up_packets - earlier.up_packets,
            up_bytes: self.up_bytes - earlier.up_bytes,
            down_packets: self.down_packets - earlier.down_packets,
            down_bytes: self.down_bytes - earlier.down_bytes,
        }
    }

    /// Bytes in both directions.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.up_bytes + self.down_bytes
    }
}

/// See the module.
pub struct Line {
    air: Arc<Air>,
    /// Closed, it ends the two readers.
    _end: PipeWriter,
}

/// What both directions share.
struct Air {
    quality: Mutex<Quality>,
    traffic: Mutex<Traffic>,
    passed: Condvar,
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

/// A packet and when it arrives.
type Flight = (Instant, Vec<u8>);

impl Line {
    #[track_caller]
    pub(super) fn lay(device: &Namespace, carrier: &Namespace) -> Result<Self, Failure> {
        let device = device.within(|| Ok(tun::open(LINE)?))?;
        let carrier = carrier.within(|| Ok(tun::open(CARRIERS_END)?))?;
        let (end, _end) = io::pipe()?;
        let air = Arc::new(Air {
            quality: Mutex::new(Quality::CABLE),
            traffic: Mutex::default(),
            passed: Condvar::new(),
        });
        let ways = [
            (Direction::Up, device.try_clone()?, carrier.try_clone()?, end.try_clone()?),
            (Direction::Down, carrier, device, end),
        ];
        for (direction, from, to, end) in ways {
            let (queue, queued) = sync_channel(QUEUE);
            let air = Arc::clone(&air);
            thread::spawn(move || {
                // Its failure is a device that is gone, and with it the line.
                let _ = air.carry(direction, from, &queue, &end);
            });
            thread::spawn(move || deliver(&queued, to));
        }
        Ok(Self { air, _end })
    }

    /// From now on it is like this.
    pub fn set(&self, quality: Quality) {
        *lock(&self.air.quality) = quality;
    }

    /// What has passed so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        *lock(&self.air.traffic)
    }

    /// What has passed, once nothing did for `quiet`: more than the longest that a kernel keeps an acknowledgement back.
    #[must_use]
    pub fn settled(&self, quiet: Duration) -> Traffic {
        let mut traffic = lock(&self.air.traffic);
        loop {
            let before = *traffic;
            let waited = self.air.passed.wait_timeout_while(traffic, quiet, |now| *now == before);
            let (now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return *now;
            }
            traffic = now;
        }
    }

    /// Whether nothing passes for so long; it tells the first packet at once.
    #[must_use]
    pub fn is_silent_for(&self, time: Duration) -> bool {
        let traffic = lock(&self.air.traffic);
        let before = *traffic;
        let waited = self.air.passed.wait_timeout_while(traffic, time, |now| *now == before);
        waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Air {
    fn carry(
        &self,
        direction: Direction,
        mut from: File,
        queue: &SyncSender<Flight>,
        end: &io::PipeReader,
    ) -> io::Result<()> {
        let mut buffer = [0; 2048];
        let mut chance: u64 = 0x9e37_79b9_7f4a_7c15;
        // When the last packet has left the sender.
        let mut free = now();
        loop {
            let mut waits = [PollFd::new(&from, PollFlags::IN), PollFd::new(end, PollFlags::empty())];
            poll(&mut waits, None)?;
            if !waits[1].revents().is_empty() {
                return Ok(());
            }
            let len = from.read(&mut buffer)?;
            let packet = &buffer[..len];
            self.count(direction, len as u64);
            let quality = *lock(&self.quality);
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let lost = (chance >> 33) % 1000 < u64::from(quality.loss);
            if lost || quality.endings_lost && ends_a_connection(packet) {
                continue;
            }
            let sending = quality.bandwidth.map_or(0, |bits| len as u64 * 8 * 1_000_000 / bits);
            free = free.max(now()) + Duration::from_micros(sending);
            let _ = queue.try_send((free + quality.latency, packet.to_vec()));
        }
    }

    fn count(&self, direction: Direction, bytes: u64) {
        let mut traffic = lock(&self.traffic);
        let Traffic { up_packets, up_bytes, down_packets, down_bytes } = &mut *traffic;
        let (packets, sum) = match direction {
            Direction::Up => (up_packets, up_bytes),
            Direction::Down => (down_packets, down_bytes),
        };
        *packets += 1;
        *sum += bytes;
        drop(traffic);
        self.passed.notify_all();
    }
}

/// Until the reader is gone. Packets keep their order, as on one radio bearer.
fn deliver(queued: &Receiver<Flight>, mut to: File) {
    while let Ok((arrives, packet)) = queued.recv() {
        #[expect(clippy::disallowed_methods, reason = "this wait is the line's latency")]
        thread::sleep(arrives.saturating_duration_since(now()));
        // A device that is down takes nothing, which is a loss like any other.
        let _ = to.write(&packet);
    }
}

/// Whether an IP packet is TCP's and bears FIN or RST.
fn ends_a_connection(packet: &[u8]) -> bool {
    const TCP: u8 = 6;
    const FIN_OR_RST: u8 = 0x05;
    let (protocol, header) = match packet.first().map(|first| (first >> 4, first & 0x0f)) {
        Some((4, words)) => (packet.get(9), usize::from(words) * 4),
        Some((6, _)) => (packet.get(6), 40),
        _ => return false,
    };
    protocol == Some(&TCP) && packet.get(header + 13).is_some_and(|flags| flags & FIN_OR_RST != 0)
}

#[expect(clippy::disallowed_methods, reason = "the line's one clock")]
fn now() -> Instant {
    Instant::now()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
