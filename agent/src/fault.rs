//! What ended a try or a session, in words for the log and in kinds for the backoff and the round.

use std::io::{self, ErrorKind};
use std::time::Duration;

use moorline_config::HumanDuration;
use moorline_protocol::server_goodbye;

use crate::backoff::Cause;
use crate::diagnosis::Step;
use crate::link::LinkError;
use crate::refusal;
use crate::session::End;

/// A server that asks for more has made a mistake; a device that obeyed it would be lost.
pub const LONGEST_ABSENCE: Duration = Duration::from_secs(24 * 3600);

/// What a link was at when it broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The handshake.
    Handshake,
    /// The handshake was over on this side and the server's answer was waited for, which is when a server refuses a
    /// certificate; its reason may be lost with the connection.
    Greeted,
    /// A session stood, and this side had just ended a silence.
    SilenceEnded,
    /// A session stood.
    Online,
}

/// One fault.
#[derive(Debug)]
pub struct Fault {
    /// How far the try had come.
    pub step: Step,
    /// What it means for the next delay.
    pub cause: Cause,
    /// What it means for a person.
    pub text: String,
    /// The least the server asked for.
    pub retry_after: Option<Duration>,
    /// The server is gone for all its devices, as far as can be told: their return has to be spread.
    pub server_lost: bool,
    /// The server wants no ALPN.
    pub alpn: bool,
}

impl Fault {
    /// Something on the way to the server.
    pub fn network(step: Step, text: impl Into<String>) -> Self {
        Self::new(step, Cause::Network, text.into())
    }

    /// A connection that did not come about.
    #[must_use]
    pub fn of_connect(error: &io::Error) -> Self {
        let step = match error.kind() {
            ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable => Step::Route,
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Step::Port,
            _ => Step::Tcp,
        };
        Self::network(step, format!("no connection: {error}"))
    }

    /// One side does not take the other, and a retry alone won't mend it.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::new(Step::Session, Cause::Refused, text.into())
    }

    fn new(step: Step, cause: Cause, text: String) -> Self {
        Self { step, cause, text, retry_after: None, server_lost: false, alpn: false }
    }

    /// A broken link.
    #[must_use]
    pub fn of_link(error: &LinkError, moment: Moment, utc_ms: i64) -> Self {
        let step = if moment == Moment::Handshake { Step::Tls } else { Step::Session };
        match error {
            LinkError::Tls(fault) => {
                let (cause, text) = refusal::explain(fault, utc_ms);
                let alert = rustls::AlertDescription::NoApplicationProtocol;
                let alpn = *fault == rustls::Error::AlertReceived(alert);
                Self { alpn, ..Self::new(step, cause, text) }
            }
            LinkError::Stuck => Self::network(step, "nothing could be sent any more"),
            LinkError::Socket(_) | LinkError::Closed { .. } => {
                let mut text = match error {
                    LinkError::Socket(error) => format!("the connection broke: {error}"),
                    LinkError::Closed { cleanly: true } => "the server closed the connection".to_owned(),
                    _ => "the connection was cut".to_owned(),
                };
                if moment == Moment::Greeted {
                    text.push_str(" before the server answered: if it refused this device, its log says why");
                }
                Self { server_lost: is_server_lost(error, moment), ..Self::network(step, text) }
            }
        }
    }

    /// The end of a session.
    #[must_use]
    pub fn of_session(end: &End) -> Self {
        match end {
            End::Closed => Self::new(Step::Session, Cause::Ended, "closed by this side".to_owned()),
            End::Silent { waited, acknowledged } => {
                let guess = if *acknowledged {
                    "its host took the question in, so the server is stuck"
                } else {
                    "its host took nothing in, so the way is gone"
                };
                Self::network(Step::Session, format!("no answer for {}; {guess}", HumanDuration(*waited)))
            }
            End::Rejected { code, text } => Self::new(
                Step::Session,
                Cause::Refused,
                format!("the server rejected this device: {text} (code {code})"),
            ),
            End::Goodbye { reason, retry_after } => Self {
                retry_after: Some((*retry_after).min(LONGEST_ABSENCE)).filter(|least| !least.is_zero()),
                ..Self::goodbye(*reason)
            },
            End::Forgotten => Self::new(
                Step::Session,
                Cause::Ended,
                "the server has forgotten this device, which registers anew".to_owned(),
            ),
            End::Protocol(fault) => {
                Self::new(Step::Session, Cause::Ended, format!("the server broke the protocol: {fault}"))
            }
        }
    }

    fn goodbye(reason: u8) -> Self {
        let (cause, text) = match reason {
            server_goodbye::STOPPING => (Cause::Ended, "it stops or restarts"),
            server_goodbye::REPLACED => (
                Cause::Ended,
                "a newer session with this IMEI took over; does another device or agent use it?",
            ),
            server_goodbye::IDLE => (Cause::Ended, "it heard nothing from this device"),
            server_goodbye::PROTOCOL_ERROR => (Cause::Ended, "it says that this device broke the protocol"),
            server_goodbye::DROPPED => (Cause::Ended, "an operator ended the session"),
            server_goodbye::CERTIFICATE => {
                (Cause::Refused, "this device's certificate was revoked or has expired")
            }
            _ => (Cause::Ended, "it gave no reason that is known here"),
        };
        Self::new(Step::Session, cause, format!("the server said goodbye: {text}"))
    }
}

/// Whether a broken link tells of a server that all its devices lost in this second.
///
/// A reset that answers this device's first word after a silence tells that the host does not know the flow: behind a NAT
/// that forgot it and gave the word another port, it never did. Where it was started anew meanwhile, other devices' silences
/// end at other times. What the kernel says of the way (timed out, unreachable) is lost coverage.
fn is_server_lost(error: &LinkError, moment: Moment) -> bool {
    match error {
        LinkError::Socket(error) => match error.kind() {
            ErrorKind::ConnectionReset => moment != Moment::SilenceEnded,
            kind => kind == ErrorKind::BrokenPipe,
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spreads(error: &LinkError, moment: Moment) -> bool {
        Fault::of_link(error, moment, 0).server_lost
    }

    #[test]
    fn server_that_lets_a_session_go_is_lost() {
        for moment in [Moment::Online, Moment::SilenceEnded] {
            for cleanly in [true, false] {
                assert!(spreads(&LinkError::Closed { cleanly }, moment));
            }
        }
        assert!(spreads(&LinkError::Socket(ErrorKind::ConnectionReset.into()), Moment::Online));
        assert!(spreads(&LinkError::Socket(ErrorKind::BrokenPipe.into()), Moment::Online));
    }

    #[test]
    fn nat_that_forgot_the_flow_loses_no_server() {
        assert!(!spreads(&LinkError::Socket(ErrorKind::ConnectionReset.into()), Moment::SilenceEnded));
    }

    #[test]
    fn way_that_is_gone_loses_no_server() {
        for kind in [ErrorKind::TimedOut, ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable] {
            for moment in [Moment::Online, Moment::SilenceEnded] {
                assert!(!spreads(&LinkError::Socket(kind.into()), moment), "{kind:?}");
            }
        }
    }
}
