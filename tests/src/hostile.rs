//! Bytes that nobody honest would send, for everything that reads a peer's bytes or a person's files.
//!
//! A [`Target`] is one such reader with what must hold whatever it is given: more than that it does not panic. Two things run
//! them: `fuzz/` under libFuzzer, with a nightly compiler, for as long as one likes; and [`Campaign`] with the stable one, which
//! replays the corpora of `fuzz/corpus` and mutates them by a seed.

mod campaign;
mod entry;
mod files;
mod modem;
mod mutate;
mod records;
mod script;
mod session;
mod stream;

use std::panic;

pub use campaign::{Campaign, Finding, corpus};

/// One reader of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As its corpus and its program under `fuzz/` are called.
    pub name: &'static str,
    /// Reads the bytes, and panics when something does not hold.
    read: fn(&[u8]),
    /// What its inputs are made of.
    words: &'static [&'static [u8]],
    /// The longest input worth trying.
    longest: usize,
    /// What it may hold at most while it reads, beside [`PER_BYTE`] for each byte of the input.
    memory: u64,
}

/// What one byte of input may cost in memory, this testbed's notes of what came out included.
const PER_BYTE: u64 = 512;

impl Target {
    /// A reader that is made of nothing else: `read` panics when something does not hold, `words` is what inputs are made of,
    /// `longest` how long they are at most, and `memory` what the reader may hold beside its share for each byte.
    #[must_use]
    pub const fn new(
        name: &'static str,
        read: fn(&[u8]),
        words: &'static [&'static [u8]],
        longest: usize,
        memory: u64,
    ) -> Self {
        Self { name, read, words, longest, memory }
    }

    /// Reads the bytes.
    ///
    /// # Panics
    /// When something does not hold, memory's bound included.
    pub fn run(&self, bytes: &[u8]) {
        // A panic must not leave the measuring half done.
        let mut outcome = Ok(());
        let measured = allocation_counter::measure(|| outcome = panic::catch_unwind(|| (self.read)(bytes)));
        outcome.unwrap_or_else(|said| panic::resume_unwind(said));
        let held = measured.bytes_max;
        let most = self.memory + PER_BYTE * bytes.len() as u64;
        assert!(held <= most, "{} bytes of input took {held} bytes of memory, more than {most}", bytes.len());
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }
}

const KIB: u64 = 1024;

/// All of them.
pub const TARGETS: &[Target] = &[
    Target::new("frames", stream::frames, stream::NATIVE, 9000, 64 * KIB),
    Target::new("messages", stream::messages, stream::NATIVE, 256, 16 * KIB),
    Target::new("classic_requests", stream::classic_requests, stream::CLASSIC, 4096, 64 * KIB),
    Target::new("classic_replies", stream::classic_replies, stream::CLASSIC, 4096, 64 * KIB),
    Target::new("device_session", session::device, stream::NATIVE, 4096, 64 * KIB),
    Target::new("server_session", session::server, stream::NATIVE, 4096, 64 * KIB),
    Target::new("imei", modem::imei, modem::NUMBERS, 64, 16 * KIB),
    Target::new("at_dialogue", modem::dialogue, modem::ANSWERS, 4096, 64 * KIB),
    Target::new("at_survey", modem::survey, modem::ANSWERS, 4096, 64 * KIB),
    Target::new("agent_config", files::agent_config, files::AGENT_KEYS, 4096, 2048 * KIB),
    Target::new("server_config", files::server_config, files::SERVER_KEYS, 4096, 8192 * KIB),
    Target::new("agent_state", files::agent_state, files::STATE, 4096, 128 * KIB),
    Target::new("table", files::table, files::CELLS, 4096, 64 * KIB),
    Target::new("proxy", entry::proxy, entry::PROXY, 4200, 16 * KIB),
    Target::new("client_hello", entry::client_hello, entry::HELLO, 17_000, 16 * KIB),
    Target::new("records", records::records, records::STEPS, 600, 512 * KIB),
    Target::new("certificate", entry::certificate, entry::DER, 2048, 256 * KIB),
];
