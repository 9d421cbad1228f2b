//! Three servers, each with its own lines to NATS, and what is done to them.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use super::Fault;
use crate::failure::Failure;
use crate::http::Operators;
use crate::nats::Nats;
use crate::programs::program;
use crate::relay::Relay;
use crate::rig::{Rig, Server};

/// The servers' names.
pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];
/// How soon a server that was started again has what the others have.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Stage {
    pub(super) rig: Rig,
    servers: Vec<Server>,
    /// Of each server, one to each NATS server.
    lines: Vec<Vec<Relay>>,
    nats: Nats,
    /// Which NATS server was killed alone.
    dead: Option<usize>,
}

impl Stage {
    pub(super) fn build(nats: usize) -> Result<Self, Failure> {
        let (rig, replicas) = (Rig::new()?, nats as u64);
        let nats = if nats == 1 { Nats::start()? } else { Nats::three()? };
        // Built once: a server that is started again is not to wait for a compiler.
        let program = program("moorline-server")?;
        let (mut servers, mut lines) = (Vec::new(), Vec::new());
        for name in NAMES {
            let own: Vec<Relay> = nats.addresses().into_iter().map(Relay::start).collect();
            let urls: Vec<String> = own.iter().map(|line| format!("nats://{}", line.address())).collect();
            let setup = rig.server()?.program(&program).node(name, &urls);
            servers.push(setup.set_number("cluster.replicas", replicas).start()?);
            lines.push(own);
        }
        Ok(Self { rig, servers, lines, nats, dead: None })
    }

    pub(super) fn devices(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(Server::devices).collect()
    }

    pub(super) fn operators(&self) -> Vec<Operators> {
        self.servers.iter().map(Server::operators).collect()
    }

    /// Leaves what each server said in a folder that stays.
    pub(super) fn keep_words(&self) -> Result<PathBuf, Failure> {
        let folder = tempfile::Builder::new().prefix("moorline-campaign-").tempdir()?.keep();
        for (server, name) in self.servers.iter().zip(NAMES) {
            fs::write(folder.join(format!("{name}.log")), server.lines().join("\n"))?;
        }
        Ok(folder)
    }

    pub(super) fn begin(&mut self, fault: Fault) -> Result<(), Failure> {
        match fault {
            Fault::Kill(server) => self.servers[server].kill(),
            Fault::KillNats => {
                let leader = self.nats.leader().unwrap_or(0);
                self.dead = Some(leader);
                self.nats.kill_one(leader)
            }
            Fault::KillAllNats => self.nats.kill(),
            Fault::CutOff(server) => {
                self.lines[server].iter().for_each(|line| line.set_dark(true));
                Ok(())
            }
            Fault::Hang(server) => self.servers[server].signal(Signal::STOP),
            Fault::Hop => Ok(()),
            Fault::Roll => self.servers.iter_mut().try_for_each(|server| {
                server.stop()?;
                server.start_again()?;
                is_ready(server)
            }),
        }
    }

    pub(super) fn heal(&mut self, fault: Fault) -> Result<(), Failure> {
        match fault {
            Fault::Kill(server) => {
                self.servers[server].start_again()?;
                is_ready(&self.servers[server])
            }
            Fault::KillNats => {
                self.nats.start_again(self.dead.take().unwrap_or(0))?;
                self.nats.wait_whole()
            }
            Fault::KillAllNats => {
                (0..self.nats.addresses().len()).try_for_each(|number| self.nats.start_again(number))?;
                self.nats.wait_whole()
            }
            Fault::CutOff(server) => {
                for line in &self.lines[server] {
                    // What was said into the dark is lost to both.
                    line.cut();
                    line.set_dark(false);
                }
                Ok(())
            }
            Fault::Hang(server) => self.servers[server].signal(Signal::CONT),
            Fault::Hop | Fault::Roll => Ok(()),
        }
    }
}

fn is_ready(server: &Server) -> Result<(), Failure> {
    server
        .operators()
        .wait_within(READY_WITHIN, "/readyz", "it is ready", |answer| (answer["ready"] == true).then_some(()))
}
