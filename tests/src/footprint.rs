//! What a running process holds of a machine's memory.

use std::fs;
use std::path::Path;

use crate::failure::Failure;
use crate::process::PATIENCE;
use crate::relay::Relay;
use crate::rig::{IMEI, Rig};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Proportional set size: its own pages, and its share of those that others map too.
    pub pss_kib: u64,
    /// The part of it that no file stands behind.
    pub anonymous_kib: u64,
    /// What no other process has, be there a file behind it or not.
    pub private_kib: u64,
}

impl Footprint {
    /// Of this program of the agent's, online, after three heartbeats.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn of_an_agent(program: &Path) -> Result<Self, Failure> {
        let rig = Rig::new()?;
        let server = rig.server()?.set("session.heartbeat_min", "1s").start()?;
        let relay = Relay::start(server.devices());
        let agent =
            rig.agent(relay.address(), IMEI)?.program(program).set("heartbeat.interval", "1s").start()?;
        server.operators().wait_online(IMEI, true)?;
        let then = relay.bytes();
        if !relay.wait_for(PATIENCE, |bytes| bytes.since(then).sum() >= 3 * 48) {
            return Err(Failure::new("no three heartbeats came"));
        }
        Self::of(agent.id())
    }

    /// Of a process.
    ///
    /// # Errors
    /// It is gone.
    pub fn of(process: u32) -> Result<Self, Failure> {
        Self::read(&fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?)
    }

    /// From a process's `smaps_rollup`.
    ///
    /// # Errors
    /// It is none.
    pub fn read(rollup: &str) -> Result<Self, Failure> {
        let kib = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim_end_matches("kB").trim().parse().ok())
                .ok_or_else(|| Failure::new(format!("no {name} in smaps_rollup")))
        };
        let private_kib = kib("Private_Clean:")? + kib("Private_Dirty:")?;
        Ok(Self { pss_kib: kib("Pss:")?, anonymous_kib: kib("Pss_Anon:")?, private_kib })
    }
}
