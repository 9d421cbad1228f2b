//! How a connection is told to go: by the registry, by the admission, or by the server that stops.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::session::Cause;

/// One per connection, shared with whoever may end it.
#[derive(Debug, Default)]
pub struct Exit {
    order: Mutex<Option<Order>>,
    notify: Notify,
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
        self.order.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(Order { cause, retry_after });
        self.notify.notify_one();
    }

    /// The order, if one was given.
    pub(crate) fn given(&self) -> Option<Order> {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the order.
    pub(crate) async fn ordered(&self) -> Order {
        loop {
            if let Some(order) = self.given() {
                return order;
            }
            self.notify.notified().await;
        }
    }
}
