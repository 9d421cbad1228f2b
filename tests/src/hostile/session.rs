//! Whole sessions whose other side is nobody honest: what they say, tell and ask for must not hang on how the bytes were cut, and
//! nothing may grow.

use std::sync::Arc;
use std::time::Duration;

use moorline_agent::clock::Now as DeviceNow;
use moorline_agent::session::{self as agent, Greeting, InFlight};
use moorline_server::clock::Now as ServerNow;
use moorline_server::session::{self as server, Event, Rejection};

use super::script::{Clock, stretches};
use super::stream::same_however_cut;
use crate::pair::{START_UTC_MS, Setup};

/// A session may go on for ever, its peer's silence not: so many deadlines are gone to after the script's end.
const DEADLINES: usize = 64;

/// A script of what a server sends to a device.
pub(super) fn device(script: &[u8]) {
    for dialect in [agent::Dialect::Native, agent::Dialect::Classic] {
        same_however_cut(script, |pieces| Device::new(dialect).run(pieces, script.len()));
    }
}

/// A script of what a device sends to a server, which takes it in or does not.
pub(super) fn server(script: &[u8]) {
    for dialect in [server::Dialect::Native, server::Dialect::Classic] {
        for verdict in [Ok(7), Err(Rejection::Blocked)] {
            same_however_cut(script, |pieces| Server::new(dialect, verdict).run(pieces, script.len()));
        }
    }
}

struct Device {
    session: agent::Session,
    clock: Clock,
    said: Vec<u8>,
    told: Vec<agent::Event>,
}

impl Device {
    fn new(dialect: agent::Dialect) -> Self {
        let setup = Setup::default();
        let greeting = Greeting {
            imei: setup.imei,
            app_id: [7; 16],
            agent_version: "0.1.0".try_into().expect("it fits"),
            boot_id: [9; 16],
            modem: "Quectel EC25".try_into().expect("it fits"),
        };
        let clock = Clock::new();
        let session = agent::Session::new(dialect, greeting, setup.terms, now(&clock));
        Self { session, clock, said: Vec::new(), told: Vec::new() }
    }

    fn run(mut self, pieces: &mut dyn Iterator<Item = &[u8]>, length: usize) -> (Vec<u8>, String) {
        self.drain();
        for piece in pieces {
            for (mut stretch, pauses) in stretches(piece) {
                while !stretch.is_empty() {
                    let before = (stretch.len(), self.said.len() + self.told.len());
                    self.session.handle_bytes(&mut stretch, now(&self.clock));
                    self.drain();
                    assert_ne!(before, (stretch.len(), self.said.len() + self.told.len()), "it spins");
                }
                if pauses {
                    self.pass();
                }
            }
        }
        (0..DEADLINES).for_each(|_| self.pass());
        // An Echo of 3 bytes is answered by as many as a frame may have, and each deadline by a heartbeat and its like.
        let most = (length + 4 * DEADLINES) * agent::MAX_TRANSMIT;
        assert!(self.said.len() <= most, "{} bytes were said to {length}", self.said.len());
        let ends = self.told.iter().filter(|event| matches!(event, agent::Event::Ended(_))).count();
        assert!(ends <= 1 && (ends == 0 || self.session.poll_timeout().is_none()), "{:?}", self.told);
        (self.said, format!("{:?}", self.told))
    }

    fn pass(&mut self) {
        let Some(deadline) = self.session.poll_timeout() else { return };
        self.clock.go_to(deadline);
        self.session.handle_timeout(now(&self.clock), InFlight(false));
        self.drain();
        assert_ne!(self.session.poll_timeout(), Some(deadline), "it spins");
    }

    fn drain(&mut self) {
        let mut out = [0; agent::MAX_TRANSMIT];
        loop {
            if let Some(length) = self.session.poll_transmit(&mut out, now(&self.clock)) {
                assert!(length > 0);
                self.said.extend_from_slice(&out[..length]);
            } else if let Some(event) = self.session.poll_event() {
                self.told.push(event);
            } else {
                return;
            }
        }
    }
}

fn now(clock: &Clock) -> DeviceNow {
    DeviceNow { instant: clock.now, utc_ms: utc_ms(clock) }
}

fn utc_ms(clock: &Clock) -> i64 {
    START_UTC_MS + i64::try_from(clock.passed().as_millis()).unwrap_or(i64::MAX - START_UTC_MS)
}

struct Server {
    session: server::Session,
    clock: Clock,
    verdict: Result<u64, Rejection>,
    said: Vec<u8>,
    told: Vec<Event>,
}

impl Server {
    fn new(dialect: server::Dialect, verdict: Result<u64, Rejection>) -> Self {
        let Setup { certified, policy, .. } = Setup::default();
        let clock = Clock::new();
        let now = ServerNow { instant: clock.now, utc_ms: utc_ms(&clock) };
        let session = server::Session::new(dialect, certified, Arc::new(policy), now);
        Self { session, clock, verdict, said: Vec::new(), told: Vec::new() }
    }

    fn run(mut self, pieces: &mut dyn Iterator<Item = &[u8]>, length: usize) -> (Vec<u8>, String) {
        for piece in pieces {
            for (mut stretch, pauses) in stretches(piece) {
                while !stretch.is_empty() {
                    let before = (stretch.len(), self.said.len() + self.told.len());
                    self.session.handle_bytes(&mut stretch, self.now());
                    self.drain();
                    assert_ne!(before, (stretch.len(), self.said.len() + self.told.len()), "it spins");
                }
                if pauses {
                    self.pass();
                }
            }
        }
        (0..DEADLINES).for_each(|_| self.pass());
        let most = (length + 4 * DEADLINES) * server::MAX_TRANSMIT;
        assert!(self.said.len() <= most, "{} bytes were said to {length}", self.said.len());
        for registration in self.told.iter().filter_map(|event| match event {
            Event::Registering(registration) => Some(registration),
            _ => None,
        }) {
            // A certificate was shown, and a device is who it says.
            assert_eq!(Some(registration.imei), Setup::default().certified);
            let texts = [registration.agent_version.as_str(), registration.modem.as_str()];
            assert!(texts.into_iter().all(|text| text.len() <= 48));
        }
        let ends = self.told.iter().filter(|event| matches!(event, Event::Ended(_))).count();
        assert!(ends <= 1 && (ends == 0 || self.session.poll_timeout().is_none()), "{:?}", self.told);
        (self.said, format!("{:?}", self.told))
    }

    fn pass(&mut self) {
        let Some(deadline) = self.session.poll_timeout() else { return };
        self.clock.go_to(deadline);
        self.session.handle_timeout(self.now());
        self.drain();
        assert_ne!(self.session.poll_timeout(), Some(deadline), "it spins");
    }

    fn drain(&mut self) {
        let mut out = [0; server::MAX_TRANSMIT];
        loop {
            if let Some(length) = self.session.poll_transmit(&mut out, self.now()) {
                assert!(length > 0);
                self.said.extend_from_slice(&out[..length]);
            } else if let Some(event) = self.session.poll_event() {
                if let Event::Registering(_) = event {
                    match self.verdict {
                        Ok(id) => self.session.accept(id, Duration::from_secs(120)),
                        Err(rejection) => self.session.reject(rejection),
                    }
                }
                self.told.push(event);
            } else {
                return;
            }
        }
    }

    fn now(&self) -> ServerNow {
        ServerNow { instant: self.clock.now, utc_ms: utc_ms(&self.clock) }
    }
}
