//! The running server: builds everything, serves until it is told to stop, and sends everyone home.

mod systemd;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use moorline_config::{HumanDuration, Mistakes};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::clock;
use crate::config::Config;
use crate::connection::Link;
use crate::listener;
use crate::metrics::Metrics;
use crate::refusals::Refusals;
use crate::registry::Registry;
use crate::seats::Seats;
use crate::store::{Fleet, Queue};
use crate::tls::TlsSource;
use systemd::Manager;

/// How long everyone may take to go; with the store's last batch, all is done within 5 s.
const DRAIN: Duration = Duration::from_secs(4);

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
    accepting: JoinHandle<()>,
    signals: Signals,
    manager: Manager,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl App {
    /// Builds everything and opens the ports.
    ///
    /// # Errors
    /// [`Failure`], with nothing left behind.
    pub async fn start(config: Config, credentials: Option<PathBuf>) -> Result<Self, Failure> {
        let signals = Signals::new().map_err(|fault| Failure::Start(format!("no signals: {fault}")))?;
        let capacity = listener::raise_descriptor_limit();
        let metrics = Arc::new(Metrics::new());
        let queue = Arc::new(Queue::new());
        let registry =
            Registry::new(Fleet::default(), config.register, queue, Arc::clone(&metrics), clock::now());
        let link = Arc::new(Link {
            tls: TlsSource::new(&config.tls)?,
            policy: ArcSwap::from_pointee(config.policy.clone()),
            registry: Arc::new(registry),
            metrics: Arc::clone(&metrics),
            crypto: Semaphore::new(config.handshakes),
            seats: Seats::new(capacity, metrics),
            refusals: Refusals::default(),
        });
        let port = listener::open(config.devices).map_err(|fault| cannot_listen(&config, &fault))?;
        let address = port.local_addr().map_err(|fault| cannot_listen(&config, &fault))?;
        say_policy(&config, capacity);
        info!("listening for devices on {address}");
        let accepting = tokio::spawn(listener::accept(port, Arc::clone(&link)));
        Ok(Self { config, credentials, link, accepting, signals, manager: Manager::from_environment() })
    }

    /// Serves until a signal says stop.
    pub async fn run(mut self) {
        self.manager.ready();
        let mut tick = tokio::time::interval(self.manager.interval());
        loop {
            tokio::select! {
                _ = self.signals.terminate.recv() => break info!("told to stop (SIGTERM)"),
                _ = self.signals.interrupt.recv() => break info!("told to stop (SIGINT)"),
                _ = self.signals.hangup.recv() => self.reload(),
                _ = tick.tick() => {
                    let (online, open) = (self.link.registry.online(), self.link.seats.taken());
                    self.manager.alive(&format!("{online} devices online, {open} connections open"));
                }
            }
        }
        self.stop().await;
    }

    /// Reads configuration and certificates anew. Sessions that stand keep what they were granted.
    fn reload(&mut self) {
        self.manager.reloading();
        let renewed = Config::read(&self.config.file, self.credentials.as_deref()).and_then(|newer| {
            self.link.tls.reload(&newer.tls)?;
            Ok(newer)
        });
        match renewed {
            Ok(newer) => {
                newer.warnings.iter().for_each(|warning| warn!("{warning}"));
                for key in self.config.needs_restart(&newer) {
                    warn!("{key} has changed and needs a restart");
                }
                self.link.policy.store(Arc::new(newer.policy.clone()));
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
        self.accepting.abort();
        // Nobody is seated after this, so that everyone is told.
        let _ = self.accepting.await;
        let seats = &self.link.seats;
        let told = seats.dismiss(self.config.policy.spread);
        info!("{told} connections told to go, to return within {}", HumanDuration(self.config.policy.spread));
        if tokio::time::timeout(DRAIN, seats.all_left()).await.is_err() {
            warn!("{} connections did not end in time", seats.taken());
        }
        info!("stopped");
    }
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

fn cannot_listen(config: &Config, fault: &io::Error) -> Failure {
    Failure::Start(format!("{}: listen.devices: {}: {fault}", config.file.display(), config.devices))
}
