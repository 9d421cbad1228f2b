//! The machine that is measured on, and who runs where on it: a server on one core, its devices on another, so that what a
//! server can do is what one core can.

use std::fmt;
use std::fs;

use rustix::system::uname;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::mosquitto;
use crate::failure::Failure;

/// Where every server runs.
pub(super) const SERVERS_CORE: usize = 0;
/// Where the crowd runs, if there is a second one.
pub(super) const CROWDS_CORE: usize = 1;

/// What a reader has to know of it.
#[derive(Clone, Debug)]
pub struct Machine(Vec<(&'static str, String)>);

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        let of = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
            line.unwrap_or("unknown").trim().to_owned()
        };
        let cores = sched_getaffinity(None).map_or(0, |cores| cores.count());
        Self(vec![
            ("processor", format!("{}, {cores} cores", of(&read("/proc/cpuinfo"), "model name"))),
            ("memory", of(&read("/proc/meminfo"), "MemTotal")),
            ("kernel", uname().release().to_string_lossy().into_owned()),
            ("moorline", env!("CARGO_PKG_VERSION").to_owned()),
            (
                "mosquitto",
                mosquitto::version().unwrap_or_else(|| "left out: it is not to be had here".to_owned()),
            ),
            ("load before", read("/proc/loadavg").trim().to_owned()),
        ])
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | |\n| --- | --- |")?;
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "| {name} | {value} |"))
    }
}

/// This thread, and whatever it starts, on one core; until the value is dropped.
pub(super) struct Pinned(CpuSet);

impl Pinned {
    /// To the core of this number among those that the thread may use; on a machine with fewer, to the last one.
    pub(super) fn to(core: usize) -> Result<Self, Failure> {
        let before = sched_getaffinity(None)?;
        let allowed: Vec<_> = (0..CpuSet::MAX_CPU).filter(|core| before.is_set(*core)).collect();
        let mut one = CpuSet::new();
        one.set(allowed.get(core).or_else(|| allowed.last()).copied().unwrap_or(0));
        sched_setaffinity(None, &one)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Where it cannot be taken back the thread stays where it is, which does no harm.
        let _ = sched_setaffinity(None, &self.0);
    }
}
