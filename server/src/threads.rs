//! The threads that sessions live on, one for each core, and those that operators have; those that shake hands are others.
//!
//! A handshake computes for a while, and thousands of them may wait; a heartbeat wants its answer now. On threads of their
//! own the kernel gives sessions their turn, whatever waits elsewhere. Each session's thread works alone: idle ones that wake each
//! other to share what there is to do cost a heartbeat a third more than one that does it at once.
//!
//! To be woken for each session that comes would cost a thread, and the handshakes beside it, some 20 µs each time. So it takes in
//! together whoever came within [`GATHERING`]; a device waits as long for its Welcome then. Nor is it woken for each heartbeat, where
//! many come: see `pace`.

mod pace;

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use pace::Pace;

/// For operators: one that is busy must not keep another waiting.
const OPERATORS: usize = 2;

/// How many are taken in before others on the thread have their turn.
const AT_A_TIME: usize = 64;

/// How long newcomers may wait for others.
const GATHERING: Duration = Duration::from_millis(5);

/// See the module. Whatever still lives on them ends with the value.
pub struct Threads {
    sessions: Vec<Apart>,
    operators: Apart,
}

/// Tasks on a thread or threads of their own, until this is dropped.
struct Apart {
    handle: Handle,
    /// Dropped to end it.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The sessions' threads, as whoever has a session to be lived knows them.
pub struct Homes<T> {
    /// As many wait as there are descriptors for, and no longer than [`GATHERING`].
    doors: Vec<UnboundedSender<T>>,
    next: AtomicUsize,
}

impl Threads {
    /// So many for sessions, and at least one.
    ///
    /// # Errors
    /// The operating system has none to give.
    pub fn start(sessions: usize) -> io::Result<Self> {
        let alone = |_| {
            let alone = Builder::new_current_thread().enable_all().on_thread_park(pause).build()?;
            Apart::start("sessions", alone)
        };
        let sessions = (0..sessions.max(1)).map(alone).collect::<Result<_, _>>()?;
        let mut together = Builder::new_multi_thread();
        let operators = together.worker_threads(OPERATORS).thread_name("operators").enable_all().build()?;
        Ok(Self { sessions, operators: Apart::start("operators", operators)? })
    }

    /// Those for sessions, each of which `live` brings to life on the thread that it is called on.
    #[must_use]
    pub fn homes<T: Send + 'static>(&self, live: fn(T)) -> Homes<T> {
        let open = |thread: &Apart| {
            let (door, newcomers) = unbounded_channel();
            thread.handle.spawn(take_in(newcomers, live));
            door
        };
        Homes { doors: self.sessions.iter().map(open).collect(), next: AtomicUsize::new(0) }
    }

    /// Those for operators.
    #[must_use]
    pub const fn operators(&self) -> &Handle {
        &self.operators.handle
    }
}

impl<T> Homes<T> {
    /// Brings `newcomer` to life soon, on the thread whose turn it is. At the end of the server it is dropped instead.
    pub(crate) fn settle(&self, newcomer: T) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        // There is at least one. What a door that is shut gives back is dropped.
        let _ = self.doors[turn % self.doors.len()].send(newcomer);
    }
}

thread_local! {
    /// Of the sessions that live on this thread.
    static PACE: Cell<Pace> = const { Cell::new(Pace::NEW) };
}

/// Says that a session of this thread was sent something.
pub(crate) fn worked() {
    PACE.set(PACE.get().worked());
}

/// Before a thread of sessions waits.
#[expect(
    clippy::disallowed_methods,
    reason = "the thread has nothing to do, and is to have more when it looks again"
)]
fn pause() {
    let (pace, pause) = PACE.get().rest(clock::now().instant);
    pause.into_iter().for_each(thread::sleep);
    PACE.set(pace);
}

async fn take_in<T>(mut newcomers: UnboundedReceiver<T>, live: fn(T)) {
    let mut gathering = interval(GATHERING);
    gathering.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut come = Vec::new();
    // The first of them finds the interval over, and waits for nobody.
    while newcomers.recv_many(&mut come, AT_A_TIME).await > 0 {
        for newcomer in come.drain(..) {
            // One that panics takes nobody along, as in a task of its own; the panic is told by its hook.
            drop(catch_unwind(AssertUnwindSafe(|| live(newcomer))));
        }
        if newcomers.is_empty() {
            gathering.tick().await;
        }
    }
}

impl Apart {
    fn start(name: &str, runtime: Runtime) -> io::Result<Self> {
        let (handle, (end, ended)) = (runtime.handle().clone(), oneshot::channel::<()>());
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            // It is never sent on.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { handle, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Apart {
    /// Waits for it: what its tasks hold, as the operators' socket file, is given up before the process ends.
    fn drop(&mut self) {
        drop(self.end.take());
        // One that panicked has given up what it held too.
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use tokio::runtime::Id;

    use super::*;

    #[test]
    fn sessions_are_spread_and_operators_apart() {
        let threads = Threads::start(2).unwrap();
        let homes = threads.homes(|tell: Sender<Id>| tell.send(Handle::current().id()).unwrap());
        let (tell, told) = channel();
        let ids = [(); 4].map(|()| {
            homes.settle(tell.clone());
            told.recv().unwrap()
        });
        assert_eq!((ids[0], ids[1]), (ids[2], ids[3]));
        assert_ne!(ids[0], ids[1]);
        assert!(!ids.contains(&threads.operators().id()));
    }

    #[test]
    fn whoever_comes_together_is_taken_in_in_order() {
        let threads = Threads::start(1).unwrap();
        let homes = threads.homes(|(number, tell): (usize, Sender<usize>)| tell.send(number).unwrap());
        let (tell, told) = channel();
        (0..1000).for_each(|number| homes.settle((number, tell.clone())));
        drop(tell);
        assert!(told.iter().eq(0..1000));
    }

    #[test]
    fn newcomer_that_panics_takes_nobody_along() {
        let threads = Threads::start(1).unwrap();
        let homes = threads.homes(|tell: Option<Sender<()>>| tell.unwrap().send(()).unwrap());
        let (tell, told) = channel();
        homes.settle(None);
        homes.settle(Some(tell));
        assert_eq!(told.recv(), Ok(()));
    }

    #[test]
    fn what_lives_on_them_ends_with_them() {
        let threads = Threads::start(1).unwrap();
        let homes = threads.homes(|held: Sender<()>| {
            tokio::spawn(async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
        });
        let (held, ended) = channel();
        homes.settle(held.clone());
        drop(threads);
        homes.settle(held);
        assert!(ended.recv().is_err(), "the task was dropped, and so was whoever came late");
    }
}
