//! Ten thousand who want to follow events, and clients who take their time: devices and one good client are served beside
//! them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use moorline_testbed::failure::Failure;
use moorline_testbed::left_out::left_out;
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::{IMEI, Rig, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the server promises to one address.
const STREAMS: usize = 48;
const CROWD: usize = 10_000;

/// How many sockets this process may hold.
fn descriptors() -> Result<usize, Failure> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(limit.maximum.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)))
}

fn connect(server: &Server) -> Result<TcpStream, Failure> {
    let address: SocketAddr = server.operators().0;
    #[expect(clippy::disallowed_methods, reason = "a client that is no program of this project")]
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(Duration::from_millis(1)))?;
    Ok(socket)
}

const STREAM: &[u8] = b"GET /api/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The status of its answer; nothing when it was cut off without.
fn status(socket: &TcpStream) -> Option<u16> {
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).ok()?;
    line.split(' ').nth(1)?.parse().ok()
}

#[test]
fn ten_thousand_followers_are_refused_beyond_the_bound() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let crowd = CROWD.min(descriptors()?.saturating_sub(200));
    if crowd < CROWD {
        left_out(&format!("{CROWD} who follow events: this process may open {crowd} sockets"));
    }
    let mut server = rig.server()?.start()?;
    let mut following = Vec::new();
    while following.len() < STREAMS {
        let mut socket = connect(&server)?;
        socket.write_all(STREAM)?;
        assert_eq!(status(&socket), Some(200));
        following.push(socket);
    }
    let mut crowded = Vec::with_capacity(crowd);
    for _ in STREAMS..crowd {
        let mut socket = connect(&server)?;
        let _ = socket.write_all(STREAM);
        crowded.push(socket);
    }
    // They all are still there, and yet a device is served and an operator answered.
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("-> online")?;
    server.operators().wait_events(IMEI, &["online"])?;
    for socket in &crowded {
        assert!(matches!(status(socket), Some(503) | None));
    }
    for socket in &following {
        let mut lines = BufReader::new(socket).lines();
        let heard = lines.any(|line| line.is_ok_and(|line| line.contains("\"kind\":\"online\"")));
        assert!(heard, "who followed before them heard nothing");
    }
    agent.stop()?;
    server.stop()
}

#[test]
fn clients_who_take_their_time_keep_nobody_out() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("-> online")?;
    let body = "PUT /api/devices/004999010640000/heartbeat HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
    let asked = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200);
    let mut crowd = Vec::new();
    for round in 0..4 {
        for _ in 0..200 {
            let mut socket = connect(&server)?;
            // What is said may be cut off by then.
            match round {
                0 => {}
                1 => drop(socket.write_all(b"GET /met")),
                2 => drop(socket.write_all(body.as_bytes())),
                // Never read, until its own questions are not taken any more either.
                _ => while socket.write_all(&asked).is_ok() {},
            }
            crowd.push(socket);
        }
        // No longer than a tale waits at all, though each of them could wait for far longer.
        let agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().new_agent();
        let answer = agent.get(server.operators().url("/metrics")).call()?;
        assert_eq!(answer.status(), 200);
    }
    drop(crowd);
    agent.stop()?;
    server.stop()
}

/// More than there are seats for, each of whom asks again and again and comes back when it is cut off.
#[test]
fn clients_who_ask_without_end_keep_nobody_out() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let (address, over) = (server.operators().0, Arc::new(AtomicBool::new(false)));
    let busy: Vec<_> = (0..100)
        .map(|_| {
            let over = Arc::clone(&over);
            thread::spawn(move || ask_without_end(address, &over))
        })
        .collect();
    let agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().new_agent();
    // One may be cut off now and then in such a crowd; it is never left to wait.
    let mut answered = 0;
    for _ in 0..40 {
        let answer = agent.get(server.operators().url("/api/devices")).call();
        assert!(!matches!(answer, Err(ureq::Error::Timeout(_))), "{answer:?}");
        answered += usize::from(answer.is_ok());
    }
    over.store(true, Ordering::Relaxed);
    let asked: usize = busy.into_iter().map(|asking| asking.join().unwrap_or_default()).sum();
    assert!(answered >= 20 && asked > 0, "{answered} of 40 answered, {asked} others");
    server.stop()
}

/// How many answers came.
fn ask_without_end(address: SocketAddr, over: &AtomicBool) -> usize {
    let mut answers = 0;
    while !over.load(Ordering::Relaxed) {
        #[expect(clippy::disallowed_methods, reason = "a client that is no program of this project")]
        let Ok(mut socket) = TcpStream::connect(address) else { continue };
        let _ = socket.set_read_timeout(Some(PATIENCE));
        let mut answer = [0; 1024];
        while !over.load(Ordering::Relaxed)
            && socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").is_ok()
            && socket.read(&mut answer).is_ok_and(|len| len > 0)
        {
            answers += 1;
        }
    }
    answers
}
