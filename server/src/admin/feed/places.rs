//! The places of those who follow events: so many in all, and of them so many for one source, so that none keeps others out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::connections::Peer;
use crate::admission::{self, Source};

/// How many may follow at a time; each holds a descriptor and some 30 KB.
const MOST: usize = 64;
/// How many of one source: who runs away with them leaves a quarter to others.
const MOST_OF_ONE: usize = 48;

/// Who is counted as one; `None`: those who come by the Unix socket.
type Holder = Option<Source>;

/// All places, by who holds them; nobody is in it who holds none.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<Holder, usize>>);

/// One of them, until it is dropped.
pub(in super::super) struct Place {
    places: Arc<Places>,
    holder: Holder,
}

impl Places {
    /// A place for who comes from there, where there is one.
    pub(super) fn take(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let holder = match peer {
            Peer::Address(address) => Some(admission::source(address)),
            Peer::Socket => None,
        };
        let mut taken = self.lock();
        let of_one = taken.get(&holder).copied().unwrap_or(0);
        if taken.values().sum::<usize>() >= MOST || of_one >= MOST_OF_ONE {
            return None;
        }
        taken.insert(holder, of_one + 1);
        drop(taken);
        Some(Place { places: Arc::clone(self), holder })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Holder, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(of_one) = taken.get_mut(&self.holder) {
            *of_one -= 1;
            if *of_one == 0 {
                taken.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn host(last: u8) -> Peer {
        Peer::Address(Ipv4Addr::new(192, 0, 2, last).into())
    }

    #[test]
    fn places_are_bounded_in_all_and_for_one() {
        let places = Arc::new(Places::default());
        let mut of_one: Vec<_> = (0..MOST_OF_ONE).map(|_| places.take(host(1)).unwrap()).collect();
        assert!(places.take(host(1)).is_none());
        let others: Vec<_> = (0..MOST - MOST_OF_ONE).map(|_| places.take(Peer::Socket).unwrap()).collect();
        assert!(places.take(host(2)).is_none() && places.take(Peer::Socket).is_none());
        of_one.pop();
        drop(places.take(host(2)).unwrap());
        of_one.push(places.take(host(1)).unwrap());
        assert!(places.take(host(2)).is_none());
        drop((of_one, others));
        assert!(places.lock().is_empty(), "nothing is kept of who has gone");
    }
}
