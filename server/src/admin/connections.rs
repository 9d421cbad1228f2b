//! The operators' connections: bounded in number, size and time, so that nobody who can reach a door can take more of the
//! server than this, nor keep others out.

mod seats;
mod watched;

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::access::Gate;
use seats::{Place, Seats};
use watched::Watched;

/// For each door. Whoever comes when there are so many takes the place of the one whose bytes moved the longest ago.
const MAX_CONNECTIONS: usize = 64;
/// How long TLS, and then each request's head, may take, and how long a connection may be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may lie untaken.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest head, and so the longest query.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// How long answers in progress may take when the server stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Accepting fails at once while descriptors are short: asking again in a loop would take a core.
const PAUSE: Duration = Duration::from_millis(100);

/// Where operators come in.
#[derive(Debug, Default)]
pub struct Doors {
    /// Over TCP.
    pub address: Option<TcpListener>,
    /// Over a Unix socket.
    pub socket: Option<UnixListener>,
}

/// Who asks, and on which connection.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) peer: Peer,
    place: Arc<Place>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Some address.
    Address(IpAddr),
    /// Somebody whom the permissions of the Unix socket's file let in.
    Socket,
}

impl Caller {
    /// The connection is no ordinary one from now on: it needs no seat, and is to end with its answer.
    pub(super) fn leave_seat(&self) {
        self.place.leave();
    }
}

/// What all connections share.
#[derive(Clone)]
struct House {
    router: Router,
    gate: Arc<Gate>,
    /// Nothing is ever sent: the channel closes when the server stops.
    stopping: watch::Receiver<()>,
}

pub(super) async fn serve(doors: Doors, router: Router, gate: Arc<Gate>, shutdown: impl Future<Output = ()>) {
    let (stop, stopping) = watch::channel(());
    let house = House { router, gate, stopping };
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let Doors { address, socket } = doors;
    let (address_seats, socket_seats) = (Seats::new(MAX_CONNECTIONS), Seats::new(MAX_CONNECTIONS));
    {
        let mut by_address = pin!(next_caller(address.as_ref(), &address_seats));
        let mut by_socket = pin!(next_caller(socket.as_ref(), &socket_seats));
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                (stream, peer, place) = &mut by_address => {
                    connections.spawn(serve_address(stream, peer, place, house.clone()));
                    by_address.set(next_caller(address.as_ref(), &address_seats));
                }
                (stream, peer, place) = &mut by_socket => {
                    connections.spawn(serve_stream(stream, peer, place, house.clone()));
                    by_socket.set(next_caller(socket.as_ref(), &socket_seats));
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
    drop((address, socket));
    drop(stop);
    if timeout(LAST_ANSWERS, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        warn!("{} operators' connections were cut: their answers took too long", connections.len());
    }
}

/// Something that accepts.
trait Door {
    type Stream;

    async fn accept(&self) -> io::Result<(Self::Stream, Peer)>;
}

impl Door for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        self.accept().await.map(|(stream, address)| (stream, Peer::Address(address.ip().to_canonical())))
    }
}

impl Door for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        self.accept().await.map(|(stream, _)| (stream, Peer::Socket))
    }
}

/// The next connection, once there is a seat for it; never, where there is no door.
async fn next_caller<D: Door>(door: Option<&D>, seats: &Arc<Seats>) -> (D::Stream, Peer, Arc<Place>) {
    let Some(door) = door else { return poll_fn(|_| Poll::Pending).await };
    loop {
        match Door::accept(door).await {
            Ok((stream, peer)) => return (stream, peer, seats.take(peer).await),
            Err(fault) => {
                warn!("an operator's connection could not be accepted: {fault}");
                #[expect(clippy::disallowed_methods, reason = "see PAUSE; sessions are not involved")]
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve_address(stream: TcpStream, peer: Peer, place: Arc<Place>, house: House) {
    // For what the kernel has taken and nobody acknowledges.
    if let Err(fault) = SockRef::from(&stream).set_tcp_user_timeout(Some(PATIENCE)) {
        place.leave();
        return debug!("an operator's connection was gone at once: {fault}");
    }
    let _ = stream.set_nodelay(true);
    serve_stream(stream, peer, place, house).await;
}

/// Serves one connection until it ends, or its seat is taken for another.
async fn serve_stream<S>(stream: S, peer: Peer, place: Arc<Place>, house: House)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _counted = house.gate.metrics().connection();
    let stream = Watched::new(stream, Arc::clone(&place), PATIENCE);
    tokio::select! {
        () = secure(stream, peer, &place, house) => {}
        () = place.given_away() => debug!("an operator's connection was closed for another one: it was idle"),
    }
    place.leave();
}

async fn secure<S>(stream: Watched<S>, peer: Peer, place: &Arc<Place>, house: House)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tls = house.gate.access().tls().cloned();
    let (Peer::Address(source), Some(tls)) = (peer, tls) else {
        return converse(stream, peer, place, house).await;
    };
    match timeout(HEAD_TIMEOUT, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, peer, place, house).await,
        Ok(Err(fault)) => house.gate.refuse(source, "tls", &format!("TLS: {fault}")),
        Err(_) => debug!("an operator's TLS took too long"),
    }
}

async fn converse<S>(stream: S, peer: Peer, place: &Arc<Place>, house: House)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let House { router, mut stopping, .. } = house;
    let caller = Caller { peer, place: Arc::clone(place) };
    let router = TowerToHyperService::new(router);
    let service =
        service_fn(move |request: Request<Incoming>| answer(router.clone(), request, caller.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(fault) = result {
        debug!("an operator's connection ended: {fault}");
    }
}

async fn answer(
    router: TowerToHyperService<Router>,
    request: Request<Incoming>,
    caller: Caller,
) -> Result<Response<Body>, std::convert::Infallible> {
    let place = Arc::clone(&caller.place);
    let mut request = request.map(|body| Body::new(Heard::new(body, Arc::clone(&place))));
    request.extensions_mut().insert(caller);
    let response = router.call(request).await;
    place.set_busy(false);
    response
}

/// A request's body. Once it was heard to its end it is the server that is waited for, and the connection keeps its seat.
struct Heard {
    body: Incoming,
    place: Arc<Place>,
}

impl Heard {
    fn new(body: Incoming, place: Arc<Place>) -> Self {
        place.set_busy(body.is_end_stream());
        place.note_seen();
        Self { body, place }
    }
}

impl HttpBody for Heard {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.place.set_busy(true);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
