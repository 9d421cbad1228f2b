//! How a connection is told to go: by the registry, by the admission, or by the server that stops.

use std::sync::Mutex;
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
        let mut order = self.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        order.get_or_insert(Order { cause, retry_after });
        drop(order);
        self.notify.notify_one();
    }

    /// Waits for the order.
    pub(crate) async fn ordered(&self) -> Order {
        loop {
            let order = *self.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match order {
                Some(order) => return order,
                None => self.notify.notified().await,
            }
        }
    }
}
