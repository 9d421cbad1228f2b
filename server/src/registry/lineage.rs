//! Whether what comes under one IMEI can be one device. A key that was copied shows in what returns: a device that was started
//! anew never comes with an older boot id again, nor with the certificate that it has replaced; and a device that is here does
//! not come from elsewhere in turns with itself.
//!
//! Kept in memory alone: a copy that is in use shows again within a few sessions.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use heapless::Deque;

/// How many of a device's former boot ids and certificates are remembered.
const REMEMBERED: usize = 4;
/// A classic device, which tells no boot id, changes places this often within [`TURNS_WITHIN`] before it is two.
const TURNS: u32 = 6;
const TURNS_WITHIN: Duration = Duration::from_secs(600);

/// What a session shows of its device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks<'a> {
    /// The kernel's boot id; a classic device has none, and one of zeros was not to be had.
    pub(super) boot_id: Option<[u8; 16]>,
    /// Issuer and serial.
    pub(super) certificate: (&'a str, &'a str),
    pub(super) address: IpAddr,
    /// Where its last session came from.
    pub(super) before: Option<IpAddr>,
    /// It takes over from a session that stood.
    pub(super) takes_over: bool,
}

/// What cannot be of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contradiction {
    /// A boot id that another one had followed.
    BootReturned,
    /// A certificate that another one had followed.
    CertificateReturned,
    /// It came from two places in turns.
    TakesTurns,
}

impl Contradiction {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::BootReturned => {
                "two machines come under this IMEI in turns, by their boot ids: a key was copied"
            }
            Self::CertificateReturned => {
                "a certificate came back after the one that had replaced it: two devices hold certificates for this IMEI, \
                 or one was set back to an older one"
            }
            Self::TakesTurns => {
                "sessions from two addresses take each other's place under this IMEI: a key was copied"
            }
        }
    }
}

/// A device's marks so far; most never change them.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    boot: Option<u64>,
    certificate: Option<u64>,
    former: Option<Box<Former>>,
}

#[derive(Debug, Default)]
struct Former {
    boots: Deque<u64, REMEMBERED>,
    certificates: Deque<u64, REMEMBERED>,
    /// Where it was before it was where it is.
    place: Option<IpAddr>,
    /// How often it went back there, taking over, and since when.
    turns: u32,
    turning_since: Option<Instant>,
}

impl Lineage {
    /// A device that never came before.
    pub(super) fn begun(marks: Marks<'_>) -> Self {
        Self { boot: marks.boot(), certificate: Some(digest(&marks.certificate)), former: None }
    }

    /// A session begins: whether it can be of the device that came before.
    pub(super) fn on_session(&mut self, marks: Marks<'_>, now: Instant) -> Option<Contradiction> {
        let (boot, certificate) = (marks.boot(), Some(digest(&marks.certificate)));
        let takes_turns = boot.is_none() && self.takes_turns(marks, now);
        if boot.is_some() && self.replace(boot, |lineage| &mut lineage.boot, |former| &mut former.boots) {
            Some(Contradiction::BootReturned)
        } else if self.replace(
            certificate,
            |lineage| &mut lineage.certificate,
            |former| &mut former.certificates,
        ) {
            Some(Contradiction::CertificateReturned)
        } else {
            takes_turns.then_some(Contradiction::TakesTurns)
        }
    }

    /// An operator looked: what comes next is the device.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Takes a new mark in the place of the last one; whether it had been there before.
    fn replace(
        &mut self,
        mark: Option<u64>,
        last: impl Fn(&mut Self) -> &mut Option<u64>,
        line: impl Fn(&mut Former) -> &mut Deque<u64, REMEMBERED>,
    ) -> bool {
        let Some(older) = std::mem::replace(last(self), mark) else { return false };
        if Some(older) == mark {
            return false;
        }
        let line = line(self.former.get_or_insert_default());
        let returned = mark.is_some_and(|mark| line.iter().any(|former| *former == mark));
        if line.is_full() {
            line.pop_front();
        }
        // There is room now.
        let _ = line.push_back(older);
        returned
    }

