//! Real agents and real servers on loopback, certified by one throw-away CA: one `Rig` per tale.
//!
//! ```text
//! let rig = Rig::new()?;
//! let mut server = rig.server()?.start()?;
//! let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
//! agent.wait_for("registered")?;
//! server.kill()?;
//! ```
//!
//! Every process has a loopback address of its own for what it lets listen. So the port that a killed server comes
//! back to cannot be taken meanwhile, neither by another test nor by the agent's attempts to connect.

use std::cell::Cell;
use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use moorline_protocol::Imei;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::certs::{Credentials, Keys, Pki};
use crate::failure::Failure;
use crate::field::Namespace;
use crate::http::Operators;
use crate::process::{PATIENCE, Program};
use crate::programs::program_with;
use crate::service_manager::ServiceManager;
use crate::settings::Settings;
use crate::wrong_clock::WrongClock;

/// For tales of one device: an IMEI whose TAC is for test equipment.
pub const IMEI: &str = "004999010640000";
/// A name that is in the servers' certificates.
pub const SERVER_NAME: &str = "localhost";

/// How soon a server has to be gone: its own promise is 5 s, the rest is for a busy machine.
pub const SERVER_STOP: Duration = Duration::from_secs(8);
/// How soon an agent has to be gone: its own promise is 1 s, the rest is for a busy machine.
pub const AGENT_STOP: Duration = Duration::from_secs(3);

/// A tale's certificates and folder; both end with the value.
pub struct Rig {
    folder: TempDir,
    pki: Pki,
    members: Cell<u32>,
}

impl Rig {
    /// A new CA with ECDSA keys, as Moorline's own tool makes them.
    ///
    /// # Errors
    /// Its files cannot be written.
    #[track_caller]
    pub fn new() -> Result<Self, Failure> {
        Self::with_keys(Keys::Ecdsa)
    }

    /// A new CA with such keys.
    ///
    /// # Errors
    /// Its files cannot be written.
    #[track_caller]
    pub fn with_keys(keys: Keys) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("moorline-rig-").tempdir()?;
        Ok(Self { folder, pki: Pki::with_keys(keys)?, members: Cell::new(0) })
    }

    /// The CA, for more certificates; bad ones too.
    #[must_use]
    pub const fn pki(&self) -> &Pki {
        &self.pki
    }

    /// A server about to start on free ports.
    ///
    /// # Errors
    /// Its files cannot be written.
    #[track_caller]
    pub fn server(&self) -> Result<ServerSetup, Failure> {
        let setup = Setup::new("moorline-server", self.member("server")?);
        let database = setup.folder.join("fleet.db");
        Ok(ServerSetup(setup)
            .set("listen.devices", SocketAddr::new(host(), 0))
            .set("listen.operators", SocketAddr::new(host(), 0))
            .set("tls.client_ca", self.pki.ca().display())
            .set("session.heartbeat_min", "1s")
            .set("session.spread", "1s")
            .set("store.path", database.display())
            .certified(&self.pki.server()?))
    }

    /// An agent about to start: certified for `imei`, told that it is its own, and quick to come back.
    ///
    /// # Errors
    /// Its files cannot be written, or `imei` is none.
    #[track_caller]
    pub fn agent(&self, server: SocketAddr, imei: &str) -> Result<AgentSetup, Failure> {
        let setup = Setup::new("moorline-agent", self.member("agent")?);
        let state = setup.folder.join("state");
        fs::create_dir(&state)?;
        Ok(AgentSetup(setup)
            .set("server.address", server)
            .set("server.name", SERVER_NAME)
            .set("server.trust", self.pki.ca().display())
            .set("identity.imei", imei)
            .set("heartbeat.interval", "1s")
            .set("heartbeat.timeout", "2s")
            .set("reconnect.first", "100ms")
            .set("reconnect.max", "500ms")
            .set("budget.attempts_per_hour", "off")
            .set("budget.attempts_per_day", "off")
            .set("state.dir", state.display())
            .certified(&self.pki.device(imei.parse::<Imei>()?)?))
    }

    /// The folder for all of it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A folder for one more program.
    #[track_caller]
    fn member(&self, name: &str) -> Result<PathBuf, Failure> {
        self.members.set(self.members.get() + 1);
        let folder = self.folder.path().join(format!("{name}-{}", self.members.get()));
        fs::create_dir(&folder)?;
        Ok(folder)
    }
}

/// This process's own address on loopback, all of 127.0.0.0/8 being the machine itself.
#[must_use]
pub fn host() -> IpAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | high & 63, middle, low).into()
}

/// An address of this process's own where nothing listens.
///
/// # Errors
/// No port is free.
pub fn free_address() -> io::Result<SocketAddr> {
    #[expect(clippy::disallowed_methods, reason = "closed at once; it only finds the port")]
    TcpListener::bind(SocketAddr::new(host(), 0))?.local_addr()
}

/// What a program is started with.
#[derive(Clone)]
struct Setup {
    name: &'static str,
    features: &'static [&'static str],
    /// The file to start, if it is not to be built for this run.
    program: Option<PathBuf>,
    folder: PathBuf,
    settings: Settings,
    environment: Vec<(&'static str, OsString)>,
    /// Where it runs, if that is not where the tale does.
    namespace: Option<Arc<Namespace>>,
    hear: Hear,
}

