//! The gate in force: who is let through, and who was wrong too often.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tracing::warn;

use super::Access;
use super::tries::Tries;
use crate::clock;
use crate::metrics::OperatorMetrics;
use crate::refusals::Refusals;

/// See the module.
pub(crate) struct Gate {
    access: ArcSwap<Access>,
    tries: Mutex<Tries>,
    told: Refusals,
    metrics: OperatorMetrics,
}

/// Why somebody is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No token was shown.
    NoToken,
    /// A wrong one was.
    WrongToken,
    /// It was not looked at: there were too many wrong ones from there. It is, after so long.
    TooMany(Duration),
}

impl Gate {
    pub(crate) fn new(access: Access, metrics: OperatorMetrics) -> Arc<Self> {
        Arc::new(Self {
            access: ArcSwap::from_pointee(access),
            tries: Mutex::default(),
            told: Refusals::default(),
            metrics,
        })
    }

    /// From now on this is in force.
    pub(crate) fn renew(&self, access: Access) {
        self.access.store(Arc::new(access));
    }

    pub(crate) fn access(&self) -> Guard<Arc<Access>> {
        self.access.load()
    }

    pub(crate) const fn metrics(&self) -> &OperatorMetrics {
        &self.metrics
    }

    /// Judges an `Authorization` from `source`, where a token is asked for.
    pub(crate) fn judge(&self, authorization: Option<&[u8]>, source: IpAddr) -> Result<(), Refused> {
        let access = self.access.load();
        if access.tokens.is_empty() {
            return Ok(());
        }
        let token = authorization.and_then(token_in).ok_or(Refused::NoToken)?;
        let now = clock::now().instant;
        // One lock over question and answer, so that nobody slips in between by asking often at once.
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        tries.may_try(source, now).map_err(|wait| {
            self.metrics.refused("too_many");
            Refused::TooMany(wait)
        })?;
        if access.tokens.accept(&token) {
            return Ok(());
        }
        tries.wrong(source, now);
        drop(tries);
        self.refuse(source, "wrong_token", "a wrong token was shown");
        Err(Refused::WrongToken)
    }

    /// Counts that somebody at `source` did not get in, and logs it, but not without end.
    pub(crate) fn refuse(&self, source: IpAddr, reason: &'static str, why: &str) {
        self.metrics.refused(reason);
        self.told.tell(source, || warn!(address = %source, "an operator was refused: {why}"));
    }
}

/// The token in a header's value: Bearer's (RFC 6750), or Basic's password (RFC 7617) under any name, which is how a browser
/// asks a person for it.
fn token_in(authorization: &[u8]) -> Option<Vec<u8>> {
    let space = authorization.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = authorization.split_at(space);
    let shown = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(shown.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let mut pair = STANDARD.decode(shown).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair.split_off(colon + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemes_carry_the_token() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            // "ops:abc", ":abc", "ops:a:b"
            ("Basic b3BzOmFiYw==", Some("abc")),
            ("BASIC OmFiYw==", Some("abc")),
            ("Basic b3BzOmE6Yg==", Some("a:b")),
            ("Basic b3Bz", None),
            ("Basic !", None),
            ("Digest abc", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(token_in(header.as_bytes()).as_deref(), token.map(str::as_bytes), "{header}");
        }
    }

    #[test]
    fn right_token_costs_nothing_and_is_not_looked_at_after_many_wrong_ones() {
        let gate = Gate::new(Access::of("0123456789abcdef0123456789abcdef", &[]), OperatorMetrics::default());
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let right = Some(b"Bearer 0123456789abcdef0123456789abcdef".as_slice());
        for _ in 0..100 {
            assert_eq!(gate.judge(right, one), Ok(()));
            assert_eq!(gate.judge(None, one), Err(Refused::NoToken));
        }
        for _ in 0..10 {
            assert_eq!(gate.judge(Some(b"Bearer 0123"), one), Err(Refused::WrongToken));
        }
        assert!(matches!(gate.judge(Some(b"Bearer 0123"), one), Err(Refused::TooMany(_))));
        assert!(matches!(gate.judge(right, one), Err(Refused::TooMany(_))));
        assert_eq!(gate.judge(None, one), Err(Refused::NoToken));
        assert_eq!(gate.judge(right, other), Ok(()));
        gate.renew(Access::default());
        assert_eq!(gate.judge(None, other), Ok(()));
    }
}
