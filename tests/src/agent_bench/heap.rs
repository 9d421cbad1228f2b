//! Counts a program's heap allocations from outside: by a library that is laid over malloc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;
use crate::preload;

/// The library, and the file that it counts in.
pub(super) struct Heap {
    library: PathBuf,
    counts: PathBuf,
}

/// What was counted so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) allocations: u64,
    pub(super) peak: u64,
}

impl Heap {
    /// Compiles the library into `folder`.
    pub(super) fn new(folder: &Path, name: &str) -> Result<Self, Failure> {
        let library = preload::library("agent_bench/heap.c", folder)?;
        let counts = folder.join(format!("heap-{name}"));
        fs::write(&counts, [0; 24])?;
        Ok(Self { library, counts })
    }

    /// Has `command` start with the library.
    pub(super) fn over(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("MOORLINE_HEAP", &self.counts);
    }

    pub(super) fn counted(&self) -> Result<Counted, Failure> {
        let bytes = fs::read(&self.counts)?;
        let number = |at: usize| {
            let number = bytes.get(at * 8..at * 8 + 8).and_then(|bytes| bytes.try_into().ok());
            number.map(u64::from_ne_bytes).ok_or_else(|| Failure::new("the file of counts is cut short"))
        };
        Ok(Counted { allocations: number(0)?, peak: number(2)? })
    }
}
