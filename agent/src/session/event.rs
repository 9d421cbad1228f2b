//! What a session tells: what happened, and why it ended.

use std::time::Duration;

use heapless::String;

use super::{Echo, PeerError};

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The server took the device in.
    Registered {
        /// The server's name for this session; a classic server gives none.
        session_id: Option<u64>,
        /// The heartbeat interval that holds.
        heartbeat: Duration,
        /// The window over which to spread a return when the server is lost.
        spread: Duration,
    },
    /// An answer came this long after it was asked for.
    Answered {
        /// The round trip.
        round_trip: Duration,
    },
    /// What became of an Echo that was agreed on.
    Echo(Echo),
    /// The server told its time.
    Time {
        /// How far the server's clock is ahead of the device's, milliseconds.
        offset_ms: i64,
        /// The part of the exchange that was spent on the way; `None` from a classic server, whose text has no zone and
        /// whole seconds only.
        round_trip: Option<Duration>,
    },
    /// What [`super::Session::tell_usage`] was given went out.
    UsageTold,
    /// A message that this version does not know was skipped.
    Skipped {
        /// Its discriminant.
        message: u32,
    },
    /// The session is over: close the link. Nothing follows.
    Ended(End),
}

/// Why a session is over.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The agent closed it.
    Closed,
    /// The server owed an answer for two deadlines.
    Silent {
        /// How long.
        waited: Duration,
        /// Whether its host took the question in: then the server is stuck, else the way is gone.
        acknowledged: bool,
    },
    /// The server does not admit the device.
    Rejected {
        /// One of [`moorline_protocol::rejection`].
        code: u8,
        /// The server's words.
        text: String<96>,
    },
    /// The server ended it.
    Goodbye {
        /// One of [`moorline_protocol::server_goodbye`].
        reason: u8,
        /// Come back no sooner than this.
        retry_after: Duration,
    },
    /// A classic server refused a heartbeat: it has forgotten the device, which registers anew in the next session.
    Forgotten,
    /// The server broke the protocol.
    Protocol(PeerError),
}
