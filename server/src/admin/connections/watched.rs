//! A socket that notes when its bytes move, and fails when nobody takes them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::seats::Place;

/// See the module.
pub(super) struct Watched<S> {
    socket: S,
    place: Arc<Place>,
    /// How long an answer may lie untaken.
    patience: Duration,
    /// There while something lies untaken.
    untaken: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub(super) const fn new(socket: S, place: Arc<Place>, patience: Duration) -> Self {
        Self { socket, place, patience, untaken: None }
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the operators' connections; sessions are not involved"
        )]
        let untaken = self.untaken.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        ready!(untaken.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the answer lay untaken for too long")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.place.note_moved();
        }
        if polled.is_pending() {
            self.place.note_seen();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.socket).poll_write(context, bytes) {
            Poll::Pending => self.wait(context),
            written @ Poll::Ready(_) => {
                self.untaken = None;
                self.place.note_moved();
                written
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::Peer;
    use super::super::seats::Seats;
    use super::*;

    #[tokio::test]
    async fn answer_that_nobody_takes_is_given_up() {
        let (server, mut client) = tokio::io::duplex(16);
        let place = Seats::new(1).take(Peer::Address(Ipv4Addr::LOCALHOST.into())).await;
        let mut server = Watched::new(server, place, Duration::from_millis(20));
        server.write_all(&[0; 16]).await.unwrap();
        // Taken in time, it may be as long as it likes.
        let taken = tokio::spawn(async move {
            client.read_exact(&mut [0; 64]).await.unwrap();
            client
        });
        server.write_all(&[0; 64]).await.unwrap();
        let _client = taken.await.unwrap();
        let given_up = server.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(given_up.kind(), io::ErrorKind::TimedOut);
    }
}
