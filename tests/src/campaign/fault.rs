//! What goes wrong.

use std::fmt;

use crate::several::NAMES;

/// See the module. Servers are named by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A server is killed, and started again.
    Kill(usize),
    /// Of the NATS servers the one that leads is.
    KillNats,
    /// All NATS servers are.
    KillAllNats,
    /// What a server and NATS say to each other goes nowhere.
    CutOff(usize),
    /// Some devices go to another server every second.
    Hop,
    /// A server stands still, and wakes.
    Hang(usize),
    /// A server's clock jumps ahead or behind by an hour, and back.
    WrongClock {
        /// Which.
        server: usize,
        /// Or behind.
        ahead: bool,
    },
    /// All servers are stopped in good order and started again, one after the other.
    Roll,
}

impl Fault {
    /// Whether devices with a session notice nothing of it.
    pub(super) const fn is_not_noticed(&self) -> bool {
        match self {
            Self::KillNats | Self::KillAllNats | Self::CutOff(_) | Self::Hang(_) => true,
            Self::WrongClock { .. } => true,
            Self::Kill(_) | Self::Hop | Self::Roll => false,
        }
    }

    /// In this order they end: a server does not start without NATS.
    pub(super) const fn heals_at(&self) -> u8 {
        match self {
            Self::KillNats | Self::KillAllNats => 0,
            Self::CutOff(_) => 1,
            Self::Hang(_) | Self::Hop | Self::WrongClock { .. } | Self::Roll => 2,
            Self::Kill(_) => 3,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(server) => write!(f, "kill -9 of {}", NAMES[*server]),
            Self::KillNats => f.write_str("kill -9 of the NATS leader"),
            Self::KillAllNats => f.write_str("kill -9 of all NATS"),
            Self::CutOff(server) => write!(f, "{} cut off from NATS", NAMES[*server]),
            Self::Hop => f.write_str("devices hop"),
            Self::Hang(server) => write!(f, "{} hangs", NAMES[*server]),
            Self::WrongClock { server, ahead } => {
                let which = if *ahead { "ahead" } else { "behind" };
                write!(f, "{}'s clock an hour {which}", NAMES[*server])
            }
            Self::Roll => f.write_str("rolling restart"),
        }
    }
}
