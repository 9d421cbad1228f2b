//! What it costs the agent to keep its session up: it wakes for a heartbeat and for its answer and in between for nothing, asks the
//! kernel for the least, and writes no file.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use moorline_testbed::failure::Failure;
use moorline_testbed::left_out::left_out;
use moorline_testbed::measure::agent_sizes;
use moorline_testbed::process::PATIENCE;
use moorline_testbed::relay::Relay;
use moorline_testbed::rig::{Agent, IMEI, Rig, Server};
use moorline_testbed::upkeep::{self, SystemCalls, Upkeep};

/// Long enough for a quiet moment, and for a wake-up in each second to show.
const INTERVAL: &str = "3s";
const BEATS: u64 = 3;
/// Of those a second look is worth: a heartbeat may come while strace does, and now and then the counters of the budget go to flash.
const LOOKS: u32 = 3;

#[test]
fn agent_wakes_for_a_heartbeat_and_its_answer_alone() -> Result<(), Failure> {
    let device = Device::new(INTERVAL, None)?;
    let upkeep = Upkeep::watch(device.agent.id(), &device.relay, BEATS, PATIENCE)?;
    assert_eq!(upkeep.bytes.sum(), 48 * BEATS, "{upkeep:?}");
    assert!(upkeep.wake_ups <= 2 * BEATS, "{upkeep:?} of {INTERVAL} each");
    Ok(())
}

#[test]
fn heartbeat_takes_four_system_calls_and_no_file() -> Result<(), Failure> {
    let device = Device::new(INTERVAL, None)?;
    takes_four_calls(&device, 48)
}

/// A silence that is learned is ended by the server; one of less than a minute with the device's answer each time.
#[test]
fn echo_takes_four_system_calls_and_no_file() -> Result<(), Failure> {
    let mut device = Device::new("adaptive", Some(INTERVAL))?;
    device.agent.wait_for("the line may be silent for 3 s")?;
    takes_four_calls(&device, 50)
}

fn takes_four_calls(device: &Device, bytes: u64) -> Result<(), Failure> {
    upkeep::rest(&device.relay);
    let status = device.status()?;
    for _ in 0..LOOKS {
        let Some(calls) = SystemCalls::watch(device.agent.id(), &device.relay, BEATS, PATIENCE)? else {
            left_out("the agent's system calls: strace is missing (apt install strace), or may not look on");
            return Ok(());
        };
        if calls.bytes.sum() == bytes * BEATS && !calls.by_name.contains_key("rename") {
            assert!(calls.sum() <= 4 * BEATS, "{calls:?} in {BEATS} heartbeats");
            assert_eq!(device.status()?, status, "the status file was written anew");
            return Ok(());
        }
    }
    Err(Failure::new(format!("something else happened in each of {LOOKS} times {BEATS} heartbeats")))
}

/// A smallest agent of this machine's, online; its server behind a relay.
struct Device {
    agent: Agent,
    relay: Relay,
    _server: Server,
    _rig: Rig,
}

impl Device {
    fn new(interval: &str, heartbeat_max: Option<&str>) -> Result<Self, Failure> {
        let rig = Rig::new()?;
        let setup = rig.server()?;
        let setup = match heartbeat_max {
            Some(longest) => setup.set("session.heartbeat_max", longest),
            None => setup,
        };
        let server = setup.start()?;
        let relay = Relay::start(server.devices());
        let [_, (_, smallest)] = agent_sizes()?;
        let setup = rig.agent(relay.address(), IMEI)?.program(&smallest).set("heartbeat.interval", interval);
        let mut agent = setup.start()?;
        agent.wait_for("registered")?;
        Ok(Self { agent, relay, _server: server, _rig: rig })
    }

    /// The status file as it is: one that was replaced is another.
    fn status(&self) -> Result<u64, Failure> {
        Ok(fs::metadata(self.agent.folder().join("status"))?.ino())
    }
}
