//! Both halves of a session joined by a wire in virtual time: the one place where the agent's [`Device`] and the server's
//! [`Server`] session meet without a socket. A day of silence takes a millisecond.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use moorline_agent::{
    clock::Now as DeviceNow,
    round_trip::RoundTrip,
    session::{self as agent, Greeting, InFlight, Session as Device, Terms},
};
use moorline_protocol::Imei;
use moorline_server::{
    clock::Now as ServerNow,
    session::{self as server, Binding, Policy, Rejection, Session as Server},
};

/// The device of every pair, unless a test says otherwise.
pub const IMEI: u64 = 490_154_203_237_518;

/// 2026-01-01 00:00:00 UTC, the server's clock at the start.
pub const START_UTC_MS: i64 = 1_767_225_600_000;

/// What a pair is made of; the default is a good line between two that agree.
#[derive(Clone)]
pub struct Setup {
    /// What is spoken.
    pub dialect: agent::Dialect,
    /// The IMEI that the device registers.
    pub imei: Imei,
    /// The IMEI that its certificate names.
    pub certified: Option<Imei>,
    /// What the device asks for.
    pub terms: Terms,
    /// What the server allows.
    pub policy: Policy,
    /// How far the device's clock is behind the server's, milliseconds.
    pub clock_behind_ms: i64,
    /// One way.
    pub latency: Duration,
    /// Packets hold at most this many bytes.
    pub packet: usize,
    /// What the registry says.
    pub verdict: Result<u64, Rejection>,
}

impl Default for Setup {
    fn default() -> Self {
        let imei = Imei::try_from(IMEI).expect("the constant is an IMEI");
        Self {
            dialect: agent::Dialect::Native,
            imei,
            certified: Some(imei),
            terms: Terms {
                interval: Duration::from_secs(60),
                timeout: Duration::from_secs(10),
                round_trip: RoundTrip::default(),
            },
            policy: Policy {
                binding: Binding::Required,
                heartbeat_min: Duration::from_secs(10),
                heartbeat_max: Duration::from_secs(30 * 60),
                classic_idle: Duration::from_secs(90),
                first_message: Duration::from_secs(30),
                spread: Duration::from_secs(120),
                time_zone: TimeZone::UTC,
            },
            clock_behind_ms: 0,
            latency: Duration::from_millis(200),
            packet: usize::MAX,
            verdict: Ok(7),
        }
    }
}

impl Setup {
    /// The default, classic.
    #[must_use]
    pub fn classic() -> Self {
        Self { dialect: agent::Dialect::Classic, ..Self::default() }
    }

    /// Joins the two.
    #[must_use]
    pub fn join(self) -> Pair {
        Pair::new(self)
    }
}

/// One direction of the line: packets with the time they arrive at.
type Packets = VecDeque<(Instant, Vec<u8>)>;

/// The two sessions and the line between them.
pub struct Pair {
    setup: Setup,
    start: Instant,
    now: Instant,
    device: Device,
    server: Server,
    up: Packets,
    down: Packets,
    /// When TCP will have acknowledged all that the device sent; `None`: never, it is lost.
    acknowledged_at: Option<Instant>,
    /// Nothing gets through any more, and nobody is told.
    pub dark: bool,
    /// What the device's session told.
    pub device_events: Vec<(Duration, agent::Event)>,
    /// What the server's session told.
    pub server_events: Vec<(Duration, server::Event)>,
    /// Frames that the device sent: writes, as each is written by itself.
    pub device_writes: usize,
}

