//! The watch over certificates while the server runs: a revocation list that was replaced is taken, and sessions end whose
//! certificate is revoked or has expired. All of it within [`LOOK`] and the second look that a new file is given.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::clock;
use crate::connection::Link;
use crate::tls::Look;

/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);

/// How often sessions are held against a new reading of the files. A device that was judged by the old one and registered
/// while the first walk had passed it is found by the second.
const WALKS: u8 = 2;

/// Looks until it is dropped.
pub(super) async fn watch(link: Arc<Link>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut walked = Walked { reading: link.tls.reading(), left: 0 };
    loop {
        ticks.tick().await;
        let link = Arc::clone(&link);
        // The files may lie on a disk that hangs, and a walk takes milliseconds.
        let looked = tokio::task::spawn_blocking(move || {
            look(&link, &mut walked);
            walked
        });
        match looked.await {
            Ok(now) => walked = now,
            Err(fault) => {
                return error!("the watch over certificates has ended: {fault}; restart the server");
            }
        }
    }
}

/// Which reading of the files the sessions were held against.
#[derive(Clone, Copy)]
struct Walked {
    reading: u64,
    left: u8,
}

fn look(link: &Link, walked: &mut Walked) {
    let now = clock::now();
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
    let reading = link.tls.reading();
    if reading != walked.reading {
        link.metrics.certificates().in_force();
        *walked = Walked { reading, left: WALKS };
    }
    if walked.left > 0 {
        walked.left -= 1;
        let revoked = link.tls.revoked();
        say(link.registry.end_revoked(|certificate| revoked.holds(certificate)), "was revoked");
    }
    say(link.registry.end_expired(now), "has expired");
}

fn say(ended: usize, why: &str) {
    if ended > 0 {
        info!("{ended} sessions end, as their certificate {why}");
    }
}
