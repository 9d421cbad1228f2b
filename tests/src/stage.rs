//! Where a tale is told to a person: one line per happening, with when and who, coloured only on a terminal.

use std::env;
use std::fmt::Display;
use std::io::{IsTerminal as _, stdout};
use std::time::{Duration, Instant};

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The teller, who also pulls plugs.
    Demo,
    /// The modem.
    Modem,
    /// The agent.
    Device,
    /// The server.
    Server,
}

impl Who {
    const fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Modem => "modem",
            Self::Device => "device",
            Self::Server => "server",
        }
    }

    /// Its colour's number (ECMA-48 section 8.3.117).
    const fn colour(self) -> u8 {
        match self {
            Self::Demo => 33,
            Self::Modem => 35,
            Self::Device => 36,
            Self::Server => 32,
        }
    }
}

/// Standard output, since when the tale is told.
pub struct Stage {
    began: Instant,
    coloured: bool,
}

impl Stage {
    /// The tale begins now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "a tale for people is told with times; nothing is decided by them"
    )]
    pub fn begin() -> Self {
        let coloured = stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { began: Instant::now(), coloured }
    }

    /// How long it has been told.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "as for `begin`")]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Tells what somebody did.
    pub fn tell(&self, who: Who, what: impl Display) {
        let seconds = self.elapsed().as_secs_f64();
        let (name, colour) = (who.name(), who.colour());
        if self.coloured {
            println!("\x1b[2m{seconds:6.1} s\x1b[0m  \x1b[{colour}m{name:<6}\x1b[0m  {what}");
        } else {
            println!("{seconds:6.1} s  {name:<6}  {what}");
        }
    }
}
