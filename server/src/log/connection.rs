//! Which connection a line is about. Each has an id, and whatever its task logs bears it, however deep that happens.
//!
//! The id belongs to the task and not to a span of tracing's, of which a subscriber keeps some hundred bytes each: a server
//! holds as many as devices, and most never log again.

use std::fmt;
use std::time::Duration;

use crate::clock::Now;

/// Names a connection in the log: unique over restarts too, since no two servers on one machine start in the same second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionId {
    run: u32,
    number: u64,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.run, self.number)
    }
}

/// Gives ids out.
#[derive(Debug)]
pub(crate) struct ConnectionIds(ConnectionId);

impl ConnectionIds {
    /// For a server that started now.
    pub(crate) fn new(now: Now) -> Self {
        let since_1970 = Duration::from_millis(now.utc_ms.max(0).cast_unsigned());
        Self(ConnectionId { run: u32::try_from(since_1970.as_secs()).unwrap_or(0), number: 0 })
    }

    pub(crate) const fn next(&mut self) -> ConnectionId {
        self.0.number += 1;
        self.0
    }
}

tokio::task_local! {
    static CURRENT: Option<ConnectionId>;
}

/// All that `work` logs is about this connection.
pub(crate) fn about<F: Future>(connection: ConnectionId, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(Some(connection), work)
}

/// As [`about`], for what does not wait.
pub(crate) fn about_now<T>(connection: ConnectionId, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(Some(connection), work)
}

/// What `work` logs is about no connection, whoever came upon it.
pub(crate) fn about_none<T>(work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(None, work)
}

/// The connection that this task is about.
pub(crate) fn current() -> Option<ConnectionId> {
    CURRENT.try_with(|current| *current).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn ids_are_counted_from_the_start() {
        let mut ids = ConnectionIds::new(Now { utc_ms: 0x6925_c3ba * 1000 + 999, ..clock::now() });
        assert_eq!(ids.next().to_string(), "6925c3ba-1");
        assert_eq!(ids.next().to_string(), "6925c3ba-2");
    }

    #[tokio::test]
    async fn id_is_the_tasks_own() {
        let mut ids = ConnectionIds::new(clock::now());
        let (one, other) = (ids.next(), ids.next());
        let work = about(one, async move {
            tokio::task::yield_now().await;
            assert_eq!(about_now(other, current), Some(other));
            assert_eq!(about_none(current), None);
            current()
        });
        assert_eq!(tokio::spawn(work).await.unwrap(), Some(one));
        assert_eq!(current(), None);
    }
}
