//! What SPECIFICATION.md promises, measured: the agent's own link, in this process, against a real server through a relay
//! that counts.
//!
//! The link is the one that `moorline-agent` runs; only its loop is here. So a question can be asked between two steps:
//! how many bytes had passed when the server took the device in, how often the heartbeat allocated.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moorline_agent::budget::{Tally, Traffic};
use moorline_agent::clock::{self, Now, TicketClock};
use moorline_agent::link::{Link, LinkError};
use moorline_agent::round_trip::RoundTrip;
use moorline_agent::session::{Echo, Event, Greeting, Pace, Terms};
use moorline_agent::tls::{MinVersion, Tls};
use moorline_agent::trusted_time::TrustedTime;
use moorline_agent::{credentials, crypto, tcp};
use moorline_protocol::{DeviceMessage, Hello, Imei, ServerMessage, Usage, UsageBytes, Used, Welcome};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::client_hello::offered_tickets;
use crate::failure::Failure;
use crate::field::Field;
use crate::process::PATIENCE;
use crate::programs::program_in;
use crate::relay::{Bytes, Relay};
use crate::rig::{IMEI, Rig, SERVER_NAME, Server, ServerSetup};

/// The heartbeat interval that the probe asks for.
const INTERVAL: Duration = Duration::from_secs(60);

/// After which the agent asks for the time again.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a hasty server takes the longest silence for, so that no test waits for as long as a device does.
const SERVERS_SILENCE: &str = "2s";

/// A device whose link is driven by hand.
pub struct Probe<'f> {
    tls: Tls,
    tickets: Arc<AheadClock>,
    way: Way<'f>,
    greeting: Greeting,
    link: Option<Link>,
    tally: Rc<Tally>,
    /// How far the link's clock has been set ahead.
    ahead: Duration,
    /// What has to outlive the link: the server, and the folder with the certificates.
    _server: Server,
    _rig: Rig,
}

/// The agent's clock for tickets, seconds ahead.
#[derive(Debug, Default)]
struct AheadClock(AtomicU64);

impl TimeProvider for AheadClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = TicketClock.current_time()?.as_secs() + self.0.load(Ordering::SeqCst);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now)))
    }
}

/// How the server is reached.
enum Way<'f> {
    /// On loopback, through a relay that counts payload.
    Relay(Relay),
    /// From a field's device, whose line counts packets.
    Field(&'f Field, SocketAddr),
}

impl Way<'_> {
    const fn address(&self) -> SocketAddr {
        match self {
            Self::Relay(relay) => relay.address(),
            Self::Field(_, address) => *address,
        }
    }

    fn begin(&self) -> Result<TcpStream, Failure> {
        let begin = || Ok(tcp::begin(self.address(), PATIENCE)?);
        match self {
            Self::Relay(_) => begin(),
            Self::Field(field, _) => field.device.within(begin),
        }
    }

    fn bytes(&self) -> Bytes {
        match self {
            Self::Relay(relay) => relay.bytes(),
            Self::Field(..) => Bytes::default(),
        }
    }
}

/// What one connect cost, bytes of TCP payload; they are counted on loopback only.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Up to Welcome: the handshake with its ticket, Hello and Welcome.
    pub registered: Bytes,
    /// The same without Hello and Welcome.
    pub handshake: Bytes,
    /// What the agent's own count says of all up to Welcome.
    pub counted: Traffic,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The tickets that were offered; seen on loopback only.
    pub offered: Vec<Vec<u8>>,
}

/// What one heartbeat and its answer cost.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// Bytes of TCP payload.
    pub bytes: Bytes,
    /// Heap allocations of the agent's link.
    pub allocations: u64,
}

impl Probe<'static> {
    /// Starts a server and the relay in front of it.
    ///
    /// # Errors
    /// Something of it does not start.
    pub fn new() -> Result<Self, Failure> {
        let rig = Rig::new()?;
        let server = rig.server()?.start()?;
        let relay = Relay::start(server.devices());
        Self::on(Way::Relay(relay), server, rig)
    }
}

