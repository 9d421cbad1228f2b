//! A request's body as it goes out, with a line of progress for people where it is a long one.

use std::convert::Infallible;
use std::io::{self, IsTerminal as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};

const CHUNK: usize = 64 * 1024;

/// See the module.
#[derive(Default)]
pub(super) struct Upload {
    rest: Bytes,
    whole: usize,
    shown: bool,
}

impl Upload {
    pub(super) fn new(bytes: Bytes) -> Self {
        let whole = bytes.len();
        Self { rest: bytes, whole, shown: whole > CHUNK && io::stderr().is_terminal() }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            if self.shown {
                eprint!("\r\x1b[Ksent; the server reads it");
            }
            return Poll::Ready(None);
        }
        let len = self.rest.len().min(CHUNK);
        let chunk = self.rest.split_to(len);
        if self.shown {
            let sent = self.whole - self.rest.len();
            eprint!("\r{:3} % of {} bytes", sent * 100 / self.whole.max(1), self.whole);
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && !self.shown
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
