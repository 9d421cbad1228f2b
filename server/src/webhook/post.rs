//! One request and its answer, within ten seconds: the one place that speaks to the receiver.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, Uri, header};
use rustls::crypto::ring;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Error};

use super::envelope::{CONTENT_TYPE, Message};
use super::settings::WebhookSettings;
use super::signature::Secrets;
use crate::clock::Now;
use crate::tls;

/// From the name's resolution to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What of an answer is read, so that its connection can be used again.
const MAX_ANSWER: u64 = 16 * 1024;

/// See the module.
pub(super) struct Poster {
    agent: Agent,
    url: Uri,
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    Taken,
    /// The receiver cannot do anything with what was in it, and will not another time.
    Refused(u16),
    /// Another time it may go well.
    Failed(Fault),
}

/// Why a request is to be made again.
#[derive(Debug)]
pub(super) struct Fault {
    /// A stable name from a fixed list.
    pub(super) reason: &'static str,
    /// The same in words.
    pub(super) text: String,
    /// What the receiver asks for.
    pub(super) retry_after: Option<Duration>,
}

impl Fault {
    pub(super) const fn new(reason: &'static str, text: String) -> Self {
        Self { reason, text, retry_after: None }
    }
}

impl Poster {
    /// Makes the client.
    ///
    /// # Errors
    /// The CA's file is none.
    pub(super) fn new(settings: &WebhookSettings) -> Result<Self, String> {
        let roots = match &settings.ca {
            None => RootCerts::WebPki,
            Some(path) => {
                let read = tls::certificates(path)?;
                let roots = read.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
                RootCerts::Specific(Arc::new(roots))
            }
        };
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            // Where to is the operator's word, neither the receiver's nor the environment's.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("moorline-server/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.into(), url: settings.url.clone() })
    }

    pub(super) fn post(&self, message: &Message, secrets: &Secrets, now: Now) -> Outcome {
        let timestamp = now.utc_ms.div_euclid(1000);
        let sent = self
            .agent
            .post(&self.url)
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", secrets.sign(&message.id, timestamp, &message.body))
            .send(&message.body[..]);
        match sent {
            Ok(mut answer) => {
                let retry_after =
                    answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                let outcome = judge(answer.status(), retry_after, now);
                // What is too long or too slow ends the connection, and the status counts all the same.
                let _ = Body::with_config(answer.body_mut()).limit(MAX_ANSWER).read_to_vec();
                outcome
            }
            Err(fault) => Outcome::Failed(explain(&fault)),
        }
    }
}

/// What an answer means. A receiver that is set up wrongly (401, 404, 410; and 400, as many answer to a signature that they
/// do not know) is set right some day, and nothing must be lost until then. One that says of what it was sent that it is too
/// much or makes no sense says the same the next time.
fn judge(status: StatusCode, retry_after: Option<&str>, now: Now) -> Outcome {
    let (reason, text) = match status.as_u16() {
        200..=299 => return Outcome::Taken,
        code @ (413 | 422) => return Outcome::Refused(code),
        300..=399 => ("redirect", "redirects are not followed: name the place itself in webhook.url"),
        429 => ("overload", "the receiver wants less of them"),
        400..=499 => ("status", "the receiver does not take them"),
        _ => ("status", "the receiver fails"),
    };
    let text = format!("{text} (it answered {status})");
    Outcome::Failed(Fault { reason, text, retry_after: retry_after.and_then(|value| seconds(value, now)) })
}

/// RFC 9110 section 10.2.3: seconds, or a date.
fn seconds(retry_after: &str, now: Now) -> Option<Duration> {
    if let Ok(seconds) = retry_after.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::parse(retry_after.trim()).ok()?.timestamp().as_millisecond();
    Some(Duration::from_millis(u64::try_from(until.saturating_sub(now.utc_ms)).unwrap_or(0)))
}

fn explain(fault: &Error) -> Fault {
    let (reason, text) = match fault {
        Error::Timeout(_) => ("timeout", format!("no answer within {} s", PATIENCE.as_secs())),
        Error::HostNotFound => ("connection", "the receiver's name cannot be resolved".to_owned()),
        Error::Rustls(fault) => ("tls", format!("TLS failed: {fault}")),
        // So they come in the middle of a handshake.
        Error::Io(fault) if is_of_tls(fault) => ("tls", format!("TLS failed: {fault}")),
        Error::Io(fault) => ("connection", format!("the connection failed: {fault}")),
        other => ("connection", other.to_string()),
    };
    Fault::new(reason, text)
}

fn is_of_tls(fault: &io::Error) -> bool {
    fault.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn judged(code: u16, retry_after: Option<&str>) -> Outcome {
        let now = Now { utc_ms: 1_445_412_480_000 - 90_000, ..clock::now() };
        judge(StatusCode::from_u16(code).unwrap(), retry_after, now)
    }

    #[test]
    fn only_what_is_taken_or_never_will_be_is_done_with() {
        for code in [200, 202, 204] {
            assert!(matches!(judged(code, None), Outcome::Taken), "{code}");
        }
        for code in [413, 422] {
            assert!(matches!(judged(code, None), Outcome::Refused(_)), "{code}");
        }
        for (code, wanted) in [
            (302, "redirect"),
            (308, "redirect"),
            (400, "status"),
            (401, "status"),
            (404, "status"),
            (408, "status"),
            (410, "status"),
            (429, "overload"),
            (500, "status"),
            (503, "status"),
        ] {
            assert!(
                matches!(judged(code, None), Outcome::Failed(Fault { reason, .. }) if reason == wanted),
                "{code}"
            );
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let asked = |value| match judged(429, Some(value)) {
            Outcome::Failed(fault) => fault.retry_after.map(|asked| asked.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(asked("17"), Some(17));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(90));
        assert_eq!(asked("Wed, 21 Oct 2009 07:28:00 GMT"), Some(0));
        assert_eq!(asked("soon"), None);
    }
}