impl<'f> Probe<'f> {
    /// Starts a server in a field, whose device the probe is.
    ///
    /// # Errors
    /// Something of it does not start.
    pub fn across(field: &'f Field) -> Result<Self, Failure> {
        Self::in_field(field, |server| server)
    }

    /// As [`Self::across`], with a server that takes any silence for [`SERVERS_SILENCE`].
    ///
    /// # Errors
    /// Something of it does not start.
    pub fn across_hastily(field: &'f Field) -> Result<Self, Failure> {
        Self::in_field(field, |server| server.set("session.heartbeat_max", SERVERS_SILENCE))
    }

    fn in_field(
        field: &'f Field,
        with: impl FnOnce(ServerSetup) -> ServerSetup + Send,
    ) -> Result<Self, Failure> {
        field
            .server
            .within(|| {
                let rig = Rig::new()?;
                let at = SocketAddr::new(field.server_address(), 0);
                let server = with(rig.server()?.set("listen.devices", at)).start()?;
                let way = Way::Field(field, server.devices());
                Ok((way, server, rig))
            })
            .and_then(|(way, server, rig)| Self::on(way, server, rig))
    }

    fn on(way: Way<'f>, server: Server, rig: Rig) -> Result<Self, Failure> {
        let imei: Imei = IMEI.parse()?;
        let device = rig.pki().device(imei)?;
        let identity = credentials::certified_key(
            credentials::chain(&device.certificate).map_err(Failure::new)?,
            credentials::private_key(&device.key).map_err(Failure::new)?,
            &crypto::provider(),
        )
        .map_err(Failure::new)?;
        let roots = credentials::roots(&rig.pki().ca()).map_err(Failure::new)?;
        let time = Arc::new(TrustedTime::new(0));
        let tickets = Arc::new(AheadClock::default());
        let tls = Tls::new(MinVersion::Tls13, Arc::new(roots), &identity, time)?
            .with_ticket_clock(Arc::clone(&tickets) as _);
        let greeting = Greeting {
            imei,
            app_id: [0; 16],
            agent_version: text(env!("CARGO_PKG_VERSION")),
            boot_id: [7; 16],
            modem: text("Quectel EC25"),
        };
        Ok(Self {
            tls,
            tickets,
            way,
            greeting,
            link: None,
            tally: Rc::default(),
            ahead: Duration::ZERO,
            _server: server,
            _rig: rig,
        })
    }