/// What each line that a program says is given to.
type Hear = Arc<dyn Fn(&str) + Send + Sync>;

impl Setup {
    fn new(name: &'static str, folder: PathBuf) -> Self {
        let environment = vec![("PATH", env::var_os("PATH").unwrap_or_default())];
        let hear = Arc::new(|_: &str| ());
        let settings = Settings::default();
        Self { name, features: &[], program: None, folder, settings, environment, namespace: None, hear }
    }

    fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// Writes the configuration and says how the program is started with it.
    ///
    /// It gets nothing of this process's environment that would make it speak to another systemd or journal.
    #[track_caller]
    fn command(&self) -> Result<Command, Failure> {
        fs::write(self.config(), self.settings.to_string())?;
        let program = self.program.clone().map_or_else(|| program_with(self.name, self.features), Ok)?;
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("RUNTIME_DIRECTORY", &self.folder)
            .envs(self.environment.clone())
            .current_dir(&self.folder)
            .arg("-c")
            .arg(self.config());
        Ok(match &self.namespace {
            Some(namespace) => namespace.command(&command),
            None => command,
        })
    }

    #[track_caller]
    fn start(&self) -> Result<Program, Failure> {
        let hear = Arc::clone(&self.hear);
        Program::start_heard(&mut self.command()?, move |line| hear(line))
    }
}

/// A server about to start.
#[must_use]
pub struct ServerSetup(Setup);

impl ServerSetup {
    /// Sets a key of its configuration, as `section.key`.
    pub fn set(mut self, key: &str, value: impl Display) -> Self {
        self.0.settings.set(key, value);
        self
    }

    /// Sets a key of its configuration to a number.
    pub fn set_number(mut self, key: &str, value: u64) -> Self {
        self.0.settings.set_number(key, value);
        self
    }

    /// One of several servers that share a fleet: under this name, in these NATS servers, each row in one of them.
    pub fn node(mut self, name: &str, nats: &[String]) -> Self {
        self.0.settings.set_list("cluster.nats", nats);
        self.set("cluster.node", name).set_number("cluster.replicas", 1)
    }

    /// Gives it another certificate.
    pub fn certified(self, by: &Credentials) -> Self {
        self.set("tls.certificate", by.certificate.display()).set("tls.key", by.key.display())
    }

    /// Puts it under a service manager.
    pub fn under(mut self, manager: &ServiceManager) -> Self {
        self.0.environment.extend(manager.environment());
        self
    }

    /// Gives it this wall clock.
    pub fn clock(mut self, clock: &WrongClock) -> Self {
        self.0.environment.extend(clock.environment());
        self
    }

    /// Has it run in this network namespace.
    pub fn within(mut self, namespace: &Arc<Namespace>) -> Self {
        self.0.namespace = Some(Arc::clone(namespace));
        self
    }

    /// Has all its threads allocate from one arena, as its unit does.
    pub fn one_arena(mut self) -> Self {
        self.0.environment.push(("MALLOC_ARENA_MAX", "1".into()));
        self
    }

    /// Has it log these lines, as `MOORLINE_LOG` has them.
    pub fn logging(mut self, filter: &str) -> Self {
        self.0.environment.push(("MOORLINE_LOG", filter.into()));
        self
    }

    /// Gives each line that it says to `hear` too.
    pub fn heard(mut self, hear: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.0.hear = Arc::new(hear);
        self
    }

    /// Starts this file instead of one built for this run.
    pub fn program(mut self, program: &Path) -> Self {
        self.0.program = Some(program.to_owned());
        self
    }

    /// How it is started, for a tale that has something else do it.
    ///
    /// # Errors
    /// It cannot be built, or its configuration not be written.
    #[track_caller]
    pub fn command(&self) -> Result<Command, Failure> {
        self.0.command()
    }

    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// It does not come to that.
    #[track_caller]
    pub fn start(self) -> Result<Server, Failure> {
        let mut program = self.0.start()?;
        let (devices, operators) = addresses(&mut program)?;
        let Self(mut setup) = self;
        // Where it is killed and started again, the devices look for it at the same place.
        setup.settings.set("listen.devices", devices);
        setup.settings.set("listen.operators", operators);
        Ok(Server { setup, program, devices, operators })
    }
}

/// A running server; it ends with the value.
pub struct Server {
    setup: Setup,
    program: Program,
    devices: SocketAddr,
    operators: SocketAddr,
}

impl Server {
    /// Where devices connect to.
    #[must_use]
    pub const fn devices(&self) -> SocketAddr {
        self.devices
    }

    /// What it shows its operators.
    #[must_use]
    pub const fn operators(&self) -> Operators {
        Operators(self.operators)
    }