impl Pair {
    fn new(setup: Setup) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
        let start = Instant::now();
        let greeting = Greeting {
            imei: setup.imei,
            app_id: [7; 16],
            agent_version: "0.1.0".try_into().expect("short"),
            boot_id: [9; 16],
            modem: "Quectel EC25".try_into().expect("short"),
        };
        let dialect = match setup.dialect {
            agent::Dialect::Native => server::Dialect::Native,
            agent::Dialect::Classic => server::Dialect::Classic,
        };
        let device_now = DeviceNow { instant: start, utc_ms: START_UTC_MS - setup.clock_behind_ms };
        let server_now = ServerNow { instant: start, utc_ms: START_UTC_MS };
        Self {
            device: Device::new(setup.dialect, greeting, setup.terms, device_now),
            server: Server::new(dialect, setup.certified, Arc::new(setup.policy.clone()), server_now),
            setup,
            start,
            now: start,
            up: Packets::new(),
            down: Packets::new(),
            acknowledged_at: Some(start),
            dark: false,
            device_events: Vec::new(),
            server_events: Vec::new(),
            device_writes: 0,
        }
    }

    /// How much virtual time has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Lets `time` pass.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.settle();
            match self.next_wake().filter(|at| *at <= until) {
                Some(at) => self.now = at.max(self.now),
                None => break,
            }
        }
        self.now = until;
    }

    /// Lets time pass until the device's session is over, for at most `most`, and says how it ended.
    pub fn run_to_end(&mut self, most: Duration) -> Option<&agent::End> {
        let until = self.now + most;
        while self.device_end().is_none() && self.now < until {
            self.settle();
            let Some(at) = self.next_wake().filter(|at| *at <= until) else { break };
            self.now = at.max(self.now);
        }
        self.settle();
        self.device_end()
    }

    /// How the device's session ended, if it did.
    #[must_use]
    pub fn device_end(&self) -> Option<&agent::End> {
        self.device_events.iter().find_map(|(_, event)| match event {
            agent::Event::Ended(end) => Some(end),
            _ => None,
        })
    }

    /// How the server's session ended, if it did.
    #[must_use]
    pub fn server_end(&self) -> Option<server::Cause> {
        self.server_events.iter().find_map(|(_, event)| match event {
            server::Event::Ended(cause) => Some(*cause),
            _ => None,
        })
    }

    /// How often the server's session told something that `wanted` is true of.
    pub fn count(&self, wanted: impl Fn(&server::Event) -> bool) -> usize {
        self.server_events.iter().filter(|(_, event)| wanted(event)).count()
    }

    /// Both sessions, for what a test has to do to them by hand.
    pub const fn sessions(&mut self) -> (&mut Device, &mut Server) {
        (&mut self.device, &mut self.server)
    }

    fn device_now(&self) -> DeviceNow {
        let passed = i64::try_from(self.elapsed().as_millis()).expect("no test runs for aeons");
        DeviceNow { instant: self.now, utc_ms: START_UTC_MS - self.setup.clock_behind_ms + passed }
    }

    fn server_now(&self) -> ServerNow {
        let passed = i64::try_from(self.elapsed().as_millis()).expect("no test runs for aeons");
        ServerNow { instant: self.now, utc_ms: START_UTC_MS + passed }
    }

    fn next_wake(&self) -> Option<Instant> {
        let arrivals = [&self.up, &self.down].into_iter().filter_map(|packets| packets.front().map(|p| p.0));
        arrivals.chain(self.device.poll_timeout()).chain(self.server.poll_timeout()).min()
    }

    /// Everything that is to happen at this instant, until nothing is left.
    fn settle(&mut self) {
        let in_flight = InFlight(self.acknowledged_at.is_none_or(|at| at > self.now));
        self.device.handle_timeout(self.device_now(), in_flight);
        self.server.handle_timeout(self.server_now());
        self.drain_device();
        self.drain_server();
        while let Some(bytes) = arrived(&mut self.up, self.now) {
            self.deliver_to_server(&bytes);
        }
        while let Some(bytes) = arrived(&mut self.down, self.now) {
            self.deliver_to_device(&bytes);
        }
    }

    /// Hands bytes to the server's session as if they had just arrived.
    pub fn deliver_to_server(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while !input.is_empty() {
            self.server.handle_bytes(&mut input, self.server_now());
            self.drain_server();
        }
    }

    /// Hands bytes to the device's session as if they had just arrived.
    pub fn deliver_to_device(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while !input.is_empty() {
            self.device.handle_bytes(&mut input, self.device_now());
            self.drain_device();
        }
    }

    fn drain_device(&mut self) {
        let mut out = [0; agent::MAX_TRANSMIT];
        loop {
            if let Some(len) = self.device.poll_transmit(&mut out, self.device_now()) {
                self.device_writes += 1;
                self.acknowledged_at =
                    self.acknowledged_at.filter(|_| !self.dark).map(|_| self.now + self.setup.latency * 2);
                send(&mut self.up, &out[..len], self.now + self.setup.latency, self.setup.packet, self.dark);
            } else if let Some(event) = self.device.poll_event() {
                self.device_events.push((self.elapsed(), event));
            } else {
                return;
            }
        }
    }

    fn drain_server(&mut self) {
        let mut out = [0; server::MAX_TRANSMIT];
        loop {
            if let Some(len) = self.server.poll_transmit(&mut out, self.server_now()) {
                send(
                    &mut self.down,
                    &out[..len],
                    self.now + self.setup.latency,
                    self.setup.packet,
                    self.dark,
                );
            } else if let Some(event) = self.server.poll_event() {
                if let server::Event::Registering(_) = event {
                    match self.setup.verdict {
                        Ok(session_id) => self.server.accept(session_id, self.setup.policy.spread),
                        Err(rejection) => self.server.reject(rejection),
                    }
                }
                self.server_events.push((self.elapsed(), event));
            } else {
                return;
            }
        }
    }
}

fn send(packets: &mut Packets, bytes: &[u8], arrives: Instant, packet: usize, dark: bool) {
    if !dark {
        packets.extend(bytes.chunks(packet.min(bytes.len())).map(|chunk| (arrives, chunk.to_vec())));
    }
}

fn arrived(packets: &mut Packets, now: Instant) -> Option<Vec<u8>> {
    packets.front().filter(|(at, _)| *at <= now)?;
    packets.pop_front().map(|(_, bytes)| bytes)
}
