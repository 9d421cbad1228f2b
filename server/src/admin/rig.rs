//! A served fleet to test with.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::oneshot;

use super::*;
use crate::access::Access;
use crate::clock;
use crate::config::Register;
use crate::store::samples::{device, event};
use crate::store::{Batch, Fleet, Kind, Memory, Queue, Retention, Sqlite};

/// A served fleet: devices 0 and 1 of the samples were online when the last server died, 2 was not.
pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) operators: Operators,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _folder: Option<TempDir>,
}

impl Rig {
    pub(crate) fn over(store: Arc<dyn Store>, folder: Option<TempDir>) -> Self {
        let events = vec![event(0, Kind::Refused), event(1, Kind::Online), event(2, Kind::Offline)];
        store
            .apply(&Batch {
                devices: (0..3).map(device).collect(),
                events,
                next_session_id: Some(50),
                ..Batch::default()
            })
            .unwrap();
        let (queue, metrics) = (Arc::new(Queue::new()), Arc::new(Metrics::new()));
        let fleet: Fleet = store.load().unwrap();
        let registry =
            Registry::new(fleet, Register::Open, Arc::new(Queue::new()), Arc::clone(&metrics), clock::now());
        let writer = Writer::start(Arc::clone(&store), queue, metrics.store().clone()).unwrap();
        let feed = Feed::new(Arc::clone(&store), writer.stored(), registry.counts()).unwrap();
        let operators = Operators {
            registry: Arc::new(registry),
            store,
            feed: Arc::new(feed),
            writer: Arc::new(writer),
            metrics,
            tables: Arc::new(Tables::default),
            readiness: Arc::default(),
            changes: Arc::default(),
            cluster: None,
            backup: Arc::default(),
        };
        operators.readiness.set_accepting(true);
        Self::serve(operators, folder)
    }

    pub(crate) fn serve(operators: Operators, folder: Option<TempDir>) -> Self {
        Self::serve_with(operators, folder, Access::default())
    }

    pub(crate) fn serve_with(operators: Operators, folder: Option<TempDir>, access: Access) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let (served, metrics) = (operators.clone(), operators.metrics.operators().clone());
        let thread = thread::spawn(move || {
            runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                #[expect(clippy::disallowed_methods, reason = "the test is the shell here")]
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let doors = Doors { address: Some(listener), socket: None };
                serve(doors, served, Gate::new(access, metrics), async { stopped.await.unwrap_or_default() })
                    .await;
            });
        });
        let address = told.recv().unwrap();
        Self { address, operators, stop: Some(stop), thread: Some(thread), _folder: folder }
    }

    pub(crate) fn memory() -> Self {
        Self::over(Arc::new(Memory::new(Retention::default())), None)
    }

    pub(crate) fn both() -> [Self; 2] {
        let folder = tempfile::tempdir().unwrap();
        let file = Sqlite::open(&folder.path().join("fleet.db"), Retention::default(), clock::now()).unwrap();
        [Self::memory(), Self::over(Arc::new(file), Some(folder))]
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let (status, media_type, text) = self.text(path);
        let wanted = if status == 200 { "application/json" } else { "application/problem+json" };
        assert_eq!(media_type, wanted, "{text}");
        (status, serde_json::from_str(&text).unwrap())
    }

    pub(crate) fn text(&self, path: &str) -> (u16, String, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.get(format!("http://{}{path}", self.address)).call().unwrap();
        let media_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), media_type, answer.body_mut().read_to_string().unwrap())
    }

    /// Sends what changes something, with these lines among its head's.
    pub(crate) fn send(&self, line: &str, head: &str, body: &str) -> (u16, Value) {
        let answer = self.raw(&format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{head}\r\n{body}",
            body.len()
        ));
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap())
    }

    /// What comes back for exactly these bytes, until the server closes.
    pub(crate) fn raw(&self, request: &str) -> String {
        let mut socket = self.connect();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn connect(&self) -> TcpStream {
        #[expect(clippy::disallowed_methods, reason = "the test is the shell here")]
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_some_and(|ended| ended.is_ok()) || thread::panicking());
    }
}
