//! What it costs a running program to keep its session up, counted from outside: how often it wakes, what it asks the kernel for,
//! what it holds. It knows a program by its process id and a heartbeat by the bytes that pass the relay, and so serves any client.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::failure::Failure;
use crate::process::{PATIENCE, Program};
use crate::relay::{Bytes, Relay};

/// For how long nothing passes once an exchange is over.
const QUIET: Duration = Duration::from_millis(500);

/// What some heartbeats cost, their answers included.
#[derive(Clone, Copy, Debug)]
pub struct Upkeep {
    /// How many there were.
    pub beats: u64,
    /// Bytes of TCP payload.
    pub bytes: Bytes,
    /// How often a thread of it was woken from a wait.
    pub wake_ups: u64,
}

impl Upkeep {
    /// Watches `process` through so many heartbeats, which pass `relay` and come within `patience` each; from one quiet moment to
    /// another.
    ///
    /// # Errors
    /// One does not come, or the process is gone.
    pub fn watch(process: u32, relay: &Relay, beats: u64, patience: Duration) -> Result<Self, Failure> {
        rest(relay);
        let (before, woken) = (relay.bytes(), wake_ups(process)?);
        for _ in 0..beats {
            beat(relay, patience)?;
        }
        Ok(Self { beats, bytes: relay.bytes().since(before), wake_ups: wake_ups(process)? - woken })
    }
}

/// What a program asked the kernel for in some heartbeats.
#[derive(Clone, Debug)]
pub struct SystemCalls {
    /// How often each.
    pub by_name: BTreeMap<String, u64>,
    /// What passed meanwhile, bytes of TCP payload.
    pub bytes: Bytes,
}

impl SystemCalls {
    /// All of them.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.by_name.values().sum()
    }

    /// Has strace look on through so many heartbeats; `None` where there is no strace, or it may not.
    ///
    /// # Errors
    /// A heartbeat does not come.
    pub fn watch(
        process: u32,
        relay: &Relay,
        beats: u64,
        patience: Duration,
    ) -> Result<Option<Self>, Failure> {
        if !is_installed("strace") {
            return Ok(None);
        }
        rest(relay);
        let before = relay.bytes();
        let file = tempfile::NamedTempFile::new()?;
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &process.to_string(), "-o"]).arg(file.path());
        let mut strace = Program::start(&mut command)?;
        if let Err(failure) = strace.wait_for("attached") {
            return if strace.said("Operation not permitted") { Ok(None) } else { Err(failure) };
        }
        for _ in 0..beats {
            beat(relay, patience)?;
        }
        strace.signal(Signal::INT)?;
        strace.wait_exit(PATIENCE)?;
        let by_name = calls(&fs::read_to_string(file.path())?);
        Ok(Some(Self { by_name, bytes: relay.bytes().since(before) }))
    }
}

/// Whether there is such a program.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).exists()))
}

/// The files that a process has mapped to run: its program and its libraries, with their lengths.
///
/// # Errors
/// It is gone.
pub fn mapped_files(process: u32) -> Result<BTreeMap<PathBuf, u64>, Failure> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    // address perms offset dev inode path (proc(5)); one that can be executed is code.
    let code = maps.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let permissions = words.nth(1)?;
        let path = words.nth(3)?;
        (permissions.contains('x') && path.starts_with('/')).then(|| PathBuf::from(path))
    });
    code.map(|path| Ok((path.clone(), fs::metadata(&path)?.len()))).collect()
}

/// Waits for a heartbeat and for the end of what it brings.
fn beat(relay: &Relay, patience: Duration) -> Result<(), Failure> {
    let before = relay.bytes();
    if !relay.wait_for(patience, |bytes| bytes.up != before.up && bytes.down != before.down) {
        return Err(Failure::new(format!("no heartbeat and answer within {patience:?}")));
    }
    rest(relay);
    Ok(())
}

/// Waits until nothing passes any more.
pub fn rest(relay: &Relay) {
    loop {
        let seen = relay.bytes();
        if !relay.wait_for(QUIET, |bytes| bytes != seen) {
            return;
        }
    }
}

/// How often the threads of a process have waited for something so far.
fn wake_ups(process: u32) -> Result<u64, Failure> {
    let mut sum = 0;
    for thread in fs::read_dir(Path::new("/proc").join(process.to_string()).join("task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let count = count.and_then(|count| count.trim().parse::<u64>().ok());
        sum += count.ok_or_else(|| Failure::new("no voluntary_ctxt_switches"))?;
    }
    Ok(sum)
}

/// From strace's lines, `PID name(arguments) = result`: each call by its name. The wait that strace came into is finished in its
/// file and counts; the one that it left does not.
fn calls(lines: &str) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for line in lines.lines().filter(|line| !line.contains("<detached")) {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        if let Some((name, _)) = call.split_once('(')
            && !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_from_one_wait_to_the_next() {
        let lines = "7 restart_syscall(<... resuming interrupted poll ...>) = 0\n\
                     7 sendto(5, \"(\", 24, 0, NULL, 0) = 24\n\
                     7 poll([{fd=3}], 4, 1000 <unfinished ...>\n\
                     8 read(4,  <unfinished ...>\n\
                     7 <... poll resumed>) = 1\n\
                     7 --- SIGUSR1 {si_signo=SIGUSR1} ---\n\
                     7 poll([{fd=3}], 4, 1000 <detached ...>\n";
        let counted: Vec<_> = calls(lines).into_iter().collect();
        assert_eq!(
            counted,
            [("poll", 1), ("read", 1), ("restart_syscall", 1), ("sendto", 1)]
                .map(|(name, count)| (name.to_owned(), count))
        );
    }
}
