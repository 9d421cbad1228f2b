//! Says who was refused, and why, without letting those who knock fill the disk: a source gets a few lines a minute, and
//! all sources together a few hundred; the rest is counted and summed up.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::clock;
use crate::connection::Link;
use crate::identity::Certificate;
use crate::log;
use crate::registry::Refused;
use crate::session::Rejection;
use crate::tls::Refusal;

const WINDOW: Duration = Duration::from_secs(60);
const PER_SOURCE: u32 = 5;
const IN_ALL: u32 = 300;

/// The books of one window.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    began: Option<Instant>,
    told: HashMap<IpAddr, u32>,
    in_all: u32,
    untold: u64,
}

impl Refusals {
    /// A handshake failed, or a session's certificate is good no more.
    pub(crate) fn handshake(&self, address: SocketAddr, refusal: &Refusal, link: &Link) {
        let certificate = refusal.certificate.as_deref();
        let imei = certificate.and_then(Certificate::named_imei);
        let (reason, text) = (refusal.reason, refusal.text.as_str());
        self.refused(Refused { address, imei, certificate, reason, text }, link);
    }

    /// A device whose handshake went well was not taken in.
    pub(crate) fn device(
        &self,
        address: SocketAddr,
        rejection: Rejection,
        certificate: Option<&Certificate>,
        link: &Link,
    ) {
        let mut text = match (rejection, certificate.map(|certificate| certificate.imei)) {
            (Rejection::NoIdentity, Some(Err(why))) => format!("client certificate is of no use here: {why}"),
            (Rejection::UnknownDevice, _) => {
                format!("{rejection}; to take it in, let it register once under identity.register = \"open\"")
            }
            (other, _) => other.to_string(),
        };
        if let Some(certificate) = certificate {
            certificate.describe(&mut text);
        }
        let imei = match rejection {
            Rejection::Mismatch { claimed, .. } => Some(claimed),
            _ => certificate.and_then(Certificate::named_imei),
        };
        let reason = rejection.as_str();
        self.refused(Refused { address, imei, certificate, reason, text: &text }, link);
    }

    fn refused(&self, refused: Refused<'_>, link: &Link) {
        link.metrics.refused(refused.reason);
        self.tell(refused.address.ip(), || {
            warn!(address = %refused.address, reason = refused.reason, "refused: {}", refused.text);
            link.registry.refused(refused, clock::now());
        });
    }

    /// Lets `say` have its line, unless `source` has had its share of them.
    pub(crate) fn tell(&self, source: IpAddr, say: impl FnOnce()) {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (may, untold) = books.may_tell(source, clock::now().instant);
        drop(books);
        if untold > 0 {
            log::about_none(|| warn!("{untold} more like the last ones were not told one by one"));
        }
        if may {
            say();
        }
    }
}

impl Books {
    /// Whether this one is told, and how many of the window before were not.
    fn may_tell(&mut self, source: IpAddr, now: Instant) -> (bool, u64) {
        let mut untold = 0;
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW) {
            untold = std::mem::take(&mut self.untold);
            *self = Self { began: Some(now), ..Self::default() };
        }
        let told = self.told.get(&source).copied().unwrap_or(0);
        let may = told < PER_SOURCE && self.in_all < IN_ALL;
        if may {
            self.told.insert(source, told + 1);
            self.in_all += 1;
        } else {
            self.untold += 1;
        }
        (may, untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOCKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn flood_is_summed_up() {
        let (mut books, start) = (Books::default(), clock::now().instant);
        let told = (0..1000).filter(|_| books.may_tell(KNOCKER, start).0).count();
        assert_eq!(told, 5);
        assert!(books.may_tell(IpAddr::from([192, 0, 2, 2]), start).0);
        assert_eq!(books.may_tell(KNOCKER, start + WINDOW), (true, 995));
    }

    #[test]
    fn books_are_bounded() {
        let (mut books, start) = (Books::default(), clock::now().instant);
        for n in 0..100_000_u32 {
            books.may_tell(IpAddr::from(n.to_be_bytes()), start);
        }
        assert_eq!(books.told.len(), IN_ALL as usize);
    }
}
