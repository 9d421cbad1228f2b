//! How often one source may show a wrong token. Pure: the time is given.
//!
//! A source may be wrong some times at once and then once in a while. When it is wrong more often it waits, and what it
//! shows meanwhile is not looked at. Whoever shares an address with such a source waits with it; the Unix socket has none.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// A source may be wrong so often at once.
const AT_ONCE: u32 = 10;
/// And afterwards once in this time.
const PACE: Duration = Duration::from_secs(6);
/// So many sources are remembered: some 300 KB.
const MAX_SOURCES: usize = 4096;

/// What each source that was wrong lately has still to wait for.
#[derive(Debug, Default)]
pub(super) struct Tries(HashMap<IpAddr, Instant>);

impl Tries {
    /// Whether what `source` shows is looked at.
    ///
    /// # Errors
    /// It was wrong too often: it may try again after this time.
    pub(super) fn may_try(&self, source: IpAddr, now: Instant) -> Result<(), Duration> {
        let Some(clear) = self.0.get(&key(source)) else { return Ok(()) };
        let wait = clear.saturating_duration_since(now + PACE * (AT_ONCE - 1));
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// `source` showed a wrong token.
    pub(super) fn wrong(&mut self, source: IpAddr, now: Instant) {
        let source = key(source);
        if self.0.len() >= MAX_SOURCES && !self.0.contains_key(&source) {
            self.forget_one(now);
        }
        let clear = self.0.entry(source).or_insert(now);
        *clear = (*clear).max(now) + PACE;
    }

    /// Makes room: for all that have nothing to wait for, else by the one that waits for the shortest.
    fn forget_one(&mut self, now: Instant) {
        self.0.retain(|_, clear| *clear > now);
        if self.0.len() >= MAX_SOURCES
            && let Some(first) = self.0.iter().min_by_key(|(_, clear)| **clear).map(|(source, _)| *source)
        {
            self.0.remove(&first);
        }
    }
}

/// Whoever has one IPv6 address has the 64 bits' worth around it.
fn key(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            Ipv6Addr::from(network).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn source_that_is_wrong_too_often_waits_and_others_do_not() {
        let (mut tries, start) = (Tries::default(), clock::now().instant);
        for _ in 0..AT_ONCE {
            assert_eq!(tries.may_try(ONE, start), Ok(()));
            tries.wrong(ONE, start);
        }
        assert_eq!(tries.may_try(ONE, start), Err(PACE));
        assert_eq!(tries.may_try(OTHER, start), Ok(()));
        assert_eq!(tries.may_try(ONE, start + PACE), Ok(()));
        tries.wrong(ONE, start + PACE);
        assert_eq!(tries.may_try(ONE, start + PACE), Err(PACE));
        assert_eq!(tries.may_try(ONE, start + PACE * (AT_ONCE + 2)), Ok(()));
    }

    #[test]
    fn day_of_guessing_is_some_thousand_guesses() {
        let (mut tries, start) = (Tries::default(), clock::now().instant);
        let guesses = (0..86_400).filter(|second| {
            let now = start + Duration::from_secs(*second);
            let may = tries.may_try(ONE, now).is_ok();
            if may {
                tries.wrong(ONE, now);
            }
            may
        });
        assert_eq!(guesses.count(), 86_400 / 6 + 9);
    }

    #[test]
    fn network_of_ipv6_is_one_source() {
        let (mut tries, start) = (Tries::default(), clock::now().instant);
        for n in 0..AT_ONCE {
            tries.wrong(format!("2001:db8::{n}").parse().unwrap(), start);
        }
        assert!(tries.may_try("2001:db8::ffff".parse().unwrap(), start).is_err());
        assert!(tries.may_try("2001:db8:0:1::1".parse().unwrap(), start).is_ok());
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_worst() {
        let (mut tries, start) = (Tries::default(), clock::now().instant);
        for _ in 0..AT_ONCE {
            tries.wrong(ONE, start);
        }
        for n in 0..4200_u32 {
            tries.wrong(IpAddr::from((n + 1).to_be_bytes()), start);
        }
        assert_eq!(tries.0.len(), MAX_SOURCES);
        assert!(tries.may_try(ONE, start).is_err());
        tries.wrong(OTHER, start + PACE * 2);
        assert_eq!(tries.0.len(), 2);
    }
}