    /// Connects and registers; the connection before, if there was one, ends first. The second time resumes.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn connect(&mut self) -> Result<Connect, Failure> {
        self.connect_by(SERVER_NAME)
    }

    /// As [`Self::connect`], to a server that is called `name` there.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn connect_by(&mut self, name: &str) -> Result<Connect, Failure> {
        self.end();
        let _ = self.tally.take();
        let before = self.way.bytes();
        let socket = self.way.begin()?;
        wait(socket.as_fd(), PollFlags::OUT)?;
        tcp::finish(&socket)?;
        let tls = self.tls.connection(name.to_owned().try_into()?, true)?;
        let mut link = Link::new(socket, self.way.address(), tls, Rc::clone(&self.tally));
        while !link.is_secured() {
            step(&mut link, clock::now())?;
        }
        let terms = Terms { interval: INTERVAL, timeout: PATIENCE, round_trip: RoundTrip::default() };
        link.begin_session(self.greeting.clone(), terms, clock::now());
        // The event comes before the time request goes out, so that Welcome is the last that was said.
        let welcome = loop {
            if let Some(Event::Registered { session_id, heartbeat, spread }) = step(&mut link, clock::now())?
            {
                break self.welcome(session_id, heartbeat, spread);
            }
        };
        let counted = self.tally.take();
        let registered = self.way.bytes().since(before);
        let handshake = Bytes {
            up: registered
                .up
                .saturating_sub(record(DeviceMessage::Hello(self.hello()).encode(&mut [0; 128])?)),
            down: registered.down.saturating_sub(record(welcome.encode(&mut [0; 128])?)),
        };
        while !matches!(step(&mut link, clock::now())?, Some(Event::Time { .. })) {}
        while link.poll(clock::now()).map_err(broken)?.is_some() {}
        let offered = match &self.way {
            Way::Relay(relay) => offered_tickets(&relay.first_bytes()),
            Way::Field(..) => Vec::new(),
        };
        let resumed = link.is_resumed();
        self.link = Some(link);
        Ok(Connect { registered, handshake, counted, resumed, offered })
    }

    /// Has the tickets be so much older.
    pub fn age_tickets(&self, by: Duration) {
        self.tickets.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    /// Ends the connection, if there is one.
    pub fn end(&mut self) {
        self.link = None;
    }

    /// What the agent counted since it was asked last.
    #[must_use]
    pub fn counted(&self) -> Traffic {
        self.tally.take()
    }

    /// The tickets that a connection offers which begins now, beside those that there are.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn race(&self) -> Result<Vec<Vec<u8>>, Failure> {
        Ok(offered_tickets(&self.client_hello()?))
    }

    /// What a connection that begins now says first; it takes the ticket, if there is one.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn client_hello(&self) -> Result<Vec<u8>, Failure> {
        let mut hello = Vec::new();
        self.tls.connection(SERVER_NAME.try_into()?, true)?.write_tls(&mut hello)?;
        Ok(hello)
    }

    /// One heartbeat and its answer.
    ///
    /// # Errors
    /// There is no link, or no answer.
    pub fn heartbeat(&mut self) -> Result<Heartbeat, Failure> {
        let before = self.way.bytes();
        // The heartbeat is due once the interval has passed, which the session takes from its argument.
        self.ahead += INTERVAL;
        let ahead = self.ahead;
        let link = self.link()?;
        let mut outcome = Ok(());
        let allocated = allocation_counter::measure(|| outcome = beat(link, ahead));
        outcome?;
        Ok(Heartbeat { bytes: self.way.bytes().since(before), allocations: allocated.count_total })
    }

    /// As [`Self::heartbeat`], with what the device has used told along with it.
    ///
    /// # Errors
    /// There is no link, or no answer.
    pub fn heartbeat_with_usage(&mut self) -> Result<Heartbeat, Failure> {
        let session = self.link()?.session().ok_or_else(|| Failure::new("no session"))?;
        session.tell_usage(long_usage());
        self.heartbeat()
    }

    /// Tells the server the silence that the device has learned.
    ///
    /// # Errors
    /// There is no link.
    pub fn tell(&mut self, silence: Duration) -> Result<(), Failure> {
        let ahead = self.ahead;
        let link = self.link()?;
        let session = link.session().ok_or_else(|| Failure::new("no session"))?;
        session.set_pace(Pace::Probed(silence));
        drain(link, ahead)
    }

    /// A silence as long as was told, to the server's question at its end and to what the device makes of it.
    ///
    /// # Errors
    /// There is no link, or no question.
    pub fn be_silent(&mut self, silence: Duration) -> Result<(), Failure> {
        self.ahead += silence;
        let ahead = self.ahead;
        let link = self.link()?;
        while !matches!(step(link, later(ahead))?, Some(Event::Echo(Echo::Came { .. }))) {}
        drain(link, ahead)
    }

    /// A day later the time is asked for.
    ///
    /// # Errors
    /// There is no link, or no answer.
    pub fn ask_time(&mut self) -> Result<(), Failure> {
        self.ahead += DAY;
        let ahead = self.ahead;
        let link = self.link()?;
        link.handle_timeout(later(ahead)).map_err(broken)?;
        while !matches!(step(link, later(ahead))?, Some(Event::Time { .. })) {}
        drain(link, ahead)
    }

    fn link(&mut self) -> Result<&mut Link, Failure> {
        self.link.as_mut().ok_or_else(|| Failure::new("connect first"))
    }

    fn hello(&self) -> Hello {
        let Greeting { imei, app_id, agent_version, boot_id, modem } = self.greeting.clone();
        let heartbeat_s = u32::try_from(INTERVAL.as_secs()).unwrap_or(u32::MAX);
        Hello { imei: imei.as_u64(), app_id, agent_version, boot_id, heartbeat_s, modem }
    }

    /// The Welcome that was heard: its length is told by its fields.
    fn welcome(&self, session_id: Option<u64>, heartbeat: Duration, spread: Duration) -> ServerMessage {
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        ServerMessage::Welcome(Welcome {
            session_id: session_id.unwrap_or(0),
            heartbeat_s: seconds(heartbeat),
            server_time_ms: clock::now().utc_ms,
            spread_s: seconds(spread),
        })
    }
}

