//! The running server: builds everything, serves until it is told to stop, and sends everyone home.

mod certificates;
mod fleet;
mod systemd;
mod tables;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use moorline_config::{HumanDuration, Mistakes};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::access::Gate;
use crate::admin::{self, Doors, Feed, Operators, Readiness};
use crate::capacity::Capacity;
use crate::clock;
use crate::config::{Config, cores};
use crate::connection::{self, Link};
use crate::listener;
use crate::metrics::Metrics;
use crate::ports::{Ports, SocketFile};
use crate::refusals::Refusals;
use crate::seats::Seats;
use crate::threads::Threads;
use crate::tls::TlsSource;
use crate::turns::Turns;
use crate::webhook::Webhook;
use fleet::Fleet;
use systemd::Manager;

/// How long everyone may take to go; with [`LAST_BATCH`], all is done within 5 s.
const DRAIN: Duration = Duration::from_millis(3500);
/// How often the store is told of devices that have been online for long.
const SAVE: Duration = Duration::from_secs(60);
/// How long the disk may take for what is left to store.
const LAST_BATCH: Duration = Duration::from_secs(1);

/// Why the server did not serve.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is wrong.
    Config(Mistakes),
    /// The machine does not give what the server needs.
    Start(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(mistakes) => mistakes.fmt(f),
            Self::Start(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self::Config(mistakes)
    }
}

