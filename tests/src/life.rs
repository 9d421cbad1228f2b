//! A device's life on a modelled network, in virtual time: the agent's own session, keepalive, budget and backoff against
//! the server's own session, over one connection after another. A month takes some milliseconds.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moorline_agent::backoff::{Backoff, Cause, Limits};
use moorline_agent::budget::{self, Bound, Budget, Bytes, Level, Purpose, Snapshot, Spent};
use moorline_agent::clock::Now as DeviceNow;
use moorline_agent::fault::{Fault, Moment};
use moorline_agent::keepalive::{Keepalive, Learned, Notice, Settings};
use moorline_agent::link::LinkError;
use moorline_agent::report::UsageReporter;
use moorline_agent::session::{self as agent, Echo, End, Greeting, InFlight, Session as Device};
use moorline_protocol::{DeviceMessage, Imei, Usage};
use moorline_server::clock::Now as ServerNow;
use moorline_server::session::{self as server, Policy, Session as Server};

use crate::network::{Fate, Network};
use crate::pair::{IMEI, START_UTC_MS, Setup};
use crate::stream::{Direction, Stream};

/// How long a connection that nobody answers is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the server's TCP sends in vain, as its `listener.rs` has it, and the device's, as its `tcp.rs` does.
const SERVERS_PATIENCE: Duration = Duration::from_secs(120);
const DEVICES_PATIENCE: Duration = Duration::from_secs(100);

/// What a frame takes with IP's and TCP's headers; an acknowledgement takes less.
const PACKET: u64 = 76;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Sessions that the server took in.
    pub sessions: usize,
    /// Tries that came to none.
    pub failed_tries: usize,
    /// When each try was made, after the start.
    pub tries: Vec<Duration>,
    /// The server's questions that came at the end of a silence.
    pub echoes: usize,
    /// Those that were answered.
    pub echoes_answered: usize,
    /// Questions for the time.
    pub times: usize,
    /// Returns that were spread, the server having been lost.
    pub spread: usize,
    /// The device's own heartbeats that arrived.
    pub heartbeats: usize,
    /// What the server was told of the budget.
    pub usages: Vec<Usage>,
    /// What happened to the bounds.
    pub levels: Vec<(Bound, Level)>,
    /// Packets that were sent on connections that are over.
    packets: u64,
    /// What a person was told.
    pub notices: Vec<Notice>,
    /// What was worth a write to flash.
    pub writes: Vec<Learned>,
}

/// The default `[budget]`.
pub const BUDGET: budget::Limits = budget::Limits {
    attempts_per_hour: Some(60),
    attempts_per_day: Some(720),
    bytes_per_month: Some(10_000_000),
    spent: Spent::Trickle,
};

/// One connection with both sessions on it.
struct Connection {
    device: Device,
    server: Server,
    up: Stream,
    down: Stream,
    /// The server's session is over: its host resets what comes.
    server_gone: bool,
}

/// See the module.
pub struct Life {
    start: Instant,
    now: Instant,
    /// May be changed while life goes on.
    pub network: Network,
    /// The agent's.
    pub keepalive: Keepalive,
    /// Whether the server asks; one of an older version does not.
    pub server_asks: bool,
    /// What has been seen so far.
    pub tally: Tally,
    /// How far the device's wall clock is ahead of the server's, milliseconds.
    pub clock_ahead_ms: i64,
    /// The agent's.
    pub budget: Budget,
    reporter: UsageReporter,
    /// What Welcome says to spread a return over.
    pub spread: Duration,
    server_runs: bool,
    policy: Arc<Policy>,
    backoff: Backoff,
    connection: Option<Connection>,
    next_try: Option<Instant>,
    /// Since when the session stands.
    since: Instant,
}

