//! One direction of a TCP connection in virtual time, as far as it matters here: bytes arrive in order or not at all, and are
//! sent again at growing intervals until their arrival is acknowledged. The network is asked about every packet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::network::{Fate, Network};

/// Linux's TCP_RTO_MIN is less and its initial timeout is this; the cap is its own.
const FIRST_RETRANSMISSION: Duration = Duration::from_secs(1);
const LAST_RETRANSMISSION: Duration = Duration::from_secs(120);

/// Which way a stream flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the device.
    Up,
    /// To the device.
    Down,
}

/// See the module.
#[derive(Debug)]
pub struct Stream {
    direction: Direction,
    /// What is not acknowledged, and the number of its first segment.
    unacknowledged: VecDeque<Vec<u8>>,
    first: u64,
    /// Since when nothing of it was acknowledged.
    stuck_since: Option<Instant>,
    /// When all of it is sent again.
    again: Option<Instant>,
    timeout: Duration,
    /// Packets on the way: when they arrive, the first segment's number, and what they hold.
    packets: Vec<(Instant, u64, Vec<Vec<u8>>)>,
    /// Acknowledgements on their way back: when they arrive, and what is expected next.
    acknowledgements: Vec<(Instant, u64)>,
    expected: u64,
    /// When the sender hears that there is no such connection.
    reset: Option<Instant>,
    /// Packets sent, acknowledgements among them.
    pub sent: u64,
}

impl Stream {
    /// Nothing sent yet.
    #[must_use]
    pub const fn new(direction: Direction) -> Self {
        Self {
            direction,
            unacknowledged: VecDeque::new(),
            first: 0,
            stuck_since: None,
            again: None,
            timeout: FIRST_RETRANSMISSION,
            packets: Vec::new(),
            acknowledgements: Vec::new(),
            expected: 0,
            reset: None,
            sent: 0,
        }
    }

    /// Sends one segment.
    pub fn send(&mut self, bytes: &[u8], network: &mut Network, now: Instant) {
        let number = self.first + self.unacknowledged.len() as u64;
        self.unacknowledged.push_back(bytes.to_vec());
        self.stuck_since.get_or_insert(now);
        self.again.get_or_insert(now + self.timeout);
        self.transmit(number, vec![bytes.to_vec()], network, now);
    }

    /// Whether something is not acknowledged yet.
    #[must_use]
    pub fn is_in_flight(&self) -> bool {
        !self.unacknowledged.is_empty()
    }

    /// Whether the sender gives up, since nothing was acknowledged for so long (`TCP_USER_TIMEOUT`, RFC 5482): then it sends
    /// nothing any more.
    pub fn gives_up(&mut self, after: Duration, now: Instant) -> bool {
        let stuck = self.stuck_since.is_some_and(|since| now >= since + after);
        if stuck {
            self.unacknowledged.clear();
            (self.stuck_since, self.again) = (None, None);
        }
        stuck
    }

    /// When [`Self::turn`] has something to do.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let packets = self.packets.iter().map(|packet| packet.0);
        let acknowledgements = self.acknowledgements.iter().map(|acknowledgement| acknowledgement.0);
        packets.chain(acknowledgements).chain(self.again).chain(self.reset).min()
    }

    /// Whether the sender has heard by now that there is no such connection.
    #[must_use]
    pub fn is_reset(&self, now: Instant) -> bool {
        self.reset.is_some_and(|at| at <= now)
    }

    /// Lets time come to `now`; gives what arrives by then, in order.
    pub fn turn(&mut self, network: &mut Network, now: Instant) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        while let Some(index) = self.packets.iter().position(|packet| packet.0 <= now) {
            let (_, number, segments) = self.packets.remove(index);
            let skip = usize::try_from(self.expected.saturating_sub(number)).unwrap_or(usize::MAX);
            if number <= self.expected {
                let fresh: Vec<_> = segments.into_iter().skip(skip).collect();
                self.expected += fresh.len() as u64;
                taken.extend(fresh);
            }
            self.acknowledge(network, now);
        }
        while let Some(index) =
            self.acknowledgements.iter().position(|acknowledgement| acknowledgement.0 <= now)
        {
            let (_, expected) = self.acknowledgements.remove(index);
            self.on_acknowledged(expected, now);
        }
        if self.again.is_some_and(|at| at <= now) {
            self.timeout = (self.timeout * 2).min(LAST_RETRANSMISSION);
            self.again = Some(now + self.timeout);
            self.transmit(self.first, self.unacknowledged.iter().cloned().collect(), network, now);
        }
        taken
    }

    fn on_acknowledged(&mut self, expected: u64, now: Instant) {
        let gone = usize::try_from(expected.saturating_sub(self.first)).unwrap_or(usize::MAX);
        if gone > 0 {
            self.unacknowledged.drain(..gone.min(self.unacknowledged.len()));
            self.first = expected;
            self.timeout = FIRST_RETRANSMISSION;
            self.again = self.is_in_flight().then(|| now + self.timeout);
            self.stuck_since = self.is_in_flight().then_some(now);
        }
    }

    fn transmit(&mut self, number: u64, segments: Vec<Vec<u8>>, network: &mut Network, now: Instant) {
        self.sent += 1;
        let fate = match self.direction {
            Direction::Up => network.up(now),
            Direction::Down => network.down(now),
        };
        match fate {
            Fate::Arrives(at) => self.packets.push((at, number, segments)),
            Fate::Reset(at) => self.reset = Some(at),
            Fate::Lost => {}
        }
    }

    fn acknowledge(&mut self, network: &mut Network, now: Instant) {
        self.sent += 1;
        let fate = match self.direction {
            Direction::Up => network.down(now),
            Direction::Down => network.up(now),
        };
        if let Fate::Arrives(at) = fate {
            self.acknowledgements.push((at, self.expected));
        }
    }
}
