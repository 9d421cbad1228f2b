//! The operators' HTTP as a person with curl sees it.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use ureq::http::Request;

use crate::failure::Failure;
use crate::process::PATIENCE;

/// How often [`Operators::wait_until`] asks.
const PACE: Duration = Duration::from_millis(50);

/// A server's operators' address.
#[derive(Clone, Copy, Debug)]
pub struct Operators(pub SocketAddr);

impl Operators {
    /// The address of a page.
    #[must_use]
    pub fn url(self, path: &str) -> String {
        format!("http://{}{path}", self.0)
    }

    /// A page's text.
    ///
    /// # Errors
    /// No answer, or a status that is no success.
    #[track_caller]
    pub fn text(self, path: &str) -> Result<String, Failure> {
        let mut answer = match ureq::get(self.url(path)).call() {
            Ok(answer) => answer,
            Err(error) => return Err(Failure::new(format!("GET {path}: {error}"))),
        };
        Ok(answer.body_mut().read_to_string()?)
    }

    /// A page's JSON.
    ///
    /// # Errors
    /// No answer, a status that is no success, or no JSON.
    #[track_caller]
    pub fn json(self, path: &str) -> Result<Value, Failure> {
        Ok(serde_json::from_str(&self.text(path)?)?)
    }

    /// Asks for `path` until `pick` makes something of it; `what` names that.
    ///
    /// # Errors
    /// It did not within [`PATIENCE`].
    #[track_caller]
    pub fn wait_until<T>(
        self,
        path: &str,
        what: &str,
        pick: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T, Failure> {
        self.wait_within(PATIENCE, path, what, pick)
    }

    /// As [`Self::wait_until`], but not longer than `patience`.
    ///
    /// # Errors
    /// It did not in time.
    #[track_caller]
    pub fn wait_within<T>(
        self,
        patience: Duration,
        path: &str,
        what: &str,
        mut pick: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T, Failure> {
        wait(patience, &format!("{path} does not show {what}"), || {
            let value = self.json(path).map_err(|failure| failure.to_string())?;
            pick(&value).ok_or_else(|| format!("{value:#}"))
        })
    }

    /// Waits until a page's text has this line.
    ///
    /// # Errors
    /// It has not within [`PATIENCE`].
    #[track_caller]
    pub fn wait_line(self, path: &str, line: &str) -> Result<(), Failure> {
        wait(PATIENCE, &format!("{path} does not have {line:?}"), || {
            let text = self.text(path).map_err(|failure| failure.to_string())?;
            if text.lines().any(|one| one == line) { Ok(()) } else { Err(text) }
        })
    }

    /// Sends what changes something; the answer, whether it was done or not.
    ///
    /// # Errors
    /// No answer, or no JSON.
    #[track_caller]
    pub fn send(self, method: &str, path: &str, body: Option<&str>) -> Result<Value, Failure> {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = Request::builder().method(method).uri(self.url(path));
        let request = request.header("Content-Type", "application/json");
        let mut answer = agent.run(request.body(body.unwrap_or_default().to_owned())?)?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    }

    /// Asks for `path` until it is refused for a reason that `is_it` knows.
    ///
    /// # Errors
    /// It was not within [`PATIENCE`].
    #[track_caller]
    pub fn wait_refused(self, path: &str, is_it: impl Fn(&str) -> bool) -> Result<String, Failure> {
        wait(PATIENCE, &format!("{path} is not refused for that"), || {
            let answer = self.send("GET", path, None).map_err(|failure| failure.to_string())?;
            let text = answer["reasons"].to_string();
            if is_it(&text) { Ok(text) } else { Err(text) }
        })
    }

    /// What the list of devices says of one; `null` when it is not in it.
    ///
    /// # Errors
    /// No answer that makes sense.
    #[track_caller]
    pub fn device(self, imei: &str) -> Result<Value, Failure> {
        let list = self.json("/api/devices")?;
        Ok(find_device(&list, imei).cloned().unwrap_or(Value::Null))
    }

    /// Waits until the list of devices shows one as online or offline, and returns what it says of it.
    ///
    /// # Errors
    /// It does not within [`PATIENCE`].
    #[track_caller]
    pub fn wait_online(self, imei: &str, online: bool) -> Result<Value, Failure> {
        let what = format!("{imei} with online = {online}");
        self.wait_until("/api/devices", &what, |list| {
            find_device(list, imei).filter(|device| device["online"] == online).cloned()
        })
    }

    /// Every event after the one of this id, the oldest first.
    ///
    /// # Errors
    /// No answer that makes sense.
    #[track_caller]
    pub fn events_after(self, id: i64) -> Result<Vec<Value>, Failure> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let after = all.last().map_or(id, |event| event["id"].as_i64().unwrap_or(id));
            let page = self.json(&format!("/api/events?after={after}&limit=1000"))?;
            match page["events"].as_array() {
                Some(page) if !page.is_empty() => all.extend_from_slice(page),
                _ => return Ok(all),
            }
        }
    }

    /// Waits until the events of one device, the oldest first, end in `kinds`.
    ///
    /// # Errors
    /// They do not within [`PATIENCE`].
    #[track_caller]
    pub fn wait_events(self, imei: &str, kinds: &[&str]) -> Result<Vec<Value>, Failure> {
        self.wait_until("/api/events", &format!("events {kinds:?} of {imei}"), |answer| {
            let mut events: Vec<_> =
                answer["events"].as_array()?.iter().filter(|event| event["imei"] == imei).cloned().collect();
            events.sort_by_key(|event| event["id"].as_i64());
            let seen = events.iter().rev().map(|event| event["kind"].as_str());
            let wanted = kinds.iter().rev().map(|kind| Some(*kind));
            (events.len() >= kinds.len() && seen.take(kinds.len()).eq(wanted)).then_some(events)
        })
    }
}

fn find_device<'l>(list: &'l Value, imei: &str) -> Option<&'l Value> {
    list["devices"].as_array()?.iter().find(|device| device["imei"] == imei)
}

/// Looks again and again until there is something; `else_what` says that there was not, before what was seen last. HTTP brings no
/// event to wait for, so a channel that nobody sends on keeps the pace.
#[track_caller]
fn wait<T>(
    patience: Duration,
    else_what: &str,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, Failure> {
    let (_silent, pace) = mpsc::channel::<()>();
    let mut last = String::from("no answer");
    for _ in 0..patience.as_millis() / PACE.as_millis() {
        match look() {
            Ok(found) => return Ok(found),
            Err(seen) => last = seen,
        }
        let _ = pace.recv_timeout(PACE);
    }
    Err(Failure::new(format!("{else_what}; last seen: {last}")))
}
