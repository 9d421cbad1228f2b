//! Lines that come from elsewhere, kept, and waited for without watching the clock.
//!
//! Several sources may speak at once, and which of two is heard first says nothing. So a search goes on where the last
//! one of the same source ended.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Of which source a line is: the order in which [`Lines::open`] was called, from 0.
pub(crate) type Source = usize;

/// What was heard so far.
#[derive(Default)]
pub(crate) struct Lines {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<(Source, String)>,
    opened: usize,
    /// Sources that may still say something.
    open: usize,
}

/// What came of a search.
pub(crate) enum Found<T> {
    /// A line was taken.
    Yes(T),
    /// Every source has ended.
    Ended,
    /// Nothing came in time.
    Silent,
}

impl Lines {
    /// One more source.
    pub(crate) fn open(&self) -> Source {
        let mut state = self.state();
        state.open += 1;
        state.opened += 1;
        state.opened - 1
    }

    /// A source says something.
    pub(crate) fn push(&self, source: Source, line: String) {
        self.state().lines.push((source, line));
        self.grown.notify_all();
    }

    /// A source has ended.
    pub(crate) fn close(&self) {
        self.state().open -= 1;
        self.grown.notify_all();
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.state().lines.iter().map(|(_, line)| line.clone()).collect()
    }

    /// The first line of which `pick` makes something and that is not before its source's place in `next`; moves that
    /// place behind it.
    pub(crate) fn find<T>(
        &self,
        next: &mut [usize],
        patience: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Found<T> {
        let (mut found, mut at) = (None, 0);
        let state = self.wait_while(patience, |state| {
            while found.is_none()
                && let Some((source, line)) = state.lines.get(at)
            {
                at += 1;
                if let Some(place) = next.get_mut(*source).filter(|place| at > **place) {
                    found = pick(line);
                    if found.is_some() {
                        *place = at;
                    }
                }
            }
            found.is_none() && state.open > 0
        });
        match found {
            Some(found) => Found::Yes(found),
            None if state.open == 0 => Found::Ended,
            None => Found::Silent,
        }
    }

    /// Waits until every source has ended, but not longer than `patience`.
    pub(crate) fn wait_end(&self, patience: Duration) {
        drop(self.wait_while(patience, |state| state.open > 0));
    }

    fn wait_while(
        &self,
        patience: Duration,
        condition: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'_, State> {
        let waited = self.grown.wait_timeout_while(self.state(), patience, condition);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
