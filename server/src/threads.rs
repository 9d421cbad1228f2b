//! The threads that sessions live on, one for each core, and those that operators have; those that shake hands are others.
//!
//! A handshake computes for a while, and thousands of them may wait; a heartbeat wants its answer now. On threads of their
//! own the kernel gives sessions their turn, whatever waits elsewhere. Each session's thread works alone: idle ones that wake each
//! other to share what there is to do cost a heartbeat a third more than one that does it at once.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// For operators: one that is busy must not keep another waiting.
const OPERATORS: usize = 2;

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
pub struct Homes {
    handles: Vec<Handle>,
    next: AtomicUsize,
}

impl Threads {
    /// So many for sessions, and at least one.
    ///
    /// # Errors
    /// The operating system has none to give.
    pub fn start(sessions: usize) -> io::Result<Self> {
        let alone = |_| Apart::start("sessions", Builder::new_current_thread().enable_all().build()?);
        let sessions = (0..sessions.max(1)).map(alone).collect::<Result<_, _>>()?;
        let mut together = Builder::new_multi_thread();
        let operators = together.worker_threads(OPERATORS).thread_name("operators").enable_all().build()?;
        Ok(Self { sessions, operators: Apart::start("operators", operators)? })
    }

    /// Those for sessions.
    #[must_use]
    pub fn homes(&self) -> Homes {
        let handles = self.sessions.iter().map(|thread| thread.handle.clone()).collect();
        Homes { handles, next: AtomicUsize::new(0) }
    }

    /// Those for operators.
    #[must_use]
    pub const fn operators(&self) -> &Handle {
        &self.operators.handle
    }
}

impl Homes {
    /// Where the next session is to live. They are all alike, so each in turn.
    pub(crate) fn next(&self) -> &Handle {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        // There is at least one.
        &self.handles[turn % self.handles.len()]
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
    use super::*;

    #[test]
    fn sessions_are_spread_and_operators_apart() {
        let threads = Threads::start(2).unwrap();
        let homes = threads.homes();
        let ids = [(); 4].map(|()| homes.next().id());
        assert_eq!((ids[0], ids[1]), (ids[2], ids[3]));
        assert_ne!(ids[0], ids[1]);
        assert!(!ids.contains(&threads.operators().id()));
    }

    #[test]
    fn what_lives_on_them_ends_with_them() {
        let threads = Threads::start(1).unwrap();
        let (held, ended) = std::sync::mpsc::channel::<()>();
        threads.homes().next().spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(threads);
        assert!(ended.recv().is_err(), "the task was dropped");
    }
}
