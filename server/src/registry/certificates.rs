//! Devices' certificates: sessions that end with theirs, for it was revoked or its time is up, and devices whose certificate is
//! about to expire. Found by walking over all devices when there is a reason to, so a session carries no timer and no index
//! for it: with 50,000 online and 10,000 on the list a walk takes 12 ms in 49 bites, one for expiry 7 ms, and a second in which
//! none is due less than a microsecond.

use std::ops::ControlFlow;
use std::time::Duration;

use moorline_protocol::Imei;

use super::{Online, Registry, SharedTexts, State, event_of};
use crate::clock::Now;
use crate::expiry::{Remaining, ends_on};
use crate::identity::Certificate;
use crate::session::Cause;
use crate::store::{Credential, Device, Event, Kind};

impl Registry {
    /// Tells the sessions to go whose certificate `is_revoked`, and says how many there are.
    pub fn end_revoked(&self, is_revoked: impl Fn(&Credential) -> bool) -> usize {
        let mut ended = 0;
        self.in_chunks(None, |state, imeis| {
            for (online, _) in certified(state, imeis).filter(|(_, certificate)| is_revoked(certificate)) {
                // A session that was told already goes by what it was told first.
                online.exit.order(Cause::Revoked, Duration::ZERO);
                ended += 1;
            }
            ControlFlow::Continue(())
        });
        ended
    }

    /// Tells the sessions to go whose certificate has expired, and says how many there are. It looks at nothing before the
    /// first of them is due.
    pub fn end_expired(&self, now: Now) -> usize {
        let mut state = self.lock();
        if now.utc_ms <= state.soonest_expiry_ms {
            return 0;
        }
        // Found anew by the walk; whoever registers meanwhile brings its own.
        state.soonest_expiry_ms = i64::MAX;
        drop(state);
        let mut ended = 0;
        self.in_chunks(None, |state, imeis| {
            let mut soonest = state.soonest_expiry_ms;
            for (online, certificate) in certified(state, imeis) {
                if now.utc_ms > certificate.not_after_ms {
                    online.exit.order(Cause::Expired, Duration::ZERO);
                    ended += 1;
                } else {
                    soonest = soonest.min(certificate.not_after_ms);
                }
            }
            state.soonest_expiry_ms = soonest;
            ControlFlow::Continue(())
        });
        ended
    }
}

/// How many devices have so much left of their certificate.
pub type ByRemaining = [(Remaining, usize); 4];

impl Registry {
    /// Looks at every device's certificate, online or not, and tells of at most `most` that are nearer to their end than was
    /// told of them. To be called every minute or so; those that are left are told the next time.
    pub fn look_at_expiry(&self, most: usize, now: Now) -> ByRemaining {
        let mut counts = Remaining::ALL.map(|step| (step, 0));
        let mut left = most;
        self.in_chunks(None, |state, imeis| {
            let State { devices, texts, .. } = state;
            for imei in imeis {
                let Some(entry) = devices.get_mut(imei) else { continue };
                let device = &mut entry.device;
                let Some(certificate) = &device.certificate else { continue };
                let step = Remaining::at(now.utc_ms, certificate.not_after_ms);
                counts.iter_mut().filter(|(one, _)| *one == step).for_each(|(_, count)| *count += 1);
                if left > 0 && self.tell_expiry(device, texts, now) {
                    self.queue.put_device(device.clone());
                    left -= 1;
                }
            }
            ControlFlow::Continue(())
        });
        counts
    }

    /// Tells that a device's certificate is about to expire, if it is and that was not told. What was told is kept with the
    /// device, so that a restart does not tell it again.
    pub(super) fn tell_expiry(&self, device: &mut Device, texts: &mut SharedTexts, now: Now) -> bool {
        let Some(certificate) = &mut device.certificate else { return false };
        let step = Remaining::at(now.utc_ms, certificate.not_after_ms);
        if step <= certificate.told || step == Remaining::Nothing {
            return false;
        }
        certificate.told = step;
        let (serial, ends) = (certificate.serial.clone(), ends_on(now.utc_ms, certificate.not_after_ms));
        let why = (texts.share(step.as_str()), format!("its certificate {ends}: issue a new one"));
        let event = event_of(device, Kind::CertificateExpiring, Some(why), now);
        self.queue.put_event(Event { certificate: Some(serial), ..event });
        true
    }
}

/// The certificate that a device showed; what was told of it before stays told.
pub(super) fn shown(shown: Certificate, former: Option<&Device>, texts: &mut SharedTexts) -> Credential {
    let is_same = |older: &&Credential| *older.serial == *shown.serial && *older.issuer == *shown.issuer;
    let former = former.and_then(|device| device.certificate.as_ref()).filter(is_same);
    let told = former.map_or(Remaining::Later, |older| older.told);
    Credential {
        serial: shown.serial.into(),
        issuer: texts.share(&shown.issuer),
        not_after_ms: shown.not_after_ms,
        told,
    }
}

/// Those of these devices that are online by a certificate.
fn certified<'s>(state: &'s State, imeis: &[Imei]) -> impl Iterator<Item = (&'s Online, &'s Credential)> {
    let entries = imeis.iter().filter_map(|imei| state.devices.get(imei));
    entries.filter_map(|entry| entry.online.as_ref().zip(entry.device.certificate.as_ref()))
}

/// The serial for the event of a session's end, where the certificate is to blame for that.
pub(super) fn blamed(device: &Device, cause: &str) -> Option<Box<str>> {
    let certificates = [Cause::Revoked, Cause::Expired, Cause::Certificate];
    let serial = device.certificate.as_ref().map(|certificate| certificate.serial.clone());
    serial.filter(|_| certificates.iter().any(|one| one.as_str() == cause))
}

#[cfg(test)]
mod tests;