    fn takes_turns(&mut self, marks: Marks<'_>, now: Instant) -> bool {
        let Some(last) = marks.before.filter(|last| *last != marks.address) else { return false };
        let former = self.former.get_or_insert_default();
        let went_back = former.place.replace(last) == Some(marks.address);
        let long_ago = |since: Instant| now.duration_since(since) > TURNS_WITHIN;
        if !went_back || !marks.takes_over || former.turning_since.is_none_or(long_ago) {
            (former.turns, former.turning_since) = (0, Some(now));
        }
        former.turns += u32::from(went_back && marks.takes_over);
        former.turns >= TURNS
    }
}

impl Marks<'_> {
    fn boot(&self) -> Option<u64> {
        self.boot_id.filter(|id| *id != [0; 16]).map(|id| digest(&id))
    }
}

fn digest(mark: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    mark.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    fn marks(boot: u8, serial: &str) -> Marks<'_> {
        Marks {
            boot_id: Some([boot; 16]),
            certificate: ("CN=Fleet CA", serial),
            address: HOME,
            before: Some(HOME),
            takes_over: true,
        }
    }

    fn all(sessions: &[Marks<'_>]) -> Vec<Option<Contradiction>> {
        let (mut lineage, now) = (Lineage::default(), crate::clock::now().instant);
        sessions.iter().map(|marks| lineage.on_session(*marks, now)).collect()
    }

    #[test]
    fn device_that_restarts_and_renews_is_one() {
        let sessions: Vec<_> = (1..40).map(|boot| marks(boot, if boot < 20 { "0a" } else { "0b" })).collect();
        assert!(all(&sessions).iter().all(Option::is_none));
        // Whatever the network does meanwhile.
        assert!(all(&[marks(1, "0a"); 40]).iter().all(Option::is_none));
    }

    #[test]
    fn boot_id_or_certificate_that_returns_is_another_device() {
        assert_eq!(
            all(&[marks(1, "0a"), marks(2, "0a"), marks(1, "0a")]),
            [None, None, Some(Contradiction::BootReturned)]
        );
        assert_eq!(
            all(&[marks(1, "0a"), marks(1, "0b"), marks(1, "0a")]),
            [None, None, Some(Contradiction::CertificateReturned)]
        );
        // Not known where the kernel's is not to be had.
        assert_eq!(all(&[marks(1, "0a"), marks(0, "0a"), marks(1, "0a")]), [None; 3]);
    }

    /// A classic device's sessions from these places, `apart` from each other.
    fn turns(places: &[IpAddr], takes_over: bool, apart: Duration) -> Option<usize> {
        let (mut lineage, start, mut before) = (Lineage::default(), crate::clock::now().instant, None);
        (0..).zip(places).find_map(|(n, place)| {
            let (address, last) = (*place, before.replace(*place));
            let marks = Marks { boot_id: None, address, before: last, takes_over, ..marks(0, "0a") };
            let found = lineage.on_session(marks, start + apart * n)?;
            assert_eq!(found, Contradiction::TakesTurns);
            usize::try_from(n).ok()
        })
    }

    #[test]
    fn classic_device_in_two_places_in_turns_is_two() {
        let in_turns = [HOME, AWAY].repeat(10);
        let second = Duration::from_secs(1);
        assert_eq!(turns(&in_turns, true, second), Some(7));
        // Once its session had ended it may come from anywhere.
        assert_eq!(turns(&in_turns, false, second), None);
        assert_eq!(turns(&in_turns, true, TURNS_WITHIN / 4), None);
        // One whose line changes its address and never goes back.
        let drifts: Vec<_> = (0..20).map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, 1, n))).collect();
        assert_eq!(turns(&drifts, true, second), None);
    }

    #[test]
    fn operator_who_looked_is_believed() {
        let (mut lineage, now) = (Lineage::default(), crate::clock::now().instant);
        for boot in [1, 2] {
            assert_eq!(lineage.on_session(marks(boot, "0a"), now), None);
        }
        lineage.forget();
        assert_eq!(lineage.on_session(marks(1, "0a"), now), None);
    }
}
