//! The operators' connections: bounded in number, size and time, so that nobody who can reach the port can take more of the
//! server than this.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

/// Whoever comes when there are so many waits in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// How long a request's head may take, and how long a connection may be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may lie untaken (it applies to a closed window too).
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest head, and so the longest query.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// How long answers in progress may take when the server stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Accepting fails at once while descriptors are short: asking again in a loop would take a core.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (socket, seat) = accept(&listener, &seats) => {
                connections.spawn(serve_one(socket, router.clone(), stopping.clone(), seat));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    drop(stop);
    if timeout(LAST_ANSWERS, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        warn!("{} operators' connections were cut: their answers took too long", connections.len());
    }
}

/// The next connection, once there is a seat for it. Dropping this future loses no connection.
async fn accept(listener: &TcpListener, seats: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        // The semaphore is never closed, so there is no other outcome.
        let Ok(seat) = Arc::clone(seats).acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((socket, _)) => return (socket, seat),
            Err(fault) => {
                warn!("an operator's connection could not be accepted: {fault}");
                #[expect(clippy::disallowed_methods, reason = "see PAUSE; sessions are not involved")]
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve_one(
    socket: TcpStream,
    router: Router,
    mut stopping: watch::Receiver<()>,
    _seat: OwnedSemaphorePermit,
) {
    if let Err(fault) = SockRef::from(&socket).set_tcp_user_timeout(Some(WRITE_TIMEOUT)) {
        return debug!("an operator's connection was gone at once: {fault}");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        // Nothing is ever sent: the channel closes when the server stops.
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(fault) = result {
        debug!("an operator's connection ended: {fault}");
    }
}
