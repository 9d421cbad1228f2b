//! Turns: who may work on a handshake, as the connections share it. The shell around `turns/queue.rs`, which decides.
//!
//! A turn is held for one synchronous step over bytes that are already there, never while a peer is waited for. It is
//! given back when it is dropped, wherever that happens: so no turn is ever lost, and the queue cannot come to a halt.

mod familiar;
mod queue;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::admission::{Source, source};
use crate::capacity::Capacity;
use familiar::Familiar;
use queue::Queue;

/// How long a device may be left waiting for its turn: about what it waits itself before it gives the server up. Work for
/// those who have gone already is how a server in a storm comes to a halt.
const PATIENCE: Duration = Duration::from_secs(10);

/// The queue's bound is what can be done in [`PATIENCE`], and no less than this.
const LEAST_BOUND: usize = 64;

/// All turns of the server.
#[derive(Debug)]
pub struct Turns {
    books: Mutex<Books>,
    capacity: Arc<Capacity>,
}

#[derive(Debug)]
struct Books {
    free: usize,
    /// Handshakes that go on: whoever has begun one is served first, or the work on it was for nothing.
    begun: VecDeque<oneshot::Sender<Turn>>,
    queue: Queue<oneshot::Sender<Turn>>,
    familiar: Familiar,
}

/// The right to compute; it goes on to the next one when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Option<Arc<Turns>>);

/// There are too many, and this one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overload;

impl Turns {
    /// So many at a time.
    #[must_use]
    pub fn new(parallel: usize, capacity: Arc<Capacity>) -> Arc<Self> {
        let books = Books {
            free: parallel,
            begun: VecDeque::new(),
            queue: Queue::default(),
            familiar: Familiar::default(),
        };
        Arc::new(Self { books: Mutex::new(books), capacity })
    }

    /// Waits for the turn to begin a handshake.
    ///
    /// # Errors
    /// There are more than can be served in time, and this is one of those who go.
    pub(crate) async fn begin(self: &Arc<Self>, address: IpAddr) -> Result<Turn, Overload> {
        let source = source(address);
        let turn = {
            let mut books = self.lock();
            if books.take() {
                return Ok(Turn(Some(Arc::clone(self))));
            }
            let (sender, turn) = oneshot::channel();
            let familiar = books.familiar.contains(source);
            let seat = books.queue.push(source, familiar, sender);
            if books.queue.len() > self.bound() {
                // Dropped, it tells its connection.
                drop(books.queue.evict());
            }
            Waiting { turns: self, source, seat, turn }
        };
        turn.wait().await
    }

    /// Waits for the turn to go on with a handshake.
    pub(crate) async fn go_on(self: &Arc<Self>) -> Turn {
        let turn = {
            let mut books = self.lock();
            if books.take() {
                return Turn(Some(Arc::clone(self)));
            }
            let (sender, turn) = oneshot::channel();
            books.begun.push_back(sender);
            turn
        };
        // Nobody drops these senders but by sending.
        turn.await.unwrap_or(Turn(None))
    }

    /// A device registered from there: its neighbours are no strangers from now on.
    pub(crate) fn welcome(&self, address: IpAddr) {
        let mut books = self.lock();
        let source = source(address);
        if books.familiar.insert(source) {
            books.queue.befriend(source);
        }
    }

    /// How many wait for the turn to begin.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().queue.len()
    }

    /// From how many sources devices registered lately.
    pub(crate) fn familiar_sources(&self) -> usize {
        self.lock().familiar.len()
    }

    fn bound(&self) -> usize {
        let in_time = u64::from(self.capacity.per_second()) * PATIENCE.as_secs();
        usize::try_from(in_time).unwrap_or(usize::MAX).max(LEAST_BOUND)
    }

    /// Gives a turn on; it is nobody's when nobody waits.
    fn pass_on(self: Arc<Self>) {
        loop {
            let next = {
                let mut books = self.lock();
                let next = books.begun.pop_front().or_else(|| books.queue.pop());
                if next.is_none() {
                    books.free += 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(Turn(Some(Arc::clone(&self)))) {
                Ok(()) => return,
                // Gone meanwhile: the turn is still in hand, and goes to another.
                Err(mut turn) => drop(turn.0.take()),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn take(&mut self) -> bool {
        let free = self.free > 0;
        self.free -= usize::from(free);
        free
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

/// A place in the queue, which is given up with the value.
struct Waiting<'t> {
    turns: &'t Arc<Turns>,
    source: Source,
    seat: u64,
    turn: oneshot::Receiver<Turn>,
}

impl Waiting<'_> {
    async fn wait(mut self) -> Result<Turn, Overload> {
        match timeout(PATIENCE, &mut self.turn).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Overload),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // A turn that was given this instant goes on when the receiver is dropped.
        let left = self.turns.lock().queue.remove(self.source, self.seat);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Turns {
        /// The one turn is free, and nobody waits.
        fn is_idle(&self) -> bool {
            let books = self.lock();
            books.free == 1 && books.begun.is_empty() && books.queue.len() == 0
        }
    }

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn turns() -> Arc<Turns> {
        Turns::new(1, Arc::new(Capacity::new(1)))
    }

    #[tokio::test]
    async fn turn_comes_back_from_whoever_gives_up() {
        let turns = turns();
        let held = turns.begin(HOME).await.unwrap();
        // Waits, and goes before its turn comes.
        let mut gone = Box::pin(turns.begin(HOME));
        assert!(futures_pending(&mut gone).await);
        let mut stays = Box::pin(turns.begin(HOME));
        assert!(futures_pending(&mut stays).await);
        drop(gone);
        drop(held);
        let turn = stays.await.unwrap();
        drop(turn);
        assert!(turns.is_idle());
    }

    #[tokio::test]
    async fn what_has_begun_goes_on_first() {
        let turns = turns();
        let held = turns.begin(HOME).await.unwrap();
        let mut newcomer = Box::pin(turns.begin(HOME));
        assert!(futures_pending(&mut newcomer).await);
        let mut begun = Box::pin(turns.go_on());
        assert!(futures_pending(&mut begun).await);
        drop(held);
        drop(begun.await);
        drop(newcomer.await.unwrap());
    }

    #[tokio::test]
    async fn turn_that_was_given_and_not_taken_is_not_lost() {
        let turns = turns();
        let held = turns.begin(HOME).await.unwrap();
        let mut given = Box::pin(turns.begin(HOME));
        assert!(futures_pending(&mut given).await);
        drop(held);
        // Given, and its connection ends in the same instant.
        drop(given);
        drop(turns.begin(HOME).await.unwrap());
        assert!(turns.is_idle());
    }

    #[tokio::test]
    async fn one_too_many_is_told_at_once() {
        let turns = turns();
        let held = turns.begin(HOME).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..turns.bound() {
            let mut one = Box::pin(turns.begin(HOME));
            assert!(futures_pending(&mut one).await);
            waiting.push(one);
        }
        assert_eq!(turns.waiting(), turns.bound());
        assert_eq!(turns.begin(HOME).await.err(), Some(Overload), "the newest of the only line");
        drop(held);
        for one in waiting {
            drop(one.await.unwrap());
        }
        assert!(turns.is_idle());
    }

    /// Whether a future still waits after it was asked once.
    async fn futures_pending<F: Future + Unpin>(future: &mut F) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = std::future::ready(()) => true,
        }
    }
}
