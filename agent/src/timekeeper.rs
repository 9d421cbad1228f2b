//! What the agent makes of its server's time: it raises the floor, and sets the system clock where that is asked for.
//! Also says which time counts, whenever that has changed. It knows no session; when there is news is `uplink.rs`'s
//! matter.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::CertificateDer;

use crate::clock::{self, Now, Utc};
use crate::config::Config;
use crate::floor::{self, FloorFile};
use crate::log;
use crate::state_dir;
use crate::trusted_time::{Basis, TrustedTime};
use crate::validity;

/// A clock that is wrong by less is not set: a step harms programs that measure with it, and who wants it better has NTP.
const WORTH_SETTING_MS: u64 = 1000;

/// See the module.
#[derive(Debug)]
pub struct Timekeeper {
    time: Arc<TrustedTime>,
    file: FloorFile,
    /// Until when the device's own certificates hold, seconds since 1970; 0 when that cannot be read.
    own_end: u64,
    /// `clock.set`.
    sets_clock: bool,
    /// That it cannot be set was said.
    complained: bool,
    raised_at: Option<Instant>,
    told: Option<Basis>,
}

impl Timekeeper {
    /// Under a configuration.
    #[must_use]
    pub fn new(config: &Config, time: Arc<TrustedTime>) -> Self {
        Self {
            time,
            file: FloorFile::new(&config.state_dir),
            own_end: end(&config.identity.certified_key.cert),
            sets_clock: config.clock.set,
            complained: false,
            raised_at: None,
            told: None,
        }
    }

    /// A new configuration is in force.
    pub fn reconfigure(&mut self, config: &Config) {
        let (raised_at, told) = (self.raised_at, self.told);
        *self = Self { raised_at, told, ..Self::new(config, Arc::clone(&self.time)) };
    }

    /// Says which time counts, if it is another than said before.
    pub fn tell(&mut self) {
        let basis = self.time.basis();
        if self.told.is_none_or(|told| told.is_clock() != basis.is_clock()) {
            self.told = Some(basis);
            log::info(format_args!("clock {basis}"));
        }
    }

    /// A server that showed this chain says in an authenticated session how far it is ahead of this clock.
    pub fn handle_server_time(&mut self, chain: &[CertificateDer<'_>], offset_ms: i64, now: Now) {
        let end = end(chain).min(self.own_end);
        let server_ms = now.utc_ms.saturating_add(offset_ms);
        let basis = self.time.basis();
        let server = u64::try_from(server_ms / 1000).unwrap_or(0);
        self.raise(basis, server, end, now.instant);
        if self.sets_clock && !basis.is_clock() && offset_ms.unsigned_abs() >= WORTH_SETTING_MS {
            if (self.time.floor()..=end).contains(&server) {
                self.set_clock(now.utc_ms, server_ms);
            } else {
                let (server, floor, end) =
                    (Utc(server_ms), Utc::of_seconds(self.time.floor()), Utc::of_seconds(end));
                log::warning(format_args!(
                    "the clock is not set to the server's time, {server}: that is not between the floor, {floor}, and \
                     the end of the certificates, {end}"
                ));
            }
        }
    }

    fn raise(&mut self, basis: Basis, server: u64, end: u64, now: Instant) {
        if self.raised_at.is_some_and(|at| now < at + floor::WRITE_EVERY) {
            return;
        }
        let Some(raised) = floor::raised(self.time.floor(), basis, server, end) else { return };
        self.raised_at = Some(now);
        self.time.raise(raised);
        if let Err(error) = self.file.write(raised) {
            state_dir::complain(format_args!("the time floor cannot be kept in the state folder: {error}"));
        }
        log::info(format_args!("the floor is raised to {}", Utc::of_seconds(raised)));
    }

    fn set_clock(&mut self, from_ms: i64, to_ms: i64) {
        match clock::set(to_ms) {
            Ok(()) => {
                let (from, to) = (Utc(from_ms), Utc(to_ms));
                log::info(format_args!("the system clock is set by the server's time from {from} to {to}"));
            }
            Err(error) if !self.complained => {
                self.complained = true;
                log::warning(format_args!("clock.set: {}", unsettable(&error)));
            }
            Err(_) => {}
        }
    }
}

/// Which time counts, after the word "clock".
impl fmt::Display for Timekeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.time.basis().fmt(f)
    }
}

/// A chain whose end is not known vouches for nothing.
fn end(chain: &[CertificateDer<'_>]) -> u64 {
    validity::end(chain).unwrap_or(0)
}

fn unsettable(error: &io::Error) -> String {
    let hint = if error.kind() == ErrorKind::PermissionDenied {
        "; its service lacks CAP_SYS_TIME, which the drop-in moorline-agent-clock.conf gives it"
    } else {
        ""
    };
    format!("the system clock cannot be set: {error}{hint}")
}
