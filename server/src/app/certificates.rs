//! The watch over certificates while the server runs: a revocation list that was replaced is taken, sessions end whose
//! certificate is revoked or has expired, and an end is told before it comes. What ends sessions is done within [`LOOK`] and the
//! second look that a new file is given.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::clock::{self, Now};
use crate::connection::Link;
use crate::expiry::Remaining;
use crate::tls::Look;

/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);

/// Each so many looks it is asked how near the ends of certificates are.
const LOOKS_TO_ENDS: u32 = 60;

/// A look tells of so many ends at the most: a fleet whose certificates were issued in one go must not push out all other
/// events.
const MOST_TOLD: usize = 4096;

/// How often sessions are held against a new reading of the files. A device that was judged by the old one and registered
/// while the first walk had passed it is found by the second.
const WALKS: u8 = 2;

/// Counts what is in force, and then looks until it is dropped.
pub(super) fn watch(link: Arc<Link>) -> impl Future<Output = ()> + Send {
    let seen = Seen::of(&link, clock::now());
    go_on(link, seen)
}

async fn go_on(link: Arc<Link>, mut seen: Seen) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let link = Arc::clone(&link);
        // The files may lie on a disk that hangs, and a walk takes milliseconds.
        let looked = tokio::task::spawn_blocking(move || {
            seen.look(&link, clock::now());
            seen
        });
        match looked.await {
            Ok(now) => seen = now,
            Err(fault) => {
                return error!("the watch over certificates has ended: {fault}; restart the server");
            }
        }
    }
}

/// What the last look saw.
struct Seen {
    /// Which reading of the files is in force, and how often sessions are still to be held against it.
    reading: u64,
    walks: u8,
    /// How urgent it was to do something about what is in force.
    urgency: Vec<Remaining>,
    looks: u32,
}

impl Seen {
    /// What the start has told already.
    fn of(link: &Link, now: Now) -> Self {
        link.metrics.certificates().in_force(link.tls.ends());
        Self { reading: link.tls.reading(), walks: 0, urgency: link.tls.urgency(now), looks: 0 }
    }

    fn look(&mut self, link: &Link, now: Now) {
        look_at_lists(link, now);
        if link.tls.reading() != self.reading {
            *self = Self { walks: WALKS, looks: self.looks, ..Self::of(link, now) };
        }
        if self.walks > 0 {
            self.walks -= 1;
            let revoked = link.tls.revoked();
            say(link.registry.end_revoked(|certificate| revoked.holds(certificate)), "was revoked");
        }
        say(link.registry.end_expired(now), "has expired");
        if self.looks.is_multiple_of(LOOKS_TO_ENDS) {
            self.look_at_ends(link, now);
        }
        self.looks = self.looks.wrapping_add(1);
    }

    fn look_at_ends(&mut self, link: &Link, now: Now) {
        link.metrics.certificates().devices(&link.registry.look_at_expiry(MOST_TOLD, now));
        let urgency = link.tls.urgency(now);
        if urgency.iter().zip(&self.urgency).any(|(now, before)| now > before) {
            link.tls.warnings(now).iter().for_each(|warning| warn!("{warning}"));
        }
        self.urgency = urgency;
    }
}

fn look_at_lists(link: &Link, now: Now) {
    match link.tls.look_at_lists(now) {
        Look::Same => {}
        Look::Taken(warnings) => {
            link.metrics.certificates().list_taken();
            info!("the revocation list was replaced, and the new one is in force");
            warnings.iter().for_each(|warning| warn!("{warning}"));
        }
        Look::Refused(mistakes) => {
            link.metrics.certificates().list_refused();
            for mistake in &mistakes {
                error!("{mistake}");
            }
            error!("the revocation list was replaced by one of no use: the one in force stays");
        }
    }
}

fn say(ended: usize, why: &str) {
    if ended > 0 {
        info!("{ended} sessions end, as their certificate {why}");
    }
}
