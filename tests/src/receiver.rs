//! Where a webhook's events go to: an HTTP server that answers as a test says, and fails as a test says.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::certs::Credentials;
use crate::client::{certificates, key};
use crate::failure::Failure;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// The first line.
    pub line: String,
    /// The headers, by their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
    /// When it was whole.
    pub at: Instant,
    /// Whether it was answered with success.
    pub taken: bool,
}

impl Request {
    /// The events in it.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        serde_json::from_slice::<Vec<Value>>(&self.body).unwrap_or_default()
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This status.
    Status(u16),
    /// This status, with a header's line.
    With(u16, &'static str),
    /// This status after so long.
    Slow(u16, Duration),
    /// This status and a body that never ends.
    Endless(u16),
    /// Nothing, and the connection stays open.
    Hang,
    /// Nothing, and the connection is closed.
    Cut,
}

/// Decides, by the number of the request, from 0, and what is in it.
type Decide = dyn Fn(usize, &Request) -> Answer + Send + Sync;

/// A running receiver; it ends with the value.
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    decide: Box<Decide>,
    tls: Option<Arc<ServerConfig>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    connections: Vec<TcpStream>,
    stopped: bool,
}

impl Receiver {
    /// A receiver on a free port of loopback, or on `address`.
    ///
    /// # Errors
    /// The port is not free.
    pub fn start(
        address: Option<SocketAddr>,
        decide: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        Self::run(address, None, Box::new(decide))
    }

    /// The same over TLS, on 127.0.0.1, which the certificates of servers name.
    ///
    /// # Errors
    /// The port is not free, or the files cannot be read.
    pub fn secure(
        by: &Credentials,
        decide: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates(&by.certificate)?, key(&by.key)?)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self::run(Some(address), Some(Arc::new(config)), Box::new(decide))
    }

    fn run(
        address: Option<SocketAddr>,
        tls: Option<Arc<ServerConfig>>,
        decide: Box<Decide>,
    ) -> Result<Self, Failure> {
        let address = address.unwrap_or_else(|| SocketAddr::new(crate::rig::host(), 0));
        #[expect(clippy::disallowed_methods, reason = "here the test is the server")]
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { decide, tls, state: Mutex::default(), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Ok(Self { address, shared })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What came so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// Waits until `done` with what came.
    ///
    /// # Errors
    /// It does not come to that within `patience`.
    #[track_caller]
    pub fn wait_until(
        &self,
        what: &str,
        patience: Duration,
        done: impl Fn(&[Request]) -> bool,
    ) -> Result<Vec<Request>, Failure> {
        let state = self.shared.lock();
        let busy = |state: &mut State| !done(&state.requests);
        let waited = self.shared.changed.wait_timeout_while(state, patience, busy);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return Err(Failure::new(format!("{what} did not come; but {:#?}", state.requests)));
        }
        Ok(state.requests.clone())
    }
}

impl Drop for Receiver {
    /// Closes everything; the port is free again.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopped = true;
        for connection in state.connections.drain(..) {
            // It may be gone.
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        // So that accepting returns and sees it.
        #[expect(clippy::disallowed_methods, reason = "the test's own socket")]
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        let Ok(socket) = socket else { continue };
        let mut state = shared.lock();
        if state.stopped {
            return;
        }
        state.connections.extend(socket.try_clone());
        drop(state);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // Whatever ends a connection is the peer's matter.
            let _ = match shared.tls.clone() {
                None => serve(&shared, socket.try_clone(), &socket),
                Some(config) => {
                    secure(config, &socket).and_then(|stream| serve(&shared, Ok(stream), &socket))
                }
            };
        });
    }
}

fn secure(
    config: Arc<ServerConfig>,
    socket: &TcpStream,
) -> io::Result<StreamOwned<ServerConnection, TcpStream>> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, socket.try_clone()?))
}

/// Answers request after request.
fn serve<S: Read + io::Write>(shared: &Shared, stream: io::Result<S>, socket: &TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream?);
    while let Some(mut request) = read(&mut stream)? {
        let mut state = shared.lock();
        let number = state.requests.len();
        let answer = (shared.decide)(number, &request);
        let status = match answer {
            Answer::Status(status)
            | Answer::With(status, _)
            | Answer::Slow(status, _)
            | Answer::Endless(status) => Some(status),
            Answer::Hang | Answer::Cut => None,
        };
        request.taken = status.is_some_and(|status| status / 100 == 2);
        state.requests.push(request);
        drop(state);
        shared.changed.notify_all();
        let head = |status: u16, more: &str| format!("HTTP/1.1 {status} It\r\n{more}\r\n");
        let stream = stream.get_mut();
        match answer {
            Answer::Status(status) => stream.write_all(head(status, "Content-Length: 0\r\n").as_bytes())?,
            Answer::With(status, header) => {
                stream.write_all(head(status, &format!("{header}\r\nContent-Length: 0\r\n")).as_bytes())?;
            }
            Answer::Slow(status, pause) => {
                #[expect(clippy::disallowed_methods, reason = "slowness is what is acted")]
                thread::sleep(pause);
                stream.write_all(head(status, "Content-Length: 0\r\n").as_bytes())?;
            }
            Answer::Endless(status) => {
                stream.write_all(head(status, "").as_bytes())?;
                loop {
                    stream.write_all(&[b'x'; 4096])?;
                }
            }
            // Until the peer has had enough of it.
            Answer::Hang => return io::copy(stream, &mut io::sink()).map(drop),
            Answer::Cut => return socket.shutdown(Shutdown::Both),
        }
        stream.flush()?;
    }
    Ok(())
}

fn read(stream: &mut impl io::BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    #[expect(clippy::disallowed_methods, reason = "the test's own clock")]
    let at = Instant::now();
    Ok(Some(Request { line: line.trim_end().to_owned(), headers, body, at, taken: false }))
}
