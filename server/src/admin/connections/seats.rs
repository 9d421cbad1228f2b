//! The seats behind one door, and who gives up his for a newcomer.
//!
//! A seat is given up by the connection whose bytes moved the longest ago: one that is idle, that sends its request slowly,
//! or does not take its answer. Never by one that waits for the server, nor by one to which the server has not come yet. Of two sources the one with more seats gives up, so
//! that none takes the others' by coming often.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::Peer;
use crate::clock;

/// See the module.
pub(super) struct Seats {
    most: usize,
    began: Instant,
    places: Mutex<Vec<Arc<Place>>>,
    /// A seat has become free, or could be given up now.
    changed: Notify,
}

/// One connection's.
pub(super) struct Place {
    seats: Arc<Seats>,
    peer: Peer,
    /// When bytes moved last, in microseconds since the seats are there.
    moved: AtomicU64,
    /// The server works for it.
    busy: AtomicBool,
    /// The server has not looked yet whether it asks for something: in a crowd newcomers come faster than they are looked at.
    unseen: AtomicBool,
    given_away: Notify,
}

impl Seats {
    pub(super) fn new(most: usize) -> Arc<Self> {
        let began = clock::now().instant;
        Arc::new(Self { most, began, places: Mutex::default(), changed: Notify::new() })
    }

    /// A seat, as soon as there is one or one is given up.
    pub(super) async fn take(self: &Arc<Self>, peer: Peer) -> Arc<Place> {
        loop {
            if let Some(place) = self.try_take(peer) {
                return place;
            }
            self.changed.notified().await;
        }
    }

    fn try_take(self: &Arc<Self>, peer: Peer) -> Option<Arc<Place>> {
        let mut places = self.lock();
        if places.len() >= self.most {
            let index = who_gives_up(&places, peer)?;
            places.swap_remove(index).given_away.notify_one();
        }
        let place = Arc::new(Place {
            seats: Arc::clone(self),
            peer,
            moved: AtomicU64::new(self.now()),
            busy: AtomicBool::new(false),
            unseen: AtomicBool::new(true),
            given_away: Notify::new(),
        });
        places.push(Arc::clone(&place));
        Some(place)
    }

    fn now(&self) -> u64 {
        let since = clock::now().instant.saturating_duration_since(self.began);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn who_gives_up(places: &[Arc<Place>], newcomer: Peer) -> Option<usize> {
    let seats_of =
        |peer| places.iter().filter(|place| place.peer == peer).count() + usize::from(peer == newcomer);
    let idle = places
        .iter()
        .enumerate()
        .filter(|(_, place)| !place.busy.load(Ordering::Relaxed) && !place.unseen.load(Ordering::Relaxed));
    let key = |place: &Place| (seats_of(place.peer), Reverse(place.moved.load(Ordering::Relaxed)));
    idle.max_by_key(|(_, place)| key(place)).map(|(index, _)| index)
}

impl Place {
    /// Bytes have moved.
    pub(super) fn note_moved(&self) {
        self.moved.store(self.seats.now(), Ordering::Relaxed);
    }

    /// The server begins or ends to work for it.
    pub(super) fn set_busy(&self, busy: bool) {
        if self.busy.swap(busy, Ordering::Relaxed) && !busy {
            self.seats.changed.notify_one();
        }
    }

    /// The server has read all that it said so far, or a question.
    pub(super) fn note_seen(&self) {
        if self.unseen.swap(false, Ordering::Relaxed) {
            self.seats.changed.notify_one();
        }
    }

    /// Gives the seat back; the connection may go on without.
    pub(super) fn leave(&self) {
        let mut places = self.seats.lock();
        if let Some(index) = places.iter().position(|place| std::ptr::eq(&raw const **place, self)) {
            places.swap_remove(index);
            self.seats.changed.notify_one();
        }
    }

    /// Waits until the seat went to another.
    pub(super) async fn given_away(&self) {
        self.given_away.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const ONE: Peer = Peer::Address(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const OTHER: Peer = Peer::Address(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));

    /// A full house; `moved` of each is its place in `peers`.
    fn full(peers: &[Peer]) -> (Arc<Seats>, Vec<Arc<Place>>) {
        let seats = Seats::new(peers.len());
        let places: Vec<_> = peers.iter().map(|peer| seats.try_take(*peer).unwrap()).collect();
        for (place, moved) in places.iter().zip(1..) {
            place.moved.store(moved, Ordering::Relaxed);
            place.note_seen();
        }
        (seats, places)
    }

    fn still(seats: &Seats, place: &Arc<Place>) -> bool {
        seats.lock().iter().any(|other| Arc::ptr_eq(other, place))
    }

    #[test]
    fn longest_idle_one_gives_up() {
        let (seats, places) = full(&[ONE, ONE, ONE]);
        places[0].note_moved();
        seats.try_take(ONE).unwrap();
        assert_eq!(places.iter().map(|place| still(&seats, place)).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(seats.lock().len(), 3);
    }

    #[test]
    fn one_that_waits_for_the_server_keeps_its_seat() {
        let (seats, places) = full(&[ONE, ONE]);
        places.iter().for_each(|place| place.set_busy(true));
        assert!(seats.try_take(ONE).is_none());
        places[1].set_busy(false);
        assert!(seats.try_take(ONE).is_some() && still(&seats, &places[0]) && !still(&seats, &places[1]));
    }

    #[test]
    fn one_that_was_not_looked_at_keeps_its_seat() {
        let (seats, places) = full(&[ONE, ONE]);
        let newcomers = [(); 2].map(|()| seats.try_take(ONE).unwrap());
        assert!(places.iter().all(|place| !still(&seats, place)) && seats.try_take(ONE).is_none());
        newcomers[1].note_seen();
        assert!(
            seats.try_take(ONE).is_some() && still(&seats, &newcomers[0]) && !still(&seats, &newcomers[1])
        );
    }

    #[test]
    fn source_with_more_seats_gives_up() {
        let (seats, places) = full(&[OTHER, ONE, ONE, ONE]);
        seats.try_take(ONE).unwrap();
        seats.try_take(OTHER).unwrap();
        assert!(still(&seats, &places[0]), "it is the oldest, and its source has few");
        let (seats, places) = full(&[OTHER, OTHER, ONE, ONE]);
        seats.try_take(ONE).unwrap();
        assert!(still(&seats, &places[0]) && !still(&seats, &places[2]), "as many: the newcomer counts");
    }

    #[tokio::test]
    async fn newcomer_waits_for_a_seat_that_is_left() {
        let (seats, places) = full(&[ONE]);
        places[0].set_busy(true);
        let waiting = tokio::spawn({
            let seats = Arc::clone(&seats);
            async move { seats.take(OTHER).await.peer }
        });
        tokio::task::yield_now().await;
        places[0].leave();
        assert_eq!(waiting.await.unwrap(), OTHER);
        places[0].leave();
        assert_eq!(seats.lock().len(), 1, "who has left has no seat to leave");
    }
}
