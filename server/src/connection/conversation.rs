//! A connection apart from its bytes: the session, and those it is spoken of to, the registry and the metrics.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tracing::{debug, info};

use super::Link;
use super::scratch::Frames;
use crate::clock::{self, Now};
use crate::exit::{Exit, Order};
use crate::registry::{Peer, Presence};
use crate::seats::Seat;
use crate::session::{Cause, Dialect, Event, MAX_TRANSMIT, Registration, Session};
use crate::tls::{Device, Tls};

/// See the module.
pub(super) struct Conversation {
    session: Session,
    dialect: Dialect,
    /// Who it is, as long as the registry may ask.
    device: Option<Box<Device>>,
    /// Where it comes from. Not as a `SocketAddr`, which has 12 bytes more and here nothing in them.
    ip: IpAddr,
    port: u16,
    presence: Option<Arc<Presence>>,
    /// Boxed, since there is none as long as it stands.
    ended: Option<Box<Cause>>,
    link: Arc<Link>,
    seat: Seat,
    exit: Arc<Exit>,
    /// The task is woken when it comes.
    waits_for_order: bool,
}

impl Conversation {
    pub(super) fn new(
        device: Box<Device>,
        address: SocketAddr,
        link: Arc<Link>,
        seat: Seat,
        exit: Arc<Exit>,
        now: Now,
    ) -> Self {
        let (dialect, imei) = (device.dialect, device.certificate.named_imei());
        let session = Session::new(dialect, imei, link.policy.load_full(), now);
        let device = Some(device);
        let (ip, port) = (address.ip(), address.port());
        Self {
            session,
            dialect,
            device,
            ip,
            port,
            presence: None,
            ended: None,
            link,
            seat,
            exit,
            waits_for_order: false,
        }
    }

    pub(super) const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Why it is over, once it is.
    pub(super) fn ended(&self) -> Option<Cause> {
        self.ended.as_deref().copied()
    }

    const fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    /// It is over without a word of the session's. The first cause counts.
    pub(super) fn end_by(&mut self, cause: Cause) {
        self.ended.get_or_insert_with(|| Box::new(cause));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.session.poll_timeout()
    }

    /// Whether somebody told this connection to go. Asked by the one task that the connection lives in.
    pub(super) fn poll_ordered(&mut self, context: &Context<'_>) -> Poll<Order> {
        if self.waits_for_order && !self.exit.is_given() {
            return Poll::Pending;
        }
        self.waits_for_order = true;
        self.exit.poll_ordered(context)
    }

    pub(super) fn end(&mut self, cause: Cause, retry_after: Duration) {
        self.session.end(cause, retry_after);
    }

    pub(super) fn on_timeout(&mut self, now: Now) {
        self.session.handle_timeout(now);
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.link.metrics.bytes_sent(bytes);
    }

    /// Whether the device is still to be heard, now that `bytes` have come from it.
    pub(super) fn may_stay(&mut self, tls: &mut Tls, bytes: usize, now: Now) -> bool {
        self.link.metrics.bytes_received(bytes);
        let Err(refusal) = self.link.tls.judge_again(tls, now) else { return true };
        // Of one that is online its end tells.
        if self.presence.is_none() {
            self.link.refusals.handshake(self.address(), &refusal, &self.link);
        }
        self.session.end(refusal.cause(), Duration::ZERO);
        false
    }

    /// Takes what the device says; what it is answered is added to `frames`.
    pub(super) fn hear(&mut self, plaintext: &[u8], frames: &mut Frames, now: Now) {
        let mut input = plaintext;
        while !input.is_empty() {
            self.session.handle_bytes(&mut input, now);
            self.drain(frames, now);
        }
        self.link.metrics.frames_received(self.session.take_heard());
        if let Some(presence) = &self.presence {
            presence.heard(now);
        }
    }

    /// Takes out of the session what it has to say and to tell.
    pub(super) fn drain(&mut self, frames: &mut Frames, now: Now) {
        let mut frame = [0; MAX_TRANSMIT];
        loop {
            if let Some(len) = self.session.poll_transmit(&mut frame, now) {
                frames.push(frame.get(..len).unwrap_or_default());
                self.link.metrics.frame_sent();
            } else if let Some(event) = self.session.poll_event() {
                self.on_event(event, now);
            } else {
                return;
            }
        }
    }

    fn on_event(&mut self, event: Event, now: Now) {
        let metrics = &self.link.metrics;
        match event {
            Event::Registering(registration) => self.on_registering(*registration, now),
            Event::Heartbeat => {
                metrics.heartbeat();
                self.on_served();
            }
            Event::TimeAsked => {
                metrics.time_asked();
                self.on_served();
            }
            Event::Skipped { .. } => metrics.skipped(),
            Event::Status(status) => {
                if let Some(presence) = &self.presence {
                    self.link.registry.report(presence, *status, now);
                }
            }
            Event::Usage(usage) => {
                if let Some(presence) = &self.presence {
                    self.link.registry.usage(presence, *usage, now);
                }
            }
            Event::Interval(longest) => {
                if let Some(presence) = &self.presence {
                    self.link.registry.silence(presence, longest);
                }
            }
            Event::EchoAck { .. } => {}
            Event::Ended(cause) => self.end_by(cause),
        }
    }

    /// A classic device that nobody knows is served all the same, so it is not one of the silent.
    fn on_served(&mut self) {
        self.seat.register();
    }

    fn on_registering(&mut self, registration: Registration, now: Now) {
        let Some(peer) = self.peer() else { return };
        // A classic device that was taken in by its certificate and registers now gives its entry up for this one.
        let former = self.presence.take();
        let (imei, first) = (registration.imei, former.is_none());
        match self.link.registry.register(registration, peer, Arc::clone(&self.exit), former, now) {
            Ok(presence) => {
                self.seat.register();
                self.link.turns.welcome(self.ip);
                self.session.bound(self.link.registry.bounds(imei));
                self.session.accept(presence.session_id, self.link.window());
                if first {
                    let (address, session, dialect) = (self.address(), presence.session_id, self.dialect);
                    info!(%imei, session, %address, %dialect, "online");
                }
                self.presence = Some(presence);
                // A native device says who it is once; a classic one may be asked about twice.
                if self.dialect == Dialect::Native {
                    self.device = None;
                }
            }
            Err(rejection) => self.session.reject(rejection),
        }
    }

    fn peer(&self) -> Option<Peer> {
        let Device { dialect, certificate, version, .. } = self.device.as_deref()?;
        Some(Peer {
            address: self.address(),
            dialect: *dialect,
            tls: version,
            certificate: certificate.clone(),
        })
    }

    /// The connection is over.
    pub(super) fn leave(&mut self, cause: Cause) {
        // A classic device can be online by its certificate, and be refused as what it registers as.
        if let Cause::Refused(rejection) = cause {
            let certificate = self.device.as_ref().map(|device| &device.certificate);
            self.link.refusals.device(self.address(), rejection, certificate, &self.link);
        }
        let Some(presence) = self.presence.take() else {
            return debug!(address = %self.address(), "ended before it registered: {cause}");
        };
        let (imei, session) = (presence.imei, presence.session_id);
        info!(%imei, session, address = %self.address(), "offline: {cause}");
        self.link.registry.leave(&presence, cause, clock::now());
    }
}

impl Drop for Conversation {
    /// A task that panicked, or was dropped at the end of the server's patience, must not leave its device online.
    fn drop(&mut self) {
        if self.presence.is_some() {
            self.leave(self.exit.given().map_or(Cause::Internal, |order| order.cause));
        }
    }
}
