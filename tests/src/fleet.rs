//! A whole fleet that loses its server at once, in virtual time: when does each device come back, and what does the
//! server see of it?
//!
//! The devices wait as the agent does (its own [`Backoff`]); the server is modelled by how many handshakes it does in a
//! second. No sockets, no TLS: what is asked here is who comes when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::time::Duration;

use moorline_agent::backoff::{Backoff, Cause, Limits};

/// What happens to whom.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// Devices that are online when the server dies.
    pub devices: u32,
    /// How long it is dead.
    pub dead: Duration,
    /// Handshakes that it does in a second.
    pub rate: u32,
    /// What its Welcome said to spread a return over.
    pub spread: Duration,
    /// Chance.
    pub seed: u64,
}

/// What `[reconnect]` is by default.
const LIMITS: Limits = Limits {
    first: Duration::from_secs(1),
    max: Duration::from_secs(600),
    stable_after: Duration::from_secs(300),
};

/// What an agent grants a handshake; the server's queue is as long as that.
const PATIENCE_MS: u64 = 30_000;

/// How a fleet came back.
#[derive(Debug)]
pub struct Return {
    /// Devices that asked for a handshake in each second after the server's return.
    pub arrivals: Vec<u32>,
    /// Devices that came online in each of these seconds.
    pub online: Vec<u32>,
    /// Tries that found the server dead.
    pub refused: u64,
    /// Tries that waited in vain.
    pub abandoned: u64,
}

impl Outage {
    /// One whose server told its devices what a server of this rate tells this many: a window that they fill to the half.
    #[must_use]
    pub fn new(devices: u32, rate: u32, dead: Duration, seed: u64) -> Self {
        let spread = Duration::from_secs(u64::from(devices) * 2 / u64::from(rate));
        Self { devices, dead, rate, spread, seed }
    }

    /// Lives it through.
    #[must_use]
    pub fn play(&self) -> Return {
        let dead_ms = millis(self.dead);
        let mut back = Return { arrivals: Vec::new(), online: Vec::new(), refused: 0, abandoned: 0 };
        let mut devices: Vec<_> =
            (0..self.devices).map(|number| Backoff::new(LIMITS, seed(self.seed, number))).collect();
        let mut tries: BinaryHeap<_> = devices
            .iter_mut()
            .enumerate()
            .map(|(number, backoff)| {
                Reverse((millis(backoff.server_lost(LIMITS.stable_after, self.spread)), number))
            })
            .collect();
        // In microseconds of work that lies before the server.
        let mut free_us = dead_ms * 1000;
        while let Some(Reverse((at_ms, number))) = tries.pop() {
            let Some(after_ms) = at_ms.checked_sub(dead_ms) else {
                back.refused += 1;
                tries.push(Reverse((at_ms + failed(&mut devices[number]), number)));
                continue;
            };
            count(&mut back.arrivals, after_ms);
            free_us = free_us.max(at_ms * 1000);
            if free_us > (at_ms + PATIENCE_MS) * 1000 {
                back.abandoned += 1;
                let again = at_ms + PATIENCE_MS + failed(&mut devices[number]);
                tries.push(Reverse((again, number)));
                continue;
            }
            free_us += 1_000_000 / u64::from(self.rate);
            count(&mut back.online, free_us / 1000 - dead_ms);
        }
        back
    }
}

impl Return {
    /// The most devices that asked in one second.
    #[must_use]
    pub fn busiest(&self) -> u32 {
        self.arrivals.iter().copied().max().unwrap_or(0)
    }

    /// When the last device was online.
    #[must_use]
    pub fn all_back(&self) -> Duration {
        Duration::from_secs(self.online.len() as u64)
    }

    /// The arrivals as a picture (SVG), with the server's rate as a line.
    #[must_use]
    pub fn picture(&self, title: &str, rate: u32) -> String {
        const WIDTH: usize = 720;
        const HEIGHT: u32 = 180;
        let per_bar = self.arrivals.len().div_ceil(WIDTH).max(1);
        let bars: Vec<u32> =
            self.arrivals.chunks(per_bar).map(|seconds| seconds.iter().copied().max().unwrap_or(0)).collect();
        let top = self.busiest().max(rate) * 11 / 10;
        let y =
            |value: u32| 30 + HEIGHT - (u64::from(value) * u64::from(HEIGHT) / u64::from(top.max(1))) as u32;
        let width = WIDTH as f64 / bars.len().max(1) as f64;
        let base = 30 + HEIGHT;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 250\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"800\" height=\"250\" fill=\"#fff\"/>\n\
             <text x=\"60\" y=\"18\" font-weight=\"bold\">{title}</text>\n<path fill=\"#2a7\" d=\""
        );
        for (place, bar) in bars.iter().enumerate().filter(|(_, bar)| **bar > 0) {
            let x = 60.0 + place as f64 * width;
            let _ = write!(svg, "M{x:.1} {base}V{}h{width:.1}V{base}z", y(*bar));
        }
        let line = y(rate);
        let _ = writeln!(
            svg,
            "\"/>\n<path stroke=\"#c33\" stroke-dasharray=\"6 4\" d=\"M60 {line}h{WIDTH}\"/>\n\
             <text x=\"60\" y=\"{}\" fill=\"#c33\">what the server can do: {rate} a second</text>\n\
             <path stroke=\"#333\" d=\"M60 {base}h{WIDTH}\"/>\n\
             <text x=\"56\" y=\"{base}\" text-anchor=\"end\">0</text>\n\
             <text x=\"60\" y=\"{}\">0 s after the server's return</text>\n\
             <text x=\"780\" y=\"{}\" text-anchor=\"end\">{} s</text>\n\
             <text x=\"780\" y=\"18\" text-anchor=\"end\">handshakes asked for, each second</text>\n</svg>",
            line - 5,
            base + 18,
            base + 18,
            self.arrivals.len(),
        );
        svg
    }
}

/// When it tries again after a try that came to nothing.
fn failed(backoff: &mut Backoff) -> u64 {
    millis(backoff.next_delay(Cause::Network, Duration::ZERO, None))
}

fn count(seconds: &mut Vec<u32>, at_ms: u64) {
    let second = (at_ms / 1000) as usize;
    if seconds.len() <= second {
        seconds.resize(second + 1, 0);
    }
    seconds[second] += 1;
}

fn seed(seed: u64, number: u32) -> u64 {
    // Seeds that lie side by side give streams that do not.
    (seed ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