    /// The folder that it is started in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.setup.folder
    }

    /// Sets a key of its configuration, sends SIGHUP and waits until it is in force.
    ///
    /// # Errors
    /// It does not come to that.
    #[track_caller]
    pub fn reload_with(&mut self, key: &str, value: impl Display) -> Result<(), Failure> {
        self.setup.settings.set(key, value);
        fs::write(self.setup.config(), self.setup.settings.to_string())?;
        self.reload()
    }

    /// Sends SIGHUP and waits until everything was read anew.
    ///
    /// # Errors
    /// It does not come to that.
    #[track_caller]
    pub fn reload(&mut self) -> Result<(), Failure> {
        self.signal(Signal::HUP)?;
        self.wait_for("configuration and certificates read anew").map(drop)
    }

    /// Sends SIGTERM and waits for its end with exit code 0.
    ///
    /// # Errors
    /// It does not end so.
    #[track_caller]
    pub fn stop(&mut self) -> Result<(), Failure> {
        self.program.stop(SERVER_STOP)
    }

    /// Starts it again after its end, at the same addresses, and waits until it listens.
    ///
    /// # Errors
    /// It does not come to that.
    #[track_caller]
    pub fn start_again(&mut self) -> Result<(), Failure> {
        self.program = self.setup.start()?;
        addresses(&mut self.program).map(drop)
    }
}

impl Deref for Server {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

/// Where a server listens for devices and for operators, from its own words.
#[track_caller]
fn addresses(program: &mut Program) -> Result<(SocketAddr, SocketAddr), Failure> {
    let (mut devices, mut operators) = (None, None);
    program.find("where it listens", PATIENCE, |line| {
        devices = devices.or_else(|| address_after(line, "listening for devices on "));
        operators = operators
            .or_else(|| address_after(line, "operators on http://"))
            .or_else(|| address_after(line, "operators on https://"));
        devices.zip(operators)
    })
}

fn address_after(line: &str, words: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(words)?;
    rest.split(|c: char| c.is_whitespace() || matches!(c, '/' | '"')).next()?.parse().ok()
}

/// An agent about to start.
#[derive(Clone)]
#[must_use]
pub struct AgentSetup(Setup);

impl AgentSetup {
    /// Sets a key of its configuration, as `section.key`.
    pub fn set(mut self, key: &str, value: impl Display) -> Self {
        self.0.settings.set(key, value);
        self
    }

    /// Sets a key of its configuration to a number.
    pub fn set_number(mut self, key: &str, value: u64) -> Self {
        self.0.settings.set_number(key, value);
        self
    }

    /// Gives it another certificate.
    pub fn certified(self, by: &Credentials) -> Self {
        self.set("identity.certificate", by.certificate.display()).set("identity.key", by.key.display())
    }

    /// Has it ask a modem who it is.
    pub fn modem(self, port: &Path) -> Self {
        self.set("identity.imei", "modem").set("modem.port", port.display())
    }

    /// Builds it with these cargo features.
    pub const fn features(mut self, features: &'static [&'static str]) -> Self {
        self.0.features = features;
        self
    }

    /// Puts it under a service manager.
    pub fn under(mut self, manager: &ServiceManager) -> Self {
        self.0.environment.extend(manager.environment());
        self
    }

    /// Starts this file instead of one built for this run.
    pub fn program(mut self, program: &Path) -> Self {
        self.0.program = Some(program.to_owned());
        self
    }

    /// Gives each line that it says to `hear` too.
    pub fn heard(mut self, hear: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.0.hear = Arc::new(hear);
        self
    }

    /// How it is started, for a tale that has something else do it.
    ///
    /// # Errors
    /// It cannot be built, or its configuration not be written.
    #[track_caller]
    pub fn command(&self) -> Result<Command, Failure> {
        self.0.command()
    }

    /// Leaves a key of its configuration to the default.
    pub fn unset(mut self, key: &str) -> Self {
        self.0.settings.unset(key);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// It cannot be built or started.
    #[track_caller]
    pub fn start(self) -> Result<Agent, Failure> {
        Ok(Agent { program: self.0.start()?, setup: self.0 })
    }
}

/// A running agent; it ends with the value.
pub struct Agent {
    setup: Setup,
    program: Program,
}

impl Agent {
    /// The folder that it is started in; `state` in it is its state folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.setup.folder
    }

    /// Sends SIGTERM and waits for its end with exit code 0.
    ///
    /// # Errors
    /// It does not end so.
    #[track_caller]
    pub fn stop(&mut self) -> Result<(), Failure> {
        self.program.stop(AGENT_STOP)
    }

    /// Starts it again after its end, as a reboot does.
    ///
    /// # Errors
    /// It cannot be started.
    #[track_caller]
    pub fn start_again(&mut self) -> Result<(), Failure> {
        self.program = self.setup.start()?;
        Ok(())
    }
}

impl Deref for Agent {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Agent {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_found_in_a_line() {
        let line = "2026-01-01T00:00:00Z  INFO listening for devices on [::1]:9089 since now";
        assert_eq!(address_after(line, "listening for devices on "), Some("[::1]:9089".parse().unwrap()));
        let line = "operators on http://127.0.0.1:9090/";
        assert_eq!(address_after(line, "operators on http://"), Some("127.0.0.1:9090".parse().unwrap()));
    }
}
