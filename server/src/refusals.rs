//! Says who was refused, and why, without letting those who knock fill the disk: a source gets a few lines a minute, and
//! all sources together a few hundred; the rest is counted and summed up.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::clock;
use crate::identity::Certificate;
use crate::registry::{Refused, Registry};
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
    /// A handshake failed.
    pub(crate) fn handshake(&self, address: SocketAddr, refusal: &Refusal, registry: &Registry) {
        if !self.may_tell(address.ip()) {
            return;
        }
        warn!(%address, reason = refusal.reason, "refused: {}", refusal.text);
        let certificate = refusal.certificate.as_deref();
        registry.refused(
            Refused {
                address,
                imei: certificate.and_then(Certificate::named_imei),
                certificate,
                reason: refusal.reason,
                text: &refusal.text,
            },
            clock::now(),
        );
    }

    /// A device whose handshake went well was not taken in.
    pub(crate) fn device(
        &self,
        address: SocketAddr,
        rejection: Rejection,
        certificate: &Certificate,
        registry: &Registry,
    ) {
        if !self.may_tell(address.ip()) {
            return;
        }
        let text = match (rejection, certificate.imei) {
            (Rejection::NoIdentity, Err(why)) => format!("client certificate is of no use here: {why}"),
            (other, _) => other.to_string(),
        };
        warn!(%address, reason = rejection.as_str(), subject = ?certificate.subject, "refused: {text}");
        let claimed = match rejection {
            Rejection::Mismatch { claimed, .. } => Some(claimed),
            _ => certificate.named_imei(),
        };
        registry.refused(
            Refused {
                address,
                imei: claimed,
                certificate: Some(certificate),
                reason: rejection.as_str(),
                text: &text,
            },
            clock::now(),
        );
    }

    fn may_tell(&self, source: IpAddr) -> bool {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (may, untold) = books.may_tell(source, clock::now().instant);
        drop(books);
        if untold > 0 {
            warn!("{untold} more were refused in the last minute and not told one by one");
        }
        may
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
