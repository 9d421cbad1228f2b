//! The agent's heap at its peak, from its start over connecting to its heartbeats and to its end, the TLS library's included. The
//! whole agent runs in this process, on a thread whose allocations are counted; so there is one test in this file, for it is this
//! process that is asked to stop.

use std::path::PathBuf;
use std::thread;

use moorline_agent::{Environment, Exit, run};
use moorline_testbed::failure::Failure;
use moorline_testbed::process::PATIENCE;
use moorline_testbed::relay::Relay;
use moorline_testbed::rig::{IMEI, Rig};
use rustix::process::{Signal, getpid, kill_process};

#[test]
fn agents_heap_stays_small_at_its_peak() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let relay = Relay::start(server.devices());
    let command = rig.agent(relay.address(), IMEI)?.command()?;
    let file: PathBuf = command.get_args().nth(1).ok_or_else(|| Failure::new("no configuration"))?.into();
    let environment = Environment { runtime_dir: file.parent().map(PathBuf::from), ..Environment::default() };
    let agent = thread::spawn(move || {
        let mut exit = None;
        let heap = allocation_counter::measure(|| exit = Some(run::run(&file, &environment)));
        (exit, heap)
    });
    server.operators().wait_online(IMEI, true)?;
    // Resumed as well, which keeps the old session and its ticket beside the new one for a while.
    relay.cut();
    let cut = relay.bytes();
    let beaten = relay.wait_for(PATIENCE, |bytes| bytes.since(cut).sum() >= 875 + 4 * 48);
    kill_process(getpid(), Signal::TERM)?;
    let (exit, heap) = agent.join().map_err(|_| Failure::new("the agent panicked"))?;
    assert!(beaten, "no heartbeats came");
    assert!(matches!(exit, Some(Exit::Asked)), "{exit:?}");
    println!("{heap:?}");
    assert!(heap.bytes_max <= 32 * 1024, "{heap:?}");
    Ok(())
}
