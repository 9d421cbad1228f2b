//! A server that is tried: Moorline's, or another that holds mutually authenticated TLS sessions.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::certs::Credentials;
use crate::failure::Failure;
use crate::load::{Speech, Usage};
use crate::process::{PATIENCE, Program};
use crate::rig::{Rig, Server, host};

use super::machine::{Pinned, SERVERS_CORE};
use super::mosquitto;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Moorline's own, spoken to natively, which keeps so many sessions for resuming them.
    Moorline {
        /// `tls.sessions`.
        sessions: u32,
    },
    /// The same, spoken to as older fleets do.
    Classic,
    /// Eclipse Mosquitto, as the distribution ships it.
    Mosquitto {
        /// TLS tickets for each full handshake.
        tickets: u32,
    },
    /// A thread for each device, in Python.
    Python,
}

/// A running server.
pub struct Subject {
    kind: Kind,
    running: Running,
    address: SocketAddr,
}

enum Running {
    Moorline(Box<Server>),
    Other { program: Program, command: Box<Command>, ready: &'static str },
}

impl Kind {
    /// What it is called in tables.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Moorline { sessions: 0 } => "moorline, no tickets".to_owned(),
            Self::Moorline { .. } => "moorline, 1 ticket".to_owned(),
            Self::Classic => "moorline, classic".to_owned(),
            Self::Mosquitto { tickets: 1 } => "mosquitto, 1 ticket".to_owned(),
            Self::Mosquitto { tickets } => format!("mosquitto, {tickets} tickets"),
            Self::Python => "python, a thread each".to_owned(),
        }
    }

    /// How it is spoken to.
    #[must_use]
    pub const fn speech(self) -> Speech {
        match self {
            Self::Moorline { .. } => Speech::Native,
            Self::Classic | Self::Python => Speech::Classic,
            Self::Mosquitto { .. } => Speech::Mqtt,
        }
    }

    /// Whether a session of it can be resumed.
    #[must_use]
    pub const fn resumes(self) -> bool {
        !matches!(self, Self::Moorline { sessions: 0 } | Self::Mosquitto { tickets: 0 } | Self::Python)
    }
}

impl Subject {
    /// Starts one; `None` where it is not to be had on this machine, which is said.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(kind: Kind, rig: &Rig) -> Result<Option<Self>, Failure> {
        let _pinned = Pinned::to(SERVERS_CORE)?;
        match kind {
            Kind::Moorline { sessions } => Self::moorline(kind, rig, sessions).map(Some),
            Kind::Classic => Self::moorline(kind, rig, 20_000).map(Some),
            Kind::Python => {
                let command = python(rig.pki().ca().as_path(), &rig.pki().server()?);
                Self::other(kind, command, "listening on ", None).map(Some)
            }
            Kind::Mosquitto { tickets } => {
                let Some((command, address)) = mosquitto::command(rig, tickets)? else { return Ok(None) };
                Self::other(kind, command, "running", Some(address)).map(Some)
            }
        }
    }

    /// One of Moorline's with such a database.
    ///
    /// # Errors
    /// It does not start.
    pub fn with_database(rig: &Rig, database: &Path) -> Result<Self, Failure> {
        let _pinned = Pinned::to(SERVERS_CORE)?;
        let server = rig.server()?.one_arena().set("store.path", database.display()).start()?;
        let (kind, address) = (Kind::Moorline { sessions: 16_384 }, server.devices());
        Ok(Self { kind, running: Running::Moorline(Box::new(server)), address })
    }

    fn moorline(kind: Kind, rig: &Rig, sessions: u32) -> Result<Self, Failure> {
        let server = rig.server()?.one_arena().set_number("tls.sessions", sessions.into()).start()?;
        let address = server.devices();
        Ok(Self { kind, running: Running::Moorline(Box::new(server)), address })
    }

    fn other(
        kind: Kind,
        mut command: Command,
        ready: &'static str,
        address: Option<SocketAddr>,
    ) -> Result<Self, Failure> {
        let mut program = Program::start(&mut command)?;
        let line = program.wait_for_within(ready, PATIENCE)?;
        let told = || line.rsplit_once(' ').and_then(|(_, address)| address.parse().ok());
        let address = address.or_else(told).ok_or_else(|| Failure::new(format!("no address in {line:?}")))?;
        Ok(Self { kind, running: Running::Other { program, command: Box::new(command), ready }, address })
    }

    /// Which it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens for devices.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it shows operators; only Moorline has some.
    #[must_use]
    pub fn moorline_server(&self) -> Option<&Server> {
        match &self.running {
            Running::Moorline(server) => Some(server),
            Running::Other { .. } => None,
        }
    }

    /// What it has used and holds.
    ///
    /// # Errors
    /// It is gone.
    pub fn usage(&self) -> Result<Usage, Failure> {
        Usage::of(match &self.running {
            Running::Moorline(server) => server.id(),
            Running::Other { program, .. } => program.id(),
        })
    }

    /// What `work` comes to, and this server's processor time for each of `count`, all of it and in the kernel.
    pub(super) fn measured<T>(
        &self,
        count: usize,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<(T, Duration, Duration), Failure> {
        let before = self.usage()?;
        let done = work()?;
        let (after, count) = (self.usage()?, count as u32);
        Ok((done, (after.processor - before.processor) / count, (after.kernel - before.kernel) / count))
    }

    /// Kills it, as a power cut would.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(&mut self) -> Result<(), Failure> {
        match &mut self.running {
            Running::Moorline(server) => server.kill(),
            Running::Other { program, .. } => program.kill(),
        }
    }

    /// Starts it again at the same address.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_again(&mut self) -> Result<(), Failure> {
        let _pinned = Pinned::to(SERVERS_CORE)?;
        match &mut self.running {
            Running::Moorline(server) => server.start_again(),
            Running::Other { program, command, ready } => {
                *program = Program::start(command)?;
                program.wait_for(ready).map(drop)
            }
        }
    }
}

fn python(ca: &Path, server: &Credentials) -> Command {
    let mut command = Command::new("python3");
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/classic/server.py"))
        .args([host().to_string().as_str(), "0"])
        .arg("--ca")
        .arg(ca)
        .arg("--certificate")
        .arg(&server.certificate)
        .arg("--key")
        .arg(&server.key);
    command
}
