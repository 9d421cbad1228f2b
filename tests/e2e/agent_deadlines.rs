//! Each step of the agent's road ends by a deadline: in virtual time where sockets alone are waited for, and in real time
//! where the system's resolver is.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use moorline_agent::Environment;
use moorline_agent::clock::{self, Now};
use moorline_agent::config::Config;
use moorline_agent::tls::Tls;
use moorline_agent::trusted_time::TrustedTime;
use moorline_agent::uplink::Uplink;
use moorline_protocol::Imei;
use moorline_testbed::black_hole::BlackHole;
use moorline_testbed::confined::{MOUNTS_AND_NETWORK, confined, may_confine};
use moorline_testbed::failure::Failure;
use moorline_testbed::left_out::left_out;
use moorline_testbed::process::Program;
use moorline_testbed::rig::{AGENT_STOP, IMEI, Rig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The promise is one second from the signal to the end; the rest is for a busy machine.
const STOP: Duration = Duration::from_millis(1500);

/// The system's resolver waits longer than the agent does.
const SLOW: &str = "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n";

#[test]
fn black_hole_is_left_after_a_quarter_of_a_minute() -> Result<(), Failure> {
    let hole = BlackHole::new()?;
    let mut road = Road::to(hole.address)?;
    road.go_to("connecting")?;
    road.pass(Duration::from_millis(14_999));
    assert_eq!(road.uplink.to_string(), "connecting");
    road.pass(Duration::from_millis(1));
    road.is_offline(&format!("{}: no connection: no answer", hole.address));
    Ok(())
}

#[test]
fn server_that_accepts_and_says_nothing_is_left_after_half_a_minute() -> Result<(), Failure> {
    #[expect(clippy::disallowed_methods, reason = "here the test is the server")]
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut road = Road::to(mute.local_addr()?)?;
    road.go_to("handshaking")?;
    road.pass(Duration::from_millis(29_000));
    assert_eq!(road.uplink.to_string(), "handshaking");
    road.pass(Duration::from_millis(1000));
    road.is_offline("no TLS handshake within 30 s: what accepts the connection says nothing");
    Ok(())
}

#[test]
fn it_stops_while_a_name_is_being_resolved() -> Result<(), Failure> {
    let Some((_rig, mut agent)) = offline_agent("gw.example.com:9089", SLOW)? else { return Ok(()) };
    agent.wait_for("-> resolving: gw.example.com")?;
    agent.stop(STOP)
}

#[test]
fn name_server_that_never_answers_is_left() -> Result<(), Failure> {
    let Some((_rig, mut agent)) = offline_agent("gw.example.com:9089", SLOW)? else { return Ok(()) };
    agent.wait_for("-> resolving: gw.example.com")?;
    let patience = Duration::from_secs(40);
    agent
        .wait_for_within("gw.example.com: cannot be looked up: no answer from the name servers", patience)?;
    agent.wait_for("-> offline: next try in")?;
    agent.stop(AGENT_STOP)
}

#[test]
fn name_that_is_not_found_is_told() -> Result<(), Failure> {
    let none = "nameserver 192.0.2.53\n";
    let Some((_rig, mut agent)) = offline_agent("gw.example.com:9089", none)? else { return Ok(()) };
    agent.wait_for("gw.example.com: cannot be looked up: failed to lookup address information")?;
    agent.wait_for("-> offline: next try in")?;
    agent.stop(AGENT_STOP)
}

#[test]
fn unreachable_network_is_told() -> Result<(), Failure> {
    for address in ["192.0.2.1:9089", "[2001:db8::1]:9089"] {
        let Some((_rig, mut agent)) = offline_agent(address, "")? else { return Ok(()) };
        agent.wait_for(&format!("{address}: no connection: Network is unreachable"))?;
        agent.wait_for("-> offline: next try in")?;
        agent.stop(AGENT_STOP)?;
    }
    Ok(())
}

/// An agent on a machine of its own without a network, where a name server hears every question and answers none.
fn offline_agent(server: &str, resolv: &str) -> Result<Option<(Rig, Program)>, Failure> {
    if !may_confine(MOUNTS_AND_NETWORK) {
        left_out("this user may not make namespaces");
        return Ok(None);
    }
    let rig = Rig::new()?;
    let agent = rig.agent(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), IMEI)?.set("server.address", server);
    let agent = agent.command()?;
    let mut mute = Command::new("python3");
    mute.args(["-c", MUTE_NAME_SERVER]).arg(agent.get_program()).args(agent.get_args());
    let file = rig.folder().join("resolv.conf");
    fs::write(&file, resolv)?;
    let script = "ip link set lo up && mount --bind \"$0\" /etc/resolv.conf";
    let mut program =
        Program::start(&mut confined(MOUNTS_AND_NETWORK, script, &file.display().to_string(), &mute))?;
    program.wait_for("without an IMEI -> offline")?;
    Ok(Some((rig, program)))
}

/// Becomes the program that it is given, which inherits the name server's socket.
const MUTE_NAME_SERVER: &str = "import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.1', 53))
os.set_inheritable(s.fileno(), True)
os.execv(sys.argv[1], sys.argv[1:])";

/// An agent's road without its loop: real sockets, and the time that the test says it is.
struct Road {
    uplink: Uplink,
    now: Now,
    _rig: Rig,
}

impl Road {
    fn to(server: SocketAddr) -> Result<Self, Failure> {
        let rig = Rig::new()?;
        let command = rig.agent(server, IMEI)?.command()?;
        let file = command.get_args().last().ok_or_else(|| Failure::new("no configuration"))?;
        let config = Config::read(Path::new(file), &Environment::default())
            .map_err(|mistakes| Failure::new(mistakes.to_string()))?;
        let time = Arc::new(TrustedTime::new(0));
        let (server, identity) = (&config.server, &config.identity);
        let tls = Tls::new(
            server.min_version,
            Arc::clone(&server.roots),
            &identity.certified_key,
            Arc::clone(&time),
        )?;
        let now = clock::now();
        let mut uplink = Uplink::new(config, tls, time, 7);
        uplink.identify(uplink.greeting(IMEI.parse::<Imei>()?, Default::default(), [0; 16]), now);
        uplink.turn(PollFlags::empty(), now);
        Ok(Self { uplink, now, _rig: rig })
    }

    /// Does what the sockets let be done until this state is reached.
    fn go_to(&mut self, state: &str) -> Result<(), Failure> {
        while self.uplink.to_string() != state {
            let (fd, flags) = self.uplink.interest().ok_or_else(|| Failure::new(self.uplink.to_string()))?;
            let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
            if poll(&mut fds, Some(&Timespec { tv_sec: 20, tv_nsec: 0 }))? == 0 {
                return Err(Failure::new(format!("still {}", self.uplink)));
            }
            let ready = fds[0].revents();
            self.uplink.turn(ready, self.now);
        }
        Ok(())
    }

    /// Time passes, and nothing else happens.
    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.utc_ms += time.as_millis() as i64;
        self.uplink.turn(PollFlags::empty(), self.now);
    }

    fn is_offline(&self, why: &str) {
        let state = self.uplink.to_string();
        assert!(state.starts_with("offline, next try at ") && state.ends_with(why), "{state}");
    }
}
