//! How a connection is told to go: by the registry, by the admission, or by the server that stops.

use std::future::poll_fn;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::session::Cause;

/// One per connection, shared with whoever may end it.
#[derive(Debug, Default)]
pub struct Exit {
    /// Whether an order was given. It is looked at with each heartbeat, when it has long left the processor's caches: a lock would
    /// have everything wait for it.
    given: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Boxed, since every connection keeps room for one and nearly none is given any.
    order: Option<Box<Order>>,
    /// The task that waits: only one does at a time, the connection's.
    waiting: Option<Waker>,
}

/// Go, and why.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Why.
    pub cause: Cause,
    /// The device is not to come back sooner.
    pub retry_after: Duration,
}

impl Exit {
    /// Tells the connection to go. The first order counts.
    pub fn order(&self, cause: Cause, retry_after: Duration) {
        let waiting = {
            let mut state = self.lock();
            state.order.get_or_insert_with(|| Box::new(Order { cause, retry_after }));
            self.given.store(true, Ordering::Release);
            mem::take(&mut state.waiting)
        };
        // Not under the lock: the task may run at once, and look.
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The order, if one was given.
    pub(crate) fn given(&self) -> Option<Order> {
        self.lock().order.as_deref().copied()
    }

    /// Waits for the order.
    pub(crate) async fn ordered(&self) -> Order {
        poll_fn(|context| self.poll_ordered(context)).await
    }

    /// Whether there is an order by now, for a task that is woken when it comes.
    pub(crate) fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    /// The order; the task that asked last is woken when it comes.
    pub(crate) fn poll_ordered(&self, context: &Context<'_>) -> Poll<Order> {
        let mut state = self.lock();
        if let Some(order) = state.order.as_deref() {
            return Poll::Ready(*order);
        }
        if !state.waiting.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waiting = Some(context.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
