//! The server's HTTP, from outside.

use std::fmt::{Display, Write as _};
use std::io::{self, Read};
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

use super::failure::Failure;
use super::reach::Reach;
use super::stream::Stream;
use super::upload::Upload;

/// The server is near and answers from memory; what takes longer does not come.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A large file takes its time through a slow tunnel, and the server's disk its own.
const UPLOAD: Duration = Duration::from_secs(120);
/// Far more than a page of the longest answers.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;
/// A large fleet is copied on the server's disk first.
const BACKUP_BEGINS: Duration = Duration::from_secs(600);

/// A server that can be asked.
pub(super) struct Client {
    reach: Reach,
    runtime: Runtime,
}

/// A path with its query.
#[derive(Debug)]
pub(super) struct Query(String);

impl Query {
    pub(super) fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// Adds a parameter, where there is a value for it.
    pub(super) fn with(mut self, name: &str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            self.0.push(if self.0.contains('?') { '&' } else { '?' });
            self.0.push_str(name);
            self.0.push('=');
            for byte in value.to_string().bytes() {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    self.0.push(byte.into());
                } else {
                    // A `String` takes everything.
                    let _ = write!(self.0, "%{byte:02X}");
                }
            }
        }
        self
    }
}

impl Client {
    pub(super) fn new(reach: Reach) -> Result<Self, Failure> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { reach, runtime })
    }

    /// The answer, if it is one of this API's.
    pub(super) fn get(&self, query: &Query) -> Result<Value, Failure> {
        self.ask(Method::GET, &query.0, None, TIMEOUT)
    }

    /// The same, for a change.
    pub(super) fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::PUT, path, Some(("application/json", body.to_string().into())), TIMEOUT)
    }

    /// The same, for a change back.
    pub(super) fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::DELETE, path, None, TIMEOUT)
    }

    /// The same, for something to be done.
    pub(super) fn post(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::POST, path, None, TIMEOUT)
    }

    /// The same, with a file.
    pub(super) fn upload(
        &self,
        path: &str,
        media_type: &'static str,
        file: Vec<u8>,
    ) -> Result<Value, Failure> {
        self.ask(Method::POST, path, Some((media_type, file.into())), UPLOAD)
    }

    /// What happens from now on, or after the event with the id `after`.
    pub(super) fn stream(&self, query: &Query, after: Option<i64>) -> Result<Stream<'_>, Failure> {
        let mut request = self.request(Method::GET, &query.0, None)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(after) = after {
            request.headers_mut().insert("last-event-id", after.into());
        }
        self.runtime.block_on(async {
            let response = self.within(TIMEOUT, self.send(request)).await?;
            let status = response.status().as_u16();
            if status == 200 {
                return Ok(Stream::new(&self.runtime, response.into_body()));
            }
            let failure = self.read(response).await.err().unwrap_or_else(|| self.stranger());
            // 503: it may have room later.
            Err(if status == 503 { Failure::Unreachable(failure.to_string()) } else { failure })
        })
    }

    /// The fleet's database, and how long it is.
    pub(super) fn backup(&self) -> Result<(Option<u64>, impl Read + use<'_>), Failure> {
        let request = self.request(Method::POST, "/api/backup", None)?;
        self.runtime.block_on(async {
            // It takes as long as it takes; each step of it has a deadline.
            let response = self.within(BACKUP_BEGINS, self.send(request)).await?;
            if response.status() != 200 {
                return Err(self.read(response).await.err().unwrap_or_else(|| self.stranger()));
            }
            let body = response.into_body();
            let whole = body.size_hint().exact();
            Ok((whole, Reading { runtime: &self.runtime, body, rest: Bytes::new() }))
        })
    }

    fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
        patience: Duration,
    ) -> Result<Value, Failure> {
        let request = self.request(method, path, body)?;
        self.runtime.block_on(async {
            let response = self.within(patience, self.send(request)).await?;
            self.read(response).await
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Request<Upload>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.reach.host());
        if let Some((media_type, _)) = &body {
            request = request.header(CONTENT_TYPE, *media_type);
        }
        if let Some(token) = self.reach.token() {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| self.stranger())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let body = body.map(|(_, bytes)| Upload::new(bytes)).unwrap_or_default();
        request.header(CONNECTION, "close").body(body).map_err(|fault| self.unreachable(&fault))
    }

    async fn send(&self, request: Request<Upload>) -> Result<Response<Incoming>, Failure> {
        let stream = self.reach.connect().await.map_err(|fault| self.unreachable(&fault))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|fault| self.unreachable(&fault))?;
        // It moves while this thread waits for its answer; how it ends, the answer tells.
        drop(self.runtime.spawn(connection));
        sender.send_request(request).await.map_err(|fault| self.unreachable(&fault))
    }

    async fn within<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let late = format!("it took longer than {} s", patience.as_secs());
        timeout(patience, work).await.unwrap_or_else(|_| Err(self.unreachable(&late)))
    }

    /// Reads an answer to its end; one that is no success is a failure.
    async fn read(&self, response: Response<Incoming>) -> Result<Value, Failure> {
        let status = response.status().as_u16();
        let whole = self.within(TIMEOUT, async {
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
            body.map_err(|fault| self.unreachable(&fault))
        });
        let answer: Value = serde_json::from_slice(&whole.await?.to_bytes()).map_err(|_| self.stranger())?;
        match (status, answer["detail"].as_str()) {
            (200, _) => Ok(answer),
            (404, Some(detail)) => Err(Failure::NotFound(detail.to_owned())),
            (401, Some(detail)) => Err(Failure::Answer(format!(
                "{} answers: {detail}. Name the file with the token by --token-file or MOORLINE_TOKEN_FILE",
                self.reach
            ))),
            (_, Some(detail)) => {
                Err(Failure::Answer(format!("{} answers: {detail}{}", self.reach, bad_lines(&answer))))
            }
            (_, None) => Err(self.stranger()),
        }
    }

    /// Something else than a moorline-server answered.
    pub(super) fn stranger(&self) -> Failure {
        Failure::Answer(format!(
            "what answers at {} is no moorline-server, or one of another version: name the address in its \
             [listen] operators by --server or MOORLINE_SERVER",
            self.reach
        ))
    }

    fn unreachable(&self, fault: &dyn Display) -> Failure {
        Failure::Unreachable(format!(
            "no answer from {} ({fault}): is moorline-server running, and is this the address in its [listen] operators? \
             Name another by --server or MOORLINE_SERVER",
            self.reach
        ))
    }
}

/// What is wrong with which line of a file that was sent.
fn bad_lines(problem: &Value) -> String {
    let lines = problem["lines"].as_array().into_iter().flatten();
    lines.fold(String::new(), |mut told, line| {
        let [value, reason] = ["value", "reason"].map(|name| line[name].as_str().unwrap_or_default());
        // A `String` takes everything.
        let _ = write!(told, "\n  line {}: {}: {reason}", line["line"], value.escape_debug());
        told
    })
}

/// A long answer as it comes.
struct Reading<'r> {
    runtime: &'r Runtime,
    body: Incoming,
    rest: Bytes,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let frame = self.runtime.block_on(async { timeout(TIMEOUT, self.body.frame()).await });
            match frame.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))? {
                None => return Ok(0),
                Some(frame) => self.rest = frame.map_err(io::Error::other)?.into_data().unwrap_or_default(),
            }
        }
        let taken = self.rest.split_to(self.rest.len().min(buffer.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_percent_encoded() {
        let query = Query::new("/x").with("a", Some("EC25 &=ü")).with("b", None::<u8>).with("c", Some(7));
        assert_eq!(query.0, "/x?a=EC25%20%26%3D%C3%BC&c=7");
    }
}
