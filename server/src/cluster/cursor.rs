//! How far events were posted by the webhook, for all nodes together: one of them posts at a time. Its turn lasts as long as it
//! says how far it has come; when it falls silent, or its receiver is out of its reach, another goes on from there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::nats::{Nats, NatsError};
use super::{Cluster, wire};
use crate::clock;
use crate::webhook::SharedCursor;

/// Of the bucket of the nodes.
const KEY: &str = "webhook";
/// Who has its turn and says nothing for so long has lost it: longer than a request may take.
const TURN: Duration = Duration::from_secs(15);
/// Who has it says so this often.
const RENEWED: Duration = Duration::from_secs(5);

/// What the bucket holds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Turn {
    /// The last event that needs no posting any more.
    at: i64,
    /// Whose turn it is.
    node: u8,
}

/// The cursor as one node has it.
struct Shared {
    nats: Arc<Nats>,
    runtime: Handle,
    turns: Turns,
}

/// Whose turn it is, as far as one node knows. Pure.
struct Turns {
    node: u8,
    /// Whether it was this node's when it was looked last.
    is_own: bool,
    /// How far this node has posted, whether that was told or not.
    at: i64,
    /// The revision that was seen last, and since when.
    seen: (u64, Instant),
}

/// What a node does about its turn.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It posts.
    Post,
    /// It says that it has come so far, and posts.
    Say(Turn),
    /// It waits.
    Wait,
}

impl Cluster {
    /// How far events were posted, for the webhook.
    #[must_use]
    pub fn cursor(&self) -> Box<dyn SharedCursor> {
        let seen = (0, clock::now().instant);
        let turns = Turns { node: self.number, is_own: false, at: 0, seen };
        Box::new(Shared { nats: Arc::clone(&self.nats), runtime: Handle::current(), turns })
    }
}

impl Turns {
    /// The bucket holds this at this revision, and the last event is `newest`.
    fn next(&mut self, held: Option<Turn>, revision: u64, newest: i64, now: Instant) -> Next {
        if self.seen.0 != revision {
            self.seen = (revision, now);
        }
        let silent = now.saturating_duration_since(self.seen.1);
        let mine = |at| Next::Say(Turn { at, node: self.node });
        match held {
            // From now on.
            None => mine(newest),
            Some(turn) if turn.node == self.node => {
                // NATS may have been set back, or did not take what this node said last.
                let at = turn.at.max(if self.is_own { self.at } else { 0 }).min(newest);
                if self.is_own && at == turn.at && silent < RENEWED { Next::Post } else { mine(at) }
            }
            Some(turn) if silent >= TURN => mine(turn.at.min(newest)),
            Some(_) => Next::Wait,
        }
    }
}

impl Shared {
    async fn look(&mut self) -> Result<Option<i64>, NatsError> {
        let (held, revision) = self.nats.said(KEY).await?;
        let held = held.and_then(|word| serde_json::from_slice(&word).ok());
        let newest = self.nats.last_event().await?.cast_signed();
        let was_own = self.turns.is_own;
        self.turns.is_own = match self.turns.next(held, revision, newest, clock::now().instant) {
            Next::Post => true,
            Next::Say(turn) => {
                self.turns.at = turn.at;
                self.say(turn, revision).await?
            }
            Next::Wait => false,
        };
        if self.turns.is_own && !was_own {
            tracing::info!("it is this node that posts events from now on, those after {}", self.turns.at);
        }
        Ok(self.turns.is_own.then_some(self.turns.at))
    }

    async fn say(&self, turn: Turn, over: u64) -> Result<bool, NatsError> {
        self.nats.say_over(KEY, wire::write(&turn), over).await
    }
}

impl SharedCursor for Shared {
    fn take(&mut self) -> Result<Option<i64>, String> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.look()).map_err(|fault| format!("NATS: {fault}"))
    }

    fn keep(&mut self, at: i64) -> Result<(), String> {
        self.turns.at = at;
        let told = |fault: NatsError| format!("NATS: {fault}");
        let said = self.runtime.block_on(async {
            let (held, revision) = self.nats.said(KEY).await?;
            let held: Option<Turn> = held.and_then(|word| serde_json::from_slice(&word).ok());
            let node = self.turns.node;
            Ok(held.is_some_and(|held| held.node == node) && self.say(Turn { at, node }, revision).await?)
        });
        if !said.map_err(told)? {
            self.turns.is_own = false;
            return Err("another node has its turn by now".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u8 = 2;

    fn turns(is_own: bool, at: i64, start: Instant) -> Turns {
        Turns { node: OWN, is_own, at, seen: (7, start) }
    }

    fn say(at: i64) -> Next {
        Next::Say(Turn { at, node: OWN })
    }

    #[test]
    fn first_of_all_begins_with_what_happens_from_now_on() {
        let start = clock::now().instant;
        assert_eq!(turns(false, 0, start).next(None, 0, 40, start), say(40));
    }

    #[test]
    fn turn_of_another_is_taken_when_it_falls_silent() {
        let start = clock::now().instant;
        let (mut turns, other) = (turns(false, 0, start), Some(Turn { at: 30, node: 1 }));
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(turns.next(other, 7, 40, after(14)), Next::Wait);
        assert_eq!(turns.next(other, 8, 40, after(16)), Next::Wait, "it is there");
        assert_eq!(turns.next(other, 8, 40, after(30)), Next::Wait);
        assert_eq!(turns.next(other, 8, 40, after(31)), say(30));
    }

    #[test]
    fn own_turn_is_renewed_and_goes_on_where_it_was() {
        let start = clock::now().instant;
        let own = Some(Turn { at: 30, node: OWN });
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(turns(true, 30, start).next(own, 7, 40, after(4)), Next::Post);
        assert_eq!(turns(true, 30, start).next(own, 7, 40, after(5)), say(30));
        assert_eq!(turns(true, 35, start).next(own, 7, 40, after(1)), say(35), "it was not told");
        assert_eq!(
            turns(false, 0, start).next(own, 7, 40, after(1)),
            say(30),
            "a node that was started again"
        );
        assert_eq!(turns(true, 30, start).next(own, 7, 20, after(1)), say(20), "NATS was set back");
    }
}
