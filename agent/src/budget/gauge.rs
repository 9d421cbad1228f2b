//! Counts one link's bytes as TCP takes and gives them, each for its purpose, and reckons what IP and TCP add.
//!
//! The estimate holds for a line that loses nothing: segments of at most [`SEGMENT`] bytes with timestamps (RFC 7323), an
//! acknowledgement for every two that came, in a segment of its own but in the handshake, three segments to open and four
//! to close. What is sent again is not seen here, so a line that loses a twentieth costs about that much more.

use std::net::SocketAddr;
use std::rc::Rc;

use super::traffic::{Bytes, Purpose, Tally};

/// One link's.
#[derive(Debug)]
pub struct Gauge {
    tally: Rc<Tally>,
    /// Of one segment: IP, TCP and timestamps.
    header: u64,
    purpose: Purpose,
    /// What was counted as a full handshake, as long as it may turn out to be a resumed one.
    opening: Bytes,
    /// Something came in the handshake and was acknowledged, by the estimate, in a segment of its own.
    acknowledged: bool,
}

impl Gauge {
    /// A connection to `peer` stands; its opening and its end are counted with it.
    #[must_use]
    pub fn new(peer: SocketAddr, tally: Rc<Tally>) -> Self {
        let header = header(peer);
        let mut gauge =
            Self { tally, header, purpose: Purpose::Full, opening: Bytes::default(), acknowledged: false };
        gauge.count(Bytes { headers: 7 * header + 2 * SYN_MORE, ..Bytes::default() });
        gauge
    }

    /// TCP took so many bytes at once.
    pub fn sent(&mut self, bytes: usize) {
        let up = bytes as u64;
        // In a handshake an answer follows at once and takes the acknowledgement along.
        let along = std::mem::take(&mut self.acknowledged) && self.is_opening();
        let segments = up.div_ceil(SEGMENT).saturating_sub(u64::from(along));
        self.count(Bytes { up, headers: segments * self.header, ..Bytes::default() });
    }

    /// TCP gave so many bytes at once.
    pub fn received(&mut self, bytes: usize) {
        let down = bytes as u64;
        self.acknowledged = true;
        let segments = down.div_ceil(SEGMENT);
        let headers = (segments + segments.div_ceil(2)) * self.header;
        self.count(Bytes { down, headers, ..Bytes::default() });
    }

    /// The handshake turned out to be a resumed one.
    pub fn resume(&mut self) {
        if self.purpose == Purpose::Full {
            self.purpose = Purpose::Resumed;
            self.tally.shift(Purpose::Full, Purpose::Resumed, self.opening);
        }
    }

    /// What comes next is for this.
    pub const fn turn_to(&mut self, purpose: Purpose) {
        self.purpose = purpose;
    }

    const fn is_opening(&self) -> bool {
        matches!(self.purpose, Purpose::Full | Purpose::Resumed)
    }

    fn count(&mut self, bytes: Bytes) {
        if self.purpose == Purpose::Full {
            self.opening.add(bytes);
        }
        self.tally.add(self.purpose, bytes);
    }
}

/// What an attempt costs that got no answer: four SYNs in the time it is given.
#[must_use]
pub const fn unanswered(peer: SocketAddr) -> Bytes {
    Bytes { up: 0, down: 0, headers: 4 * (header(peer) + SYN_MORE) }
}

/// What looking up a name costs: a question and an answer for each kind of address, over UDP.
pub const LOOKUP: Bytes = Bytes { up: 0, down: 0, headers: 2 * (70 + 120) };

const fn header(peer: SocketAddr) -> u64 {
    let ip = if peer.is_ipv4() { 20 } else { 40 };
    ip + 20 + 12
}

/// What lines with an MTU of 1,400 take, which tunnels of carriers leave.
const SEGMENT: u64 = 1340;

/// The options of a SYN beyond timestamps: MSS, window scale, SACK.
const SYN_MORE: u64 = 8;
