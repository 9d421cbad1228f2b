//! Three servers, each with its own lines to NATS, and what is done to them. Where that is allowed the last one is on an island.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::Fault;
use crate::failure::Failure;
use crate::field::{Island, may_have_fields};
use crate::http::Operators;
use crate::load::Door;
use crate::nats::Nats;
use crate::programs::program;
use crate::relay::Relay;
use crate::rig::{Rig, Server};
use crate::several::NAMES;
use crate::wrong_clock::WrongClock;

/// Which of them is on the island, where there is one.
const ISLANDER: usize = 2;
const AN_HOUR: i64 = 60 * 60;
/// How soon a server that was started again has what the others have.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Stage {
    pub(super) rig: Rig,
    servers: Vec<Server>,
    clocks: Vec<WrongClock>,
    /// Of each server, one to each NATS server; of one on an island none.
    lines: Vec<Vec<Relay>>,
    island: Option<Island>,
    /// Where operators reach each server.
    doors: Vec<Operators>,
    _way: Option<Relay>,
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
        let island = may_have_fields().then(|| Island::new(&nats.addresses())).transpose()?;
        let (mut servers, mut clocks, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for (number, name) in NAMES.into_iter().enumerate() {
            let clock = WrongClock::new(rig.folder())?;
            let setup = rig.server()?.program(&program).clock(&clock);
            let setup = setup.set_number("cluster.replicas", replicas);
            let (setup, own) = match island.as_ref().filter(|_| number == ISLANDER) {
                Some(island) => (setup.within(&island.place).node(name, &island.urls()), Vec::new()),
                None => {
                    let own: Vec<Relay> = nats.addresses().into_iter().map(Relay::start).collect();
                    let urls: Vec<String> =
                        own.iter().map(|line| format!("nats://{}", line.address())).collect();
                    (setup.node(name, &urls), own)
                }
            };
            servers.push(setup.start()?);
            clocks.push(clock);
            lines.push(own);
        }
        let way = island.as_ref().map(|island| island.way_to(servers[ISLANDER].operators().0)).transpose()?;
        let mut doors: Vec<Operators> = servers.iter().map(Server::operators).collect();
        if let Some(way) = &way {
            doors[ISLANDER] = Operators(way.address());
        }
        Ok(Self { rig, servers, clocks, lines, island, doors, _way: way, nats, dead: None })
    }

    /// Where devices come to each server.
    pub(super) fn devices(&self) -> Vec<Door> {
        let door = |(number, server): (usize, &Server)| {
            let island = self.island.as_ref().filter(|_| number == ISLANDER);
            Door { address: server.devices(), place: island.map(|island| Arc::clone(&island.place)) }
        };
        self.servers.iter().enumerate().map(door).collect()
    }

    /// Where operators come to each server.
    pub(super) fn operators(&self) -> Vec<Operators> {
        self.doors.clone()
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
                self.island_of(server).map_or(Ok(()), |island| island.cut_off(true))
            }
            Fault::Hang(server) => self.servers[server].signal(Signal::STOP),
            Fault::Hop => Ok(()),
            Fault::WrongClock { server, ahead } => {
                self.clocks[server].set_ahead(if ahead { AN_HOUR } else { -AN_HOUR })
            }
            Fault::Roll => self.servers.iter_mut().zip(&self.doors).try_for_each(|(server, door)| {
                server.stop()?;
                server.start_again()?;
                is_ready(*door)
            }),
        }
    }

    pub(super) fn heal(&mut self, fault: Fault) -> Result<(), Failure> {
        match fault {
            Fault::Kill(server) => {
                self.servers[server].start_again()?;
                is_ready(self.doors[server])
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
                self.island_of(server).map_or(Ok(()), |island| island.cut_off(false))
            }
            Fault::Hang(server) => self.servers[server].signal(Signal::CONT),
            Fault::WrongClock { server, .. } => self.clocks[server].set_ahead(0),
            Fault::Hop | Fault::Roll => Ok(()),
        }
    }

    fn island_of(&self, server: usize) -> Option<&Island> {
        self.island.as_ref().filter(|_| server == ISLANDER)
    }
}

fn is_ready(door: Operators) -> Result<(), Failure> {
    door.wait_within(READY_WITHIN, "/readyz", "it is ready", |answer| (answer["ready"] == true).then_some(()))
}
