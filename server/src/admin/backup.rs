//! `POST /api/backup`: a copy of the fleet's file, as it is at one moment, while everything goes on.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedMutexGuard, mpsc};

use super::Operators;
use super::problem::Problem;
use crate::clock;

const MEDIA_TYPE: &str = "application/vnd.sqlite3";
const CHUNK: usize = 64 * 1024;
/// Chunks that wait for a slow reader.
const AHEAD: usize = 4;

pub(super) async fn make(State(operators): State<Operators>) -> Result<Response, Problem> {
    let Ok(alone) = operators.backup.try_lock_owned() else {
        let detail =
            "another backup is being taken: each needs as much of the disk as the fleet's file".to_owned();
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    let work = tokio::task::spawn_blocking(move || {
        let path = operators.store.backup(clock::now()).map_err(|fault| Problem::internal(&fault))?;
        let file = File::open(&path);
        // It lives as long as somebody reads it, and nothing of it is left after a crash either.
        fs::remove_file(&path).and(file).map_err(|fault| Problem::internal(&fault))
    });
    let file = work.await.map_err(|fault| Problem::internal(&fault))??;
    let length = file.metadata().map_err(|fault| Problem::internal(&fault))?.len();
    let (sender, chunks) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || read(file, &sender));
    let body = Body::new(Chunks { chunks, left: length, _alone: alone });
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response())
}

/// Until all is read or nobody takes it any more.
fn read(mut file: File, chunks: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).map(|len| {
            chunk.truncate(len);
            Bytes::from(chunk)
        });
        let is_end = matches!(&read, Ok(chunk) if chunk.is_empty());
        let failed = read.is_err();
        if is_end || chunks.blocking_send(read).is_err() || failed {
            return;
        }
    }
}

/// A body of known length that comes from a blocking thread.
struct Chunks {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
    _alone: OwnedMutexGuard<()>,
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.chunks.poll_recv(context).map(|chunk| {
            chunk.map(|chunk| {
                let chunk = chunk?;
                self.left = self.left.saturating_sub(chunk.len() as u64);
                Ok(Frame::data(chunk))
            })
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
