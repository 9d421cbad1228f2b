//! The server's HTTP, from outside.

use std::fmt::{Display, Write as _};
use std::io::Read;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

use super::failure::Failure;

/// The server is near and answers from memory; what takes longer does not come.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A large fleet is copied on the server's disk first.
const BACKUP_BEGINS: Duration = Duration::from_secs(600);

/// A server that can be asked.
#[derive(Debug)]
pub(super) struct Client {
    server: String,
    agent: Agent,
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
    /// `server` is a URL, or only host and port.
    pub(super) fn new(server: &str) -> Result<Self, Failure> {
        let url = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let is_right =
            |uri: Uri| uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        if !url.parse().is_ok_and(is_right) {
            return Err(Failure::Address(format!(
                "\"{}\" is not a server's address: it is of the form http://127.0.0.1:9090",
                server.escape_debug()
            )));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            // The server is on this machine or at the other end of a tunnel, not behind the way to the web.
            .proxy(None)
            .build();
        let server = url.strip_suffix('/').unwrap_or(&url).to_owned();
        Ok(Self { server, agent: config.into() })
    }

    /// The answer, if it is one of this API's.
    pub(super) fn get(&self, query: &Query) -> Result<Value, Failure> {
        self.answer(self.agent.get(self.url(&query.0)).call())
    }

    /// The same, for a change.
    pub(super) fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.answer(self.agent.put(self.url(path)).send_json(body))
    }

    /// The same, for a change back.
    pub(super) fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.answer(self.agent.delete(self.url(path)).call())
    }

    /// The fleet's database, and how long it is.
    pub(super) fn backup(&self) -> Result<(Option<u64>, impl Read + use<>), Failure> {
        // It takes as long as it takes; only the beginning of the answer has a deadline.
        let request = self.agent.post(self.url("/api/backup")).config().timeout_global(None);
        let response = request.timeout_recv_response(Some(BACKUP_BEGINS)).build().send_empty();
        match response {
            Ok(response) if response.status() == 200 => {
                let body = response.into_body();
                Ok((body.content_length(), body.into_reader()))
            }
            other => match self.answer(other) {
                Err(failure) => Err(failure),
                Ok(_) => Err(self.stranger()),
            },
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    fn answer(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Value, Failure> {
        let mut response = response.map_err(|fault| self.unreachable(&fault))?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().map_err(|fault| self.unreachable(&fault))?;
        let answer: Value = serde_json::from_str(&text).map_err(|_| self.stranger())?;
        match (status, answer["detail"].as_str()) {
            (200, _) => Ok(answer),
            (404, Some(detail)) => Err(Failure::NotFound(detail.to_owned())),
            (_, Some(detail)) => Err(Failure::Answer(format!("{} answers: {detail}", self.server))),
            (_, None) => Err(self.stranger()),
        }
    }

    /// Something else than a moorline-server answered.
    pub(super) fn stranger(&self) -> Failure {
        Failure::Answer(format!(
            "what answers at {} is no moorline-server, or one of another version: name the address in its \
             [listen] operators by --server or MOORLINE_SERVER",
            self.server
        ))
    }

    fn unreachable(&self, fault: &ureq::Error) -> Failure {
        Failure::Unreachable(format!(
            "no answer from {} ({fault}): is moorline-server running, and is this the address in its [listen] operators? \
             Name another by --server or MOORLINE_SERVER",
            self.server
        ))
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

    #[test]
    fn addresses_need_no_scheme() {
        for server in ["127.0.0.1:9090", "http://127.0.0.1:9090", "http://127.0.0.1:9090/"] {
            assert_eq!(Client::new(server).unwrap().server, "http://127.0.0.1:9090");
        }
    }

    #[test]
    fn other_addresses_are_usage_errors() {
        for server in ["https://127.0.0.1", "", "http://", "http://host/path", "http://a b", "ftp://host"] {
            assert_eq!(Client::new(server).unwrap_err().exit_code(), 2, "{server}");
        }
    }
}