/// What a device has used that is at its default bounds: no number of it gets longer in the field.
fn long_usage() -> Usage {
    let (much, limit) = (9_999_999, Some(10_000_000));
    Usage {
        bytes: UsageBytes {
            full: much,
            resumed: much,
            heartbeats: much,
            reports: much,
            time: much,
            other: much,
            headers: much,
        },
        hour: Used { amount: 60, limit: Some(60), level: 2, peak: 2, left_s: 3_600 },
        day: Used { amount: 720, limit: Some(720), level: 2, peak: 2, left_s: 86_400 },
        month: Used { amount: 10_000_000, limit, level: 2, peak: 2, left_s: 2_592_000 },
    }
}

/// The agent's two flavours for this machine, built when they are not fresh.
///
/// # Errors
/// The compiler refused one.
pub fn agent_sizes() -> Result<[(&'static str, PathBuf); 2], Failure> {
    Ok([
        ("release", program_in("moorline-agent", "release")?),
        ("smallest", program_in("moorline-agent", "smallest")?),
    ])
}

/// A frame's bytes as one TLS 1.3 record: header, content type and tag make 22 (RFC 8446 section 5.2).
fn record(frame: usize) -> u64 {
    frame as u64 + 22
}

/// Waits for the server and lets the link react; the first event that comes of it.
fn step(link: &mut Link, now: Now) -> Result<Option<Event>, Failure> {
    if let Some(event) = link.poll(now).map_err(broken)? {
        return Ok(Some(event));
    }
    wait(link.as_fd(), link.interest())?;
    link.handle_readable(now).map_err(broken)?;
    link.poll(now).map_err(broken)
}

/// A heartbeat from its deadline to its answer, as the agent's loop goes through it.
fn beat(link: &mut Link, ahead: Duration) -> Result<(), Failure> {
    let now = later(ahead);
    link.handle_timeout(now).map_err(broken)?;
    while !matches!(step(link, now)?, Some(Event::Answered { .. })) {}
    Ok(())
}

/// Sends and hears what there is.
fn drain(link: &mut Link, ahead: Duration) -> Result<(), Failure> {
    while link.poll(later(ahead)).map_err(broken)?.is_some() {}
    Ok(())
}

/// So much later than now.
fn later(ahead: Duration) -> Now {
    let now = clock::now();
    Now { instant: now.instant + ahead, ..now }
}

fn wait(fd: BorrowedFd<'_>, wanted: PollFlags) -> Result<(), Failure> {
    let patience = Timespec { tv_sec: PATIENCE.as_secs().try_into()?, tv_nsec: 0 };
    match poll(&mut [PollFd::from_borrowed_fd(fd, wanted)], Some(&patience))? {
        0 => Err(Failure::new("the server did not answer")),
        _ => Ok(()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn broken(error: LinkError) -> Failure {
    Failure::new(format!("the link broke: {error:?}"))
}

fn text<const N: usize>(text: &str) -> heapless::String<N> {
    text.try_into().unwrap_or_default()
}
