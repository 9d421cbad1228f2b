//! Events as they happen.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::super::rig::Rig;
use crate::store::samples::event;
use crate::store::{Batch, Kind};

/// One who follows.
struct Following(BufReader<TcpStream>);

impl Following {
    /// Asks, and reads the answer's head.
    fn ask(rig: &Rig, path: &str, head: &str) -> (u16, Self) {
        Self::ask_over(rig.connect(), path, head)
    }

    fn ask_over(mut socket: TcpStream, path: &str, head: &str) -> (u16, Self) {
        write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n").unwrap();
        let mut answer = Self(BufReader::new(socket));
        let status = answer.line().split(' ').nth(1).unwrap().parse().unwrap();
        while !answer.line().is_empty() {}
        (status, answer)
    }

    fn begin(rig: &Rig, path: &str, head: &str) -> Self {
        let (status, mut following) = Self::ask(rig, path, head);
        assert_eq!(status, 200);
        following.wait_for("retry: 2000");
        following
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The first line that begins so, without that beginning.
    fn wait_for(&mut self, beginning: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the stream ended without {beginning}");
            if let Some(rest) = line.trim_end().strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
    }

    fn next_id(&mut self) -> i64 {
        let id = self.wait_for("id: ").parse().unwrap();
        let shown: Value = serde_json::from_str(&self.wait_for("data: ")).unwrap();
        assert_eq!(shown["id"], id);
        id
    }
}

/// Stores one more event, as the writer does.
fn happen(rig: &Rig, n: usize) {
    rig.operators.store.apply(&Batch { events: vec![event(n, Kind::Online)], ..Batch::default() }).unwrap();
    rig.operators.writer.stored().notify_one();
}

#[test]
fn events_come_as_they_are_stored() {
    for rig in Rig::both() {
        let mut following = Following::begin(&rig, "/api/events/stream", "");
        assert_eq!(following.wait_for("event: "), "fleet");
        let fleet: Value = serde_json::from_str(&following.wait_for("data: ")).unwrap();
        assert_eq!((&fleet["known"], &fleet["online"]), (&3.into(), &0.into()));
        happen(&rig, 1);
        assert_eq!(following.next_id(), 4);
        happen(&rig, 2);
        assert_eq!(following.next_id(), 5);
        let event = rig.get("/api/events?after=4").1["events"][0].clone();
        let mut again = Following::begin(&rig, "/api/events/stream?after=4", "");
        assert_eq!(again.wait_for("id: "), "5");
        assert_eq!(serde_json::from_str::<Value>(&again.wait_for("data: ")).unwrap(), event);
    }
}

#[test]
fn cut_off_one_comes_back_with_its_last_id() {
    let rig = Rig::memory();
    for _ in 0..1000 {
        happen(&rig, 1);
    }
    // The header counts more: the query is where a browser once began.
    let mut following = Following::begin(&rig, "/api/events/stream?after=999", "Last-Event-ID: 1\r\n");
    assert_eq!((2..=1003).map(|_| following.next_id()).collect::<Vec<_>>(), (2..=1003).collect::<Vec<_>>());
}

#[test]
fn one_device_can_be_followed() {
    let rig = Rig::memory();
    let mut following = Following::begin(&rig, "/api/events/stream?imei=015184008301272&after=0", "");
    assert_eq!(following.next_id(), 2);
    happen(&rig, 2);
    happen(&rig, 1);
    assert_eq!(following.next_id(), 5);
}

#[test]
fn store_that_began_anew_is_told() {
    let rig = Rig::memory();
    let mut following = Following::begin(&rig, "/api/events/stream", "Last-Event-ID: 77\r\n");
    assert_eq!(following.wait_for("event: "), "anew");
    assert_eq!((0..3).map(|_| following.next_id()).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn mistaken_questions_are_told() {
    let rig = Rig::memory();
    for (path, head) in [
        ("/api/events/stream?after=x", ""),
        ("/api/events/stream?imei=1", ""),
        ("/api/events/stream?limit=1", ""),
        ("/api/events/stream", "Last-Event-ID: x\r\n"),
        ("/api/events/stream", "Last-Event-ID: -1\r\n"),
    ] {
        assert_eq!(Following::ask(&rig, path, head).0, 400, "{path} {head}");
    }
}

#[test]
fn so_many_may_follow_and_everybody_else_is_answered() {
    let rig = Rig::memory();
    let mut all: Vec<_> = (0..48).map(|_| Following::begin(&rig, "/api/events/stream", "")).collect();
    for _ in 0..200 {
        let (status, mut refused) = Following::ask(&rig, "/api/events/stream", "Connection: close\r\n");
        assert_eq!(status, 503);
        let mut problem = String::new();
        refused.0.read_to_string(&mut problem).unwrap();
        assert!(problem.contains("as many follow the events as there is room for"), "{problem}");
    }
    assert_eq!(rig.text("/api/devices").0, 200);
    // One address has all that one may have; another one's is let in.
    let elsewhere = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    elsewhere.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)).into()).unwrap();
    elsewhere.connect(&rig.address.into()).unwrap();
    let (status, other) = Following::ask_over(elsewhere.into(), "/api/events/stream", "");
    assert_eq!(status, 200);
    all.insert(0, other);
    happen(&rig, 1);
    for following in &mut all {
        assert_eq!(following.next_id(), 4);
    }
    // A place is free as soon as somebody has gone, which the server notices by itself.
    all.pop();
    while Following::ask(&rig, "/api/events/stream", "Connection: close\r\n").0 == 503 {}
}

#[test]
fn slow_one_is_told_everything_at_its_own_pace() {
    let rig = Rig::memory();
    let mut slow = Following::begin(&rig, "/api/events/stream", "");
    let events = 10_000;
    let batch = || Batch { events: vec![event(1, Kind::Online); 1000], ..Batch::default() };
    for _ in 0..events / 1000 {
        rig.operators.store.apply(&batch()).unwrap();
        rig.operators.writer.stored().notify_one();
    }
    // Far more than is kept ready, or fits into the buffers of both kernels, has come before it reads on.
    let mut quick = Following::begin(&rig, "/api/events/stream?after=10000", "");
    assert_eq!((0..3).map(|_| quick.next_id()).collect::<Vec<_>>(), [10_001, 10_002, 10_003]);
    for id in 4..=10_003 {
        assert_eq!(slow.next_id(), id);
    }
}

#[test]
fn streams_end_with_the_server() {
    let rig = Rig::memory();
    let mut following = Following::begin(&rig, "/api/events/stream", "");
    drop(rig);
    let mut rest = Vec::new();
    following.0.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "it ends as an answer does, and is not cut");
}
