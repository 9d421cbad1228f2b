//! Who may stay while nobody knows yet who they are. Pure bookkeeping: connections in, whom to send away out.
//!
//! Accepting never stops. A connection that is not registered yet is cheap, but it holds a descriptor; so one source
//! address may hold only a share of them, and when descriptors run short the one that has been silent for the longest goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// A share of the descriptors that one source may hold with unregistered connections: half of them. A carrier's NAT shows
/// thousands of devices as one address, and after an outage they all knock at once; the other half is for everybody else.
const SHARE: usize = 2;

/// The bookkeeping; `H` is what the shell needs to send a connection away.
#[derive(Debug)]
pub struct Admission<H> {
    capacity: usize,
    /// In the order they came, so that the first is the oldest.
    waiting: BTreeMap<u64, Waiting<H>>,
    by_source: HashMap<Source, BTreeSet<u64>>,
    registered: BTreeMap<u64, H>,
    next: u64,
}

#[derive(Debug)]
struct Waiting<H> {
    source: Source,
    handle: H,
}

/// Who is counted as one: an IPv4 address, or an IPv6 network of 64 bits, which one subscriber holds whole.
pub(crate) type Source = u128;

/// Why a connection is sent away before it has said who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// Its source holds more than its share.
    Share,
    /// Descriptors run short, and it has been silent for the longest.
    Capacity,
}

/// What a new connection leads to.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted<H> {
    /// Names the connection here from now on.
    pub seat: u64,
    /// The connection that has to go for it.
    pub evicted: Option<(H, Eviction)>,
}

impl<H> Admission<H> {
    /// `capacity` is how many connections the descriptors suffice for.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            waiting: BTreeMap::new(),
            by_source: HashMap::new(),
            registered: BTreeMap::new(),
            next: 0,
        }
    }

    /// A connection came. `None`: every descriptor is held by a registered device, so there is nobody to send away.
    pub fn admit(&mut self, address: IpAddr, handle: H) -> Option<Admitted<H>> {
        let source = source(address);
        let held = self.by_source.get(&source);
        let share = (self.capacity / SHARE).max(1);
        let victim = if held.is_some_and(|seats| seats.len() >= share) {
            held.and_then(BTreeSet::first).map(|seat| (*seat, Eviction::Share))
        } else if self.waiting.len() + self.registered.len() >= self.capacity {
            Some((*self.waiting.first_key_value()?.0, Eviction::Capacity))
        } else {
            None
        };
        let evicted = victim.and_then(|(seat, why)| Some((self.remove(seat)?.handle, why)));
        let seat = self.next;
        self.next += 1;
        self.waiting.insert(seat, Waiting { source, handle });
        self.by_source.entry(source).or_default().insert(seat);
        Some(Admitted { seat, evicted })
    }

    /// A descriptor could not be had: the connection that has been silent for the longest.
    pub fn evict_oldest(&mut self) -> Option<H> {
        let seat = *self.waiting.first_key_value()?.0;
        self.remove(seat).map(|waiting| waiting.handle)
    }

    /// The connection said who it is.
    pub fn register(&mut self, seat: u64) {
        if let Some(waiting) = self.remove(seat) {
            self.registered.insert(seat, waiting.handle);
        }
    }

    /// The connection is over.
    pub fn leave(&mut self, seat: u64) {
        if self.registered.remove(&seat).is_none() {
            self.remove(seat);
        }
    }

    /// All connections that have not been sent away, in the order in which they came to be what they are.
    pub fn everyone(&self) -> impl Iterator<Item = &H> {
        self.registered.values().chain(self.waiting.values().map(|waiting| &waiting.handle))
    }

    /// How many connections have not said who they are.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn remove(&mut self, seat: u64) -> Option<Waiting<H>> {
        let waiting = self.waiting.remove(&seat)?;
        if let Some(seats) = self.by_source.get_mut(&waiting.source) {
            seats.remove(&seat);
            if seats.is_empty() {
                self.by_source.remove(&waiting.source);
            }
        }
        Some(waiting)
    }
}

/// Whom an address is counted as.
pub(crate) fn source(address: IpAddr) -> Source {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_bits().into(),
        // Above every IPv4 address: the upper half of an IPv6 address that is in use is never zero.
        IpAddr::V6(v6) => v6.to_bits() & (u128::MAX << 64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn address(n: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, n])
    }

    #[test]
    fn source_over_its_share_loses_its_oldest() {
        let mut admission = Admission::new(20);
        for n in 0..10 {
            assert_eq!(admission.admit(HOME, n).unwrap().evicted, None);
        }
        assert_eq!(admission.admit(HOME, 10).unwrap().evicted, Some((0, Eviction::Share)));
        assert_eq!(admission.admit(address(1), 11).unwrap().evicted, None);
    }

    #[test]
    fn mapped_and_plain_ipv4_are_one_source() {
        let mut admission = Admission::new(3);
        admission.admit(HOME, 0).unwrap();
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert_eq!(admission.admit(mapped, 1).unwrap().evicted, Some((0, Eviction::Share)));
    }

    #[test]
    fn ipv6_network_is_one_source() {
        let mut admission = Admission::new(3);
        admission.admit("2001:db8::1".parse().unwrap(), 0).unwrap();
        let evicted = admission.admit("2001:db8::2".parse().unwrap(), 1).unwrap().evicted;
        assert_eq!(evicted, Some((0, Eviction::Share)));
        assert_eq!(admission.admit("2001:db8:0:1::1".parse().unwrap(), 2).unwrap().evicted, None);
    }

    #[test]
    fn oldest_silent_goes_when_descriptors_run_short() {
        let mut admission = Admission::new(3);
        let seats: Vec<_> = (0..3).map(|n| admission.admit(address(n), n).unwrap().seat).collect();
        admission.register(seats[0]);
        assert_eq!(admission.admit(address(9), 9).unwrap().evicted, Some((1, Eviction::Capacity)));
        assert_eq!(admission.evict_oldest(), Some(2));
    }

    #[test]
    fn registered_devices_are_never_sent_away() {
        let mut admission = Admission::new(2);
        for n in 0..2 {
            let seat = admission.admit(address(n), n).unwrap().seat;
            admission.register(seat);
        }
        assert_eq!(admission.admit(address(3), 3), None);
        admission.leave(0);
        assert_eq!(admission.admit(address(3), 3).unwrap().evicted, None);
    }

    #[test]
    fn nothing_is_left_of_those_who_left() {
        let mut admission = Admission::new(100);
        for n in 0..50 {
            let seat = admission.admit(address(n), n).unwrap().seat;
            if n % 2 == 0 {
                admission.register(seat);
            }
            admission.leave(seat);
        }
        assert_eq!((admission.everyone().count(), admission.by_source.len()), (0, 0));
    }
}