/// The server, built and listening.
pub struct App {
    config: Config,
    credentials: Option<PathBuf>,
    link: Arc<Link>,
    fleet: Fleet,
    /// Ends when it is dropped.
    _webhook: Option<Webhook>,
    accepting: JoinHandle<()>,
    readiness: Arc<Readiness>,
    gate: Arc<Gate>,
    /// Dropped to end the operators' side.
    operators: oneshot::Sender<()>,
    signals: Signals,
    manager: Manager,
    /// What still lives on them ends with the rest.
    _threads: Threads,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl App {
    /// Builds everything and opens the ports; what it counts goes to `metrics`.
    ///
    /// # Errors
    /// [`Failure`], with nothing left behind.
    pub async fn start(
        config: Config,
        credentials: Option<PathBuf>,
        metrics: Metrics,
    ) -> Result<Self, Failure> {
        let signals = Signals::new().map_err(|fault| Failure::Start(format!("no signals: {fault}")))?;
        let capacity = listener::raise_descriptor_limit();
        say_policy(&config, capacity);
        let metrics = Arc::new(metrics);
        let tls = TlsSource::new(&config.tls)?;
        // Before the store, which a second server by mistake must not touch.
        let Ports { devices, operators, operators_socket } = Ports::open(&config)?;
        let fleet = Fleet::open(&config, &metrics).await?;
        let webhook = start_webhook(&config, &fleet, &metrics);
        let handshakes = Arc::new(Capacity::new(config.handshakes.min(cores())));
        let threads =
            Threads::start(cores()).map_err(|fault| Failure::Start(format!("no threads: {fault}")))?;
        let link = Arc::new(Link {
            tls,
            policy: ArcSwap::from_pointee(config.policy.clone()),
            registry: Arc::clone(&fleet.registry),
            metrics: Arc::clone(&metrics),
            turns: Turns::new(config.handshakes, Arc::clone(&handshakes)),
            capacity: handshakes,
            seats: Seats::new(capacity, metrics),
            proxies: config.proxies.clone(),
            refusals: Refusals::default(),
            homes: threads.homes(connection::live),
        });
        // Before operators can ask what it counts.
        tokio::spawn(certificates::watch(Arc::clone(&link)));
        let readiness = Arc::new(Readiness::default());
        let gate = Gate::new(config.access.clone(), link.metrics.operators().clone());
        let served = served(&link, &fleet, &readiness, &config)?;
        let operators = serve_operators(operators, operators_socket, served, Arc::clone(&gate), &threads);
        info!("listening for devices on {}", name_of(&devices));
        let accepting = tokio::spawn(listener::accept(devices, Arc::clone(&link)));
        readiness.set_accepting(true);
        let manager = Manager::from_environment();
        Ok(Self {
            config,
            credentials,
            link,
            fleet,
            _webhook: webhook,
            accepting,
            readiness,
            gate,
            operators,
            signals,
            manager,
            _threads: threads,
        })
    }

    /// Serves until a signal says stop.
    pub async fn run(mut self) {
        self.manager.ready();
        let mut tick = tokio::time::interval(self.manager.interval());
        let mut save = tokio::time::interval(SAVE);
        loop {
            tokio::select! {
                _ = self.signals.terminate.recv() => break info!("told to stop (SIGTERM)"),
                _ = self.signals.interrupt.recv() => break info!("told to stop (SIGINT)"),
                _ = self.signals.hangup.recv() => self.reload(),
                _ = save.tick() => {
                    let now = clock::now();
                    self.link.registry.save_last_seen(now);
                    self.link.registry.save_slot(now);
                }
                _ = tick.tick() => {
                    let (online, open) = (self.link.registry.online(), self.link.seats.taken());
                    self.manager.alive(&systemd::status(online, open));
                }
            }
        }
        self.stop().await;
    }

    /// Reads configuration and certificates anew. Sessions that stand keep what they were granted.
    fn reload(&mut self) {
        self.manager.reloading();
        let renewed = Config::read(&self.config.file, self.credentials.as_deref()).and_then(|newer| {
            self.link.tls.reload(&newer.tls, clock::now())?;
            Ok(newer)
        });
        match renewed {
            Ok(newer) => {
                newer.warnings.iter().for_each(|warning| warn!("{warning}"));
                for key in self.config.needs_restart(&newer) {
                    warn!("{key} has changed and needs a restart");
                }
                self.link.policy.store(Arc::new(newer.policy.clone()));
                self.link.registry.set_register(newer.register);
                // What suffices for another address may leave the one that is listened on open to all.
                let host = |config: &Config| config.operators.map(|address| address.ip());
                if host(&newer) == host(&self.config) {
                    self.gate.renew(newer.access);
                }
                self.config.policy = newer.policy;
                info!("configuration and certificates read anew");
            }
            Err(mistakes) => {
                for mistake in &mistakes {
                    error!("{mistake}");
                }
                error!("nothing was read anew: what was in force stays");
            }
        }
        self.manager.ready();
    }

    async fn stop(self) {
        self.manager.stopping();
        self.readiness.set_accepting(false);
        self.accepting.abort();
        // Nobody is seated after this, so that everyone is told.
        let _ = self.accepting.await;
        let seats = &self.link.seats;
        let window = self.link.capacity.window(seats.taken(), self.config.policy.spread);
        let told = seats.dismiss(window);
        let rate = self.link.capacity.per_second();
        info!(
            "{told} connections told to go, to return within {}: {rate} handshakes a second are possible",
            HumanDuration(window)
        );
        if tokio::time::timeout(DRAIN, seats.all_left()).await.is_err() {
            warn!("{} connections did not end in time", seats.taken());
        }
        drop(self.operators);
        self.fleet.close(LAST_BATCH).await;
        info!("stopped");
    }
}

fn served(
    link: &Arc<Link>,
    fleet: &Fleet,
    readiness: &Arc<Readiness>,
    config: &Config,
) -> Result<Operators, Failure> {
    let (looked_at, database) = (Arc::clone(link), config.store.clone());
    let feed = Feed::new(Arc::clone(&fleet.store), fleet.writer.stored(), fleet.registry.counts());
    Ok(Operators {
        registry: Arc::clone(&fleet.registry),
        store: Arc::clone(&fleet.store),
        feed: Arc::new(feed.map_err(|fault| Failure::Start(fault.to_string()))?),
        writer: Arc::clone(&fleet.writer),
        metrics: Arc::clone(&link.metrics),
        tables: Arc::new(move || tables::look(&looked_at, &database)),
        readiness: Arc::clone(readiness),
        changes: Arc::default(),
        cluster: fleet.cluster.clone(),
        backup: Arc::default(),
    })
}

/// Serves operators until the sender that is returned is dropped.
fn serve_operators(
    address: Option<TcpListener>,
    socket: Option<(UnixListener, SocketFile)>,
    operators: Operators,
    gate: Arc<Gate>,
    threads: &Threads,
) -> oneshot::Sender<()> {
    if let Some(port) = &address {
        info!("operators on {}://{}", gate.access().scheme(), name_of(port));
        info!("operators are let in there {}", gate.access().asks());
    }
    let (socket, file) = socket.unzip();
    if let Some(file) = &file {
        info!("operators on unix:{}", file.path().display());
    }
    let (sender, dropped) = oneshot::channel::<()>();
    threads.operators().spawn(async move {
        let doors = Doors { address, socket };
        admin::serve(doors, operators, gate, async {
            // It is never sent on.
            let _ = dropped.await;
        })
        .await;
        drop(file);
    });
    sender
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// A webhook that cannot begin is no reason to keep devices out.
fn start_webhook(config: &Config, fleet: &Fleet, metrics: &Metrics) -> Option<Webhook> {
    let settings = config.webhook.clone()?;
    let shared = fleet.cluster.as_ref().map(|cluster| cluster.cursor());
    let started = Webhook::start(settings, Arc::clone(&fleet.store), metrics.webhook().clone(), shared);
    started.inspect_err(|text| error!("events are not posted: {text}")).ok()
}

fn say_policy(config: &Config, capacity: usize) {
    let policy = &config.policy;
    info!("moorline-server {}, configuration {}", env!("CARGO_PKG_VERSION"), config.file.display());
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    info!(
        "binding {:?}, register {:?}, heartbeats {} to {}, classic silence {}, TLS {}",
        policy.binding,
        config.register,
        HumanDuration(policy.heartbeat_min),
        HumanDuration(policy.heartbeat_max),
        HumanDuration(policy.classic_idle),
        if config.tls.admit_tls12 { "1.3 and 1.2" } else { "1.3" },
    );
    info!("room for {capacity} connections, {} handshakes at once", config.handshakes);
}

/// A port's own address: the configured one may have said 0.
fn name_of(port: &TcpListener) -> String {
    port.local_addr().map_or_else(|fault| fault.to_string(), |address| address.to_string())
}
