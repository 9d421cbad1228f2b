//! The way from whoever logs to standard error: a bounded heap of whole lines, and a thread that carries it off.
//!
//! Standard error may be a pipe or a journal that stands still, and a write to it then waits. Those who serve devices must
//! not: they put their line on the heap and go on; a line that finds it full is lost, and counted. It knows nothing of what
//! a line says.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// The most that waits: about ten thousand lines. As much again may be on its way.
const HEAP: usize = 1 << 20;

/// How long the first line waits for others to go with it, in one write.
const LINGER: Duration = Duration::from_millis(10);

/// Where lines are put; clones share the heap.
#[derive(Clone)]
pub(super) struct Outlet(Arc<Heap>);

struct Heap {
    state: Mutex<State>,
    room: usize,
    /// There is something to carry off, or nothing more will come.
    filled: Condvar,
    /// Everything was carried off.
    emptied: Condvar,
    /// Told how many lines were lost, once standard error takes lines again.
    on_loss: fn(u64),
    /// Told of each line that is lost, at once.
    count: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    /// Since it was last told.
    lost: u64,
    carrying: bool,
    closed: bool,
}

impl Outlet {
    /// Lines go to `to` from now on. `count` is called for each line that is lost, and `on_loss` with their number when
    /// there is room again; it may log.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn open(
        to: impl Write + Send + 'static,
        count: impl Fn() + Send + Sync + 'static,
        on_loss: fn(u64),
    ) -> io::Result<Self> {
        Self::with_room(HEAP, to, count, on_loss)
    }

    fn with_room(
        room: usize,
        to: impl Write + Send + 'static,
        count: impl Fn() + Send + Sync + 'static,
        on_loss: fn(u64),
    ) -> io::Result<Self> {
        let (filled, emptied) = (Condvar::new(), Condvar::new());
        let state = Mutex::new(State::default());
        let heap = Arc::new(Heap { state, room, filled, emptied, on_loss, count: Box::new(count) });
        let carrier = Arc::clone(&heap);
        thread::Builder::new().name("log".to_owned()).spawn(move || carrier.carry(to))?;
        Ok(Self(heap))
    }

    fn put(&self, line: &[u8]) {
        let mut state = self.0.lock();
        if state.closed || state.lines.len() + line.len() > self.0.room {
            state.lost += 1;
            drop(state);
            return (self.0.count)();
        }
        let tells = state.lines.is_empty() || state.lines.len() > self.0.room / 2;
        state.lines.extend_from_slice(line);
        // Later ones go along: to wake the thread for each would cost more than the line.
        if tells {
            self.0.filled.notify_one();
        }
    }

    /// Waits until everything was carried off, but not longer than `patience`; nothing is taken any more.
    pub(super) fn close(&self, patience: Duration) {
        let mut state = self.0.lock();
        state.closed = true;
        self.0.filled.notify_one();
        let busy = |state: &mut State| state.carrying || !state.lines.is_empty();
        // What it does not take in time is lost, with the process.
        drop(self.0.emptied.wait_timeout_while(state, patience, busy));
    }
}

impl Heap {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: everything that waits, in one write; until the outlet is closed and empty.
    fn carry(&self, mut to: impl Write) {
        let mut lines = Vec::new();
        while let Some(lost) = self.load(&mut lines) {
            // There is nobody to tell when standard error is gone.
            let _ = to.write_all(&lines);
            lines.clear();
            if lost > 0 {
                (self.on_loss)(lost);
            }
        }
    }

    /// Waits for lines and exchanges them for the empty `lines`; returns how many were lost behind them.
    fn load(&self, lines: &mut Vec<u8>) -> Option<u64> {
        let mut state = self.lock();
        state.carrying = false;
        self.emptied.notify_all();
        let idle = |state: &mut State| state.lines.is_empty() && !state.closed;
        let state = self.filled.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        if state.lines.is_empty() {
            return None;
        }
        let few = |state: &mut State| state.lines.len() <= self.room / 2 && !state.closed;
        let waited = self.filled.wait_timeout_while(state, LINGER, few);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut state.lines, lines);
        state.carrying = true;
        Some(mem::take(&mut state.lost))
    }
}

/// What the subscriber writes one whole line to.
impl Write for Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'o> MakeWriter<'o> for Outlet {
    type Writer = Self;

    fn make_writer(&'o self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, pipe};
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn lines_come_whole_and_in_order() {
        let (mut reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::with_room(HEAP, writer, || (), |_| ()).unwrap();
        for line in ["one\n", "two\n", "three\n"] {
            outlet.write_all(line.as_bytes()).unwrap();
        }
        outlet.close(PATIENCE);
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "one\ntwo\nthree\n");
    }

    #[test]
    fn full_heap_loses_lines_and_counts_them() {
        static TOLD: AtomicU64 = AtomicU64::new(0);
        let counted = Arc::new(AtomicU64::new(0));
        let count = {
            let counted = Arc::clone(&counted);
            move || {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        };
        let on_loss = |lost| {
            TOLD.fetch_add(lost, Ordering::Relaxed);
        };
        let (mut reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::with_room(1000, writer, count, on_loss).unwrap();
        // More than pipe and heap take together, while nobody reads: this would never end if it waited.
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        for _ in 0..2000 {
            outlet.write_all(&line).unwrap();
        }
        let lost = counted.load(Ordering::Relaxed);
        assert!(lost > 1000, "{lost}");
        let reading = thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).map(|_| read)
        });
        outlet.close(PATIENCE);
        let read = reading.join().unwrap().unwrap();
        assert_eq!(read.len() as u64, (2000 - lost) * 100, "what was not lost came whole");
        assert_eq!(TOLD.load(Ordering::Relaxed), lost);
    }

    #[test]
    fn end_does_not_wait_for_a_reader_that_never_comes() {
        let (_reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::with_room(HEAP, writer, || (), |_| ()).unwrap();
        outlet.write_all(&[b'x'; 1 << 19]).unwrap();
        outlet.close(Duration::from_millis(10));
    }
}
