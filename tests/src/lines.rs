//! Lines that come from elsewhere, kept, and waited for without watching the clock.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What was heard so far.
#[derive(Default)]
pub(crate) struct Lines {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
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
    pub(crate) fn open(&self) {
        self.state().open += 1;
    }

    /// A source says something.
    pub(crate) fn push(&self, line: String) {
        self.state().lines.push(line);
        self.grown.notify_all();
    }

    /// A source has ended.
    pub(crate) fn close(&self) {
        self.state().open -= 1;
        self.grown.notify_all();
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.state().lines.clone()
    }

    /// The first line from `next` on of which `pick` makes something; moves `next` behind all that it was shown.
    pub(crate) fn find<T>(
        &self,
        next: &mut usize,
        patience: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Found<T> {
        let mut found = None;
        let state = self.wait_while(patience, |state| {
            while found.is_none()
                && let Some(line) = state.lines.get(*next)
            {
                found = pick(line);
                *next += 1;
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
