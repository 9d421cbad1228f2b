//! Where the road to the server stands, what each state waits for, and until when.

use std::fmt;
use std::net::TcpStream;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::clock::{Now, Utc};
use crate::dns::Lookup;
use crate::link::Link;
use crate::round::Target;

/// Where the link stands; named by what it waits for. The link is the largest thing that the agent has, and goes from state to state
/// without being copied on the stack.
#[derive(Debug, Default)]
pub(super) enum State {
    /// Who the device is is not known yet.
    #[default]
    Nameless,
    /// The next try is due at `until`.
    Offline { until: Instant, until_ms: i64 },
    /// A name is looked up.
    Resolving { server: usize, lookup: Lookup, deadline: Instant },
    /// TCP connects.
    Connecting { target: Target, socket: TcpStream, deadline: Instant },
    /// TLS shakes hands.
    Handshaking { target: Target, link: Box<Link>, deadline: Instant },
    /// The greeting is out; the session has its own deadlines from here on.
    Registering { target: Target, link: Box<Link> },
    /// The server took the device in.
    Online { link: Box<Link>, since: Now, spread: Duration },
    /// Goodbye goes out, or the server's end of the stream is waited for.
    Leaving { link: Box<Link>, reason: u8, sent: bool, deadline: Instant },
    /// Nothing is left to be said; for a stop the end, for a reload the beginning.
    Left,
}

impl State {
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Nameless => "without an IMEI",
            Self::Offline { .. } => "offline",
            Self::Resolving { .. } => "resolving",
            Self::Connecting { .. } => "connecting",
            Self::Handshaking { .. } => "handshaking",
            Self::Registering { .. } => "registering",
            Self::Online { .. } => "online",
            Self::Leaving { .. } => "leaving",
            Self::Left => "left",
        }
    }

    /// The next try comes after `delay`.
    pub(super) fn offline(now: Now, delay: Duration) -> Self {
        let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        Self::Offline { until: now.instant + delay, until_ms: now.utc_ms.saturating_add(delay_ms) }
    }

    /// What to wait for, beside [`Self::deadline`].
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match self {
            Self::Nameless | Self::Offline { .. } | Self::Left => None,
            Self::Resolving { lookup, .. } => Some((lookup.as_fd(), PollFlags::IN)),
            Self::Connecting { socket, .. } => Some((socket.as_fd(), PollFlags::OUT)),
            Self::Leaving { link, sent: true, .. } => Some((link.as_fd(), PollFlags::IN)),
            Self::Handshaking { link, .. }
            | Self::Registering { link, .. }
            | Self::Online { link, .. }
            | Self::Leaving { link, .. } => Some((link.as_fd(), link.interest())),
        }
    }

    /// When there is something to do, whatever comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Nameless | Self::Left => None,
            Self::Offline { until: at, .. }
            | Self::Resolving { deadline: at, .. }
            | Self::Connecting { deadline: at, .. }
            | Self::Leaving { deadline: at, .. } => Some(*at),
            Self::Handshaking { link, deadline, .. } => {
                link.poll_timeout().into_iter().chain([*deadline]).min()
            }
            Self::Registering { link, .. } | Self::Online { link, .. } => link.poll_timeout(),
        }
    }
}

/// The state in words.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())?;
        match self {
            Self::Online { link, since, .. } => {
                let (peer, version, dialect) = (link.peer(), link.tls_version(), link.dialect());
                write!(f, " since {} with {peer}, {version}, {dialect}", Utc(since.utc_ms))
            }
            Self::Offline { until_ms, .. } => write!(f, ", next try at {}", Utc(*until_ms)),
            _ => Ok(()),
        }
    }
}
