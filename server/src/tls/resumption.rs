//! The sessions that devices may resume: what a ticket stands for, kept here and never sent. Bounded in number and in time.
//!
//! A ticket serves once, since it is taken out when it is used, and each resumed handshake brings the next. It is good for
//! a day, which is what rustls tells the device. A chain of them ends: a week after the full handshake that it began with,
//! or with the device's certificate, a full handshake is due, in which the device proves again that it holds its key.
//!
//! rustls asks for sessions, and hands them over, without a word about the connection. So the [`Origin`] of a connection is
//! passed on by the thread: a step is synchronous, and `pump.rs` lays the origin down before one and picks it up after it.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::server::StoresServerSessions;
use rustls::time_provider::TimeProvider;

/// How long a ticket is good for, seconds: rustls tells devices a day (RFC 8446 section 4.6.1 allows seven).
const LIFETIME_S: u64 = 24 * 60 * 60;

/// How long after a full handshake the last ticket that came of it is good for, seconds.
const WHOLE_LIFE_S: u64 = 7 * LIFETIME_S;

/// What a chain of resumptions goes back to, UTC seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// When the device last proved that it holds its key.
    pub(super) full_handshake_s: u64,
    /// When its certificate expires.
    pub(super) not_after_s: u64,
    /// Who found then that it is to be trusted, until it expires; `None`: that may end sooner.
    pub(super) verifier: Option<u64>,
}

thread_local! {
    static ORIGIN: Cell<Option<Origin>> = const { Cell::new(None) };
}

/// Says, or takes back, what the step that runs on this thread goes back to.
pub(super) fn exchange(origin: Option<Origin>) -> Option<Origin> {
    ORIGIN.replace(origin)
}

/// The sessions of the whole server.
pub(super) struct Sessions {
    most: usize,
    clock: Arc<dyn TimeProvider>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_id: HashMap<Id, Session>,
    /// In the order they were kept in, so that the first is the oldest.
    in_order: BTreeMap<u64, Id>,
    next: u64,
}

/// What rustls calls a session by.
type Id = [u8; 32];

struct Session {
    place: u64,
    /// rustls's own words: secret, chain of certificates, protocol.
    value: Box<[u8]>,
    kept_at_s: u64,
    origin: Origin,
}

impl Sessions {
    /// Keeps so many, and the latest of them; none with 0.
    pub(super) fn new(most: usize, clock: Arc<dyn TimeProvider>) -> Self {
        Self { most, clock, kept: Mutex::new(Kept::default()) }
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    pub(super) fn clock(&self) -> Arc<dyn TimeProvider> {
        Arc::clone(&self.clock)
    }

    fn now_s(&self) -> Option<u64> {
        self.clock.current_time().map(|now| now.as_secs())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a session to the step that asked for it, if it is still good.
    fn hand_out(&self, session: &Session) -> bool {
        let good = self.now_s().is_some_and(|now_s| session.is_good(now_s));
        if good {
            exchange(Some(session.origin));
        }
        good
    }
}

impl Session {
    fn is_good(&self, now_s: u64) -> bool {
        let Origin { full_handshake_s, not_after_s, verifier: _ } = self.origin;
        // A clock that was set back proves nothing about the time that has passed.
        let within = |since: u64, most| (since..=since.saturating_add(most)).contains(&now_s);
        within(self.kept_at_s, LIFETIME_S) && within(full_handshake_s, WHOLE_LIFE_S) && now_s <= not_after_s
    }
}

impl Kept {
    fn put(&mut self, id: Id, session: Session) {
        self.in_order.insert(session.place, id);
        if let Some(older) = self.by_id.insert(id, session) {
            self.in_order.remove(&older.place);
        }
    }

    fn take(&mut self, id: &Id) -> Option<Session> {
        let session = self.by_id.remove(id)?;
        self.in_order.remove(&session.place);
        Some(session)
    }

    fn drop_oldest(&mut self) {
        if let Some((_, id)) = self.in_order.pop_first() {
            self.by_id.remove(&id);
        }
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, value: Vec<u8>) -> bool {
        let (Some(origin), Some(kept_at_s)) = (ORIGIN.get(), self.now_s()) else { return false };
        // One that is called otherwise is none of rustls's.
        let Ok(id) = Id::try_from(id) else { return false };
        if self.most == 0 {
            return false;
        }
        // It was written piece by piece, into twice the room that it takes.
        let value = value.into_boxed_slice();
        let mut kept = self.lock();
        let place = kept.next;
        kept.next += 1;
        kept.put(id, Session { place, value, kept_at_s, origin });
        while kept.by_id.len() > self.most {
            kept.drop_oldest();
        }
        true
    }

    /// TLS 1.2 alone asks so: its sessions can be resumed more than once, within the same time.
    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        let kept = self.lock();
        let session = kept.by_id.get(id).filter(|session| self.hand_out(session))?;
        Some(session.value.to_vec())
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        let session = self.lock().take(id.try_into().ok()?)?;
        self.hand_out(&session).then(|| session.value.into_vec())
    }

    fn can_cache(&self) -> bool {
        self.most > 0
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of what is in it: these are secrets.
        f.debug_struct("Sessions").field("most", &self.most).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::UnixTime;

    use super::*;

    #[derive(Debug)]
    struct At(u64);

    impl TimeProvider for At {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
        }
    }

    const NOW: u64 = 1_764_000_000;

    fn id(number: u32) -> Vec<u8> {
        [number.to_be_bytes(); 8].concat()
    }

    fn origin(full_handshake_s: u64) -> Origin {
        Origin { full_handshake_s, not_after_s: u64::MAX, verifier: None }
    }

    #[test]
    fn oldest_go_and_nothing_is_left_of_them() {
        let sessions = Sessions::new(100, Arc::new(At(NOW)));
        exchange(Some(origin(NOW)));
        for n in 0..1000_u32 {
            assert!(sessions.put(id(n), vec![7]));
            if n % 3 == 0 {
                assert!(sessions.take(&id(n)).is_some());
            }
        }
        // One that comes again under its old name is one.
        sessions.put(id(999), vec![8]);
        let kept = sessions.lock();
        assert_eq!((kept.by_id.len(), kept.in_order.len()), (100, 100));
        drop(kept);
        assert!(sessions.take(&id(800)).is_none());
        assert!(sessions.take(&id(998)).is_some());
    }

    #[test]
    fn session_without_an_origin_is_not_kept() {
        let sessions = Sessions::new(100, Arc::new(At(NOW)));
        exchange(None);
        assert!(!sessions.put(id(1), vec![7]));
        assert!(!Sessions::new(0, Arc::new(At(NOW))).can_cache());
    }

    #[test]
    fn clock_that_was_set_back_makes_no_session_good() {
        let session = Session { place: 0, value: Box::default(), kept_at_s: NOW, origin: origin(NOW) };
        assert!(session.is_good(NOW) && session.is_good(NOW + LIFETIME_S));
        assert!(!session.is_good(NOW - 1) && !session.is_good(NOW + LIFETIME_S + 1));
    }
}