impl Life {
    /// Begins on this network, of which nothing is known yet; `seed` is the backoff's.
    #[must_use]
    pub fn new(network: Network, settings: Settings, seed: u64) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
        let start = Instant::now();
        let limits = Limits {
            first: Duration::from_secs(1),
            max: Duration::from_secs(600),
            stable_after: Duration::from_secs(300),
        };
        let budget = Budget::new(BUDGET, &Snapshot::default());
        Self {
            start,
            now: start,
            network,
            keepalive: Keepalive::new(settings, Learned::default()),
            server_asks: true,
            tally: Tally::default(),
            clock_ahead_ms: 0,
            reporter: UsageReporter::new(&budget),
            budget,
            spread: Duration::ZERO,
            server_runs: true,
            policy: Arc::new(Setup::default().policy),
            backoff: Backoff::new(limits, seed),
            connection: None,
            next_try: Some(start),
            since: start,
        }
    }

    /// How much virtual time has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// The virtual time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Whether a session stands, as far as the device knows.
    #[must_use]
    pub const fn is_online(&self) -> bool {
        self.connection.is_some()
    }

    /// Packets of both directions that were sent, acknowledgements among them.
    #[must_use]
    pub fn packets(&self) -> u64 {
        let standing =
            self.connection.as_ref().map_or(0, |connection| connection.up.sent + connection.down.sent);
        self.tally.packets + standing
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

    /// Bounds what a server grants from the next session on.
    pub fn set_heartbeat_max(&mut self, max: Duration) {
        Arc::make_mut(&mut self.policy).heartbeat_max = max;
    }

    /// The server's process dies, and its sessions with it. Its host tells those devices that it reaches, and refuses who
    /// comes; behind a black hole it does neither, as a dead host.
    pub fn kill_server(&mut self) {
        self.server_runs = false;
        let Some(mut connection) = self.connection.take() else { return };
        connection.server_gone = true;
        if self.network.covered && !self.network.black_hole {
            self.close(&connection);
            self.on_lost(&broken(
                &connection.device,
                &LinkError::Closed { cleanly: false },
                self.device_now(),
            ));
        } else {
            self.connection = Some(connection);
        }
    }

    /// It runs again.
    pub const fn start_server(&mut self) {
        self.server_runs = true;
    }

    fn next_wake(&self) -> Option<Instant> {
        let connection = self.connection.iter().flat_map(|connection| {
            let server = connection.server.poll_timeout().filter(|_| !connection.server_gone);
            [connection.device.poll_timeout(), server, connection.up.next(), connection.down.next()]
        });
        connection.flatten().chain(self.next_try).min()
    }

    fn settle(&mut self) {
        if self.next_try.is_some_and(|at| at <= self.now) {
            self.connect();
        }
        self.note_levels();
        let Some(mut connection) = self.connection.take() else { return };
        self.offer_usage(&mut connection.device);
        match self.serve(&mut connection) {
            Ok(()) => self.connection = Some(connection),
            Err(fault) => {
                self.close(&connection);
                self.on_lost(&fault);
            }
        }
    }

    /// The session is over: the next try is waited for as `uplink.rs` does.
    fn on_lost(&mut self, fault: &Fault) {
        let healthy = self.now - self.since;
        let delay = if fault.server_lost {
            self.tally.spread += 1;
            self.backoff.server_lost(healthy, self.spread)
        } else {
            self.backoff.next_delay(fault.cause, healthy, fault.retry_after)
        };
        self.next_try = Some(self.now + delay);
    }

    /// Books what a connection has taken.
    fn close(&mut self, connection: &Connection) {
        let packets = connection.up.sent + connection.down.sent;
        self.tally.packets += packets;
        self.count_bytes(Purpose::Heartbeat, packets * PACKET);
    }

    fn count_bytes(&mut self, purpose: Purpose, headers: u64) {
        let tally = budget::Tally::default();
        tally.add(purpose, Bytes { headers, ..Bytes::default() });
        self.budget.count_bytes(&tally.take(), self.now);
    }

    /// What `ledger.rs` does with what the budget tells.
    fn note_levels(&mut self) {
        while let Some(event) = self.budget.poll_event(self.now) {
            if let budget::Event::Reached(bound, level) = event {
                self.reporter.handle_level(bound, level);
                self.tally.levels.push((bound, level));
            }
        }
    }

    /// As `uplink/spending.rs` does.
    fn offer_usage(&self, device: &mut Device) {
        if let Some(usage) = self.reporter.poll_usage(&self.budget, self.now) {
            device.tell_usage(usage);
        }
    }

    fn connect(&mut self) {
        self.next_try = None;
        if let Err(wait) = self.budget.may_attempt(self.now) {
            self.next_try = Some(wait.until);
            return;
        }
        self.budget.count_attempt(self.now);
        self.tally.tries.push(self.elapsed());
        match self.network.connect(self.now) {
            Fate::Arrives(at) if !self.server_runs => self.retry(at - self.now),
            Fate::Arrives(_) => {
                self.count_bytes(Purpose::Full, budget::RECONNECT);
                let greeting = Greeting {
                    imei: Imei::try_from(IMEI).expect("the constant is an IMEI"),
                    app_id: [7; 16],
                    agent_version: "0.1.0".try_into().expect("short"),
                    boot_id: [9; 16],
                    modem: "Quectel EC25".try_into().expect("short"),
                };
                let terms = self.keepalive.terms(agent::Dialect::Native);
                let certified = Some(greeting.imei);
                let (device_now, server_now) = (self.device_now(), self.server_now());
                self.connection = Some(Connection {
                    device: Device::new(agent::Dialect::Native, greeting, terms, device_now),
                    server: Server::new(
                        server::Dialect::Native,
                        certified,
                        Arc::clone(&self.policy),
                        server_now,
                    ),
                    up: Stream::new(Direction::Up),
                    down: Stream::new(Direction::Down),
                    server_gone: false,
                });
                self.since = self.now;
            }
            Fate::Lost | Fate::Reset(_) => self.retry(CONNECT_TIMEOUT),
        }
    }

    /// The try came to nothing after that time.
    fn retry(&mut self, after: Duration) {
        self.tally.failed_tries += 1;
        self.keepalive.drop_suspicion();
        let delay = self.backoff.next_delay(Cause::Network, Duration::ZERO, None);
        self.next_try = Some(self.now + after + delay);
    }

    /// Everything that is to happen at this instant, or what left the device without a connection.
    fn serve(&mut self, connection: &mut Connection) -> Result<(), Fault> {
        let came_up = connection.up.turn(&mut self.network, self.now);
        connection.server_gone |= connection.down.gives_up(SERVERS_PATIENCE, self.now);
        if connection.up.gives_up(DEVICES_PATIENCE, self.now) {
            let error = LinkError::Socket(ErrorKind::TimedOut.into());
            return Err(broken(&connection.device, &error, self.device_now()));
        }
        let came_down = connection.down.turn(&mut self.network, self.now);
        if connection.server_gone && !came_up.is_empty() {
            return Err(reset(&connection.device, self.device_now()));
        }
        came_up.iter().for_each(|bytes| self.deliver_up(bytes, connection));
        for bytes in came_down {
            let mut input = bytes.as_slice();
            while !input.is_empty() {
                connection.device.handle_bytes(&mut input, self.device_now());
                self.drain_device(connection)?;
            }
        }
        if connection.up.is_reset(self.now) {
            return Err(reset(&connection.device, self.device_now()));
        }
        let in_flight = InFlight(connection.up.is_in_flight());
        connection.device.handle_timeout(self.device_now(), in_flight);
        if !connection.server_gone {
            connection.server.handle_timeout(self.server_now());
            self.drain_server(connection);
        }
        self.drain_device(connection)
    }

    fn deliver_up(&mut self, bytes: &[u8], connection: &mut Connection) {
        // The device writes a frame at a time, which is a segment here; the length field of a short one is one byte.
        let interval = matches!(DeviceMessage::decode(&bytes[1..]), Ok(DeviceMessage::Interval { .. }));
        if interval && !self.server_asks {
            return;
        }
        let mut input = bytes;
        while !input.is_empty() {
            connection.server.handle_bytes(&mut input, self.server_now());
            self.drain_server(connection);
        }
    }

    fn drain_device(&mut self, connection: &mut Connection) -> Result<(), Fault> {
        let mut out = [0; agent::MAX_TRANSMIT];
        loop {
            if let Some(event) = connection.device.poll_event() {
                if let Some(pace) = self.keepalive.handle_event(&event, self.now) {
                    connection.device.set_pace(pace);
                }
                self.tally.notices.extend(self.keepalive.take_notice());
                self.tally.writes.extend(self.keepalive.take_learned());
                match event {
                    agent::Event::Registered { .. } => {
                        self.reporter.handle_session();
                        self.note_levels();
                        self.offer_usage(&mut connection.device);
                    }
                    agent::Event::UsageTold => self.reporter.handle_told(&self.budget, self.now),
                    agent::Event::Echo(Echo::Came { .. }) => self.tally.echoes += 1,
                    agent::Event::Ended(end) => {
                        assert!(!matches!(end, End::Protocol(_) | End::Rejected { .. }), "{end:?}");
                        return Err(Fault::of_session(&end));
                    }
                    _ => {}
                }
            } else if let Some(len) = connection.device.poll_transmit(&mut out, self.device_now()) {
                connection.up.send(&out[..len], &mut self.network, self.now);
            } else {
                return Ok(());
            }
        }
    }

    fn drain_server(&mut self, connection: &mut Connection) {
        let mut out = [0; server::MAX_TRANSMIT];
        loop {
            if let Some(len) = connection.server.poll_transmit(&mut out, self.server_now()) {
                connection.down.send(&out[..len], &mut self.network, self.now);
            } else if let Some(event) = connection.server.poll_event() {
                match event {
                    server::Event::Registering(_) => {
                        self.tally.sessions += 1;
                        connection.server.accept(self.tally.sessions as u64, self.spread);
                    }
                    server::Event::Heartbeat => self.tally.heartbeats += 1,
                    server::Event::EchoAck { .. } => self.tally.echoes_answered += 1,
                    server::Event::TimeAsked => self.tally.times += 1,
                    server::Event::Usage(usage) => self.tally.usages.push(*usage),
                    server::Event::Ended(_) => connection.server_gone = true,
                    _ => {}
                }
            } else {
                return;
            }
        }
    }

    fn device_now(&self) -> DeviceNow {
        DeviceNow { instant: self.now, utc_ms: self.utc_ms().saturating_add(self.clock_ahead_ms) }
    }

    fn server_now(&self) -> ServerNow {
        ServerNow { instant: self.now, utc_ms: self.utc_ms() }
    }

    fn utc_ms(&self) -> i64 {
        START_UTC_MS + i64::try_from(self.elapsed().as_millis()).expect("no test runs for aeons")
    }
}

/// What this error tells of the link under a session that stood.
fn broken(device: &Device, error: &LinkError, now: DeviceNow) -> Fault {
    let moment = if device.is_ending_silence(now) { Moment::SilenceEnded } else { Moment::Online };
    Fault::of_link(error, moment, now.utc_ms)
}

fn reset(device: &Device, now: DeviceNow) -> Fault {
    broken(device, &LinkError::Socket(ErrorKind::ConnectionReset.into()), now)
}
